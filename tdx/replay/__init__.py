"""Replay a TD's boot event log into its RTMRs, and say which event differs."""

from tdx.replay.ccel import Event, EventLog, parse_ccel
from tdx.replay.explain import Finding, compare_logs, explain

__all__ = [
    "Event",
    "EventLog",
    "Finding",
    "compare_logs",
    "explain",
    "parse_ccel",
]

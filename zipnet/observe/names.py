"""The names metrics were asked for by, and the names they have here.

One application prefix, one unit for each metric, ``_total`` for counters (ecosystem.md §2); so a
name that was asked for without these is another one here. The table is part of
``docs/reference/metrics.md``.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ASKED_NAMES"]

ASKED_NAMES: Final[tuple[tuple[str, str, str], ...]] = (
    ("rejected_total{reason}", "M6", "zipnet_rejected_total"),
    ("auth_failures_total{service}", "M6", "zipnet_auth_failures_total"),
    ("tls_handshake_failures_total", "M6", "zipnet_tls_handshake_failures_total"),
    ("request_latency_seconds", "A3", "zipnet_request_latency_seconds"),
    ("http_requests_total", "A3", "zipnet_http_requests_total"),
    ("service_restarts_total", "A3", "zipnet_service_restarts_total"),
    ("bus_lagged_total", "A3", "zipnet_bus_lagged_total"),
    ("integrity_fail_total", "A3", "zipnet_integrity_fail_total"),
    ("ready_state", "A3", "zipnet_ready_state"),
    ("wal_fsync_fail_total", "L7", "zipnet_wal_fsync_fail_total"),
    ("seq_gap_detected_total", "L7", "zipnet_seq_gap_detected_total"),
    ("breaker_open_total{target}", "L7", "zipnet_breaker_open_total"),
    ("breaker_open_seconds{target}", "L7", "zipnet_breaker_open_seconds"),
    ("uds_denied_total", "L7", "zipnet_uds_denied_total"),
    ("commit latency histogram", "L7", "zipnet_commit_latency_seconds"),
    ("unknown kind", "L7", "zipnet_unknown_kind_total"),
    ("zipnet_rounds_finalized_total", "upstream", "zipnet_rounds_finalized_total"),
    ("zipnet_partials_submitted_total", "upstream", "zipnet_partials_submitted_total"),
    ("zipnet_client_registry_size", "upstream", "zipnet_client_registry_size"),
    ("zipnet_server_registry_size", "upstream", "zipnet_server_registry_size"),
    ("leader", "upstream", "zipnet_consensus_leader"),
    ("bonds", "upstream", "zipnet_bonds"),
    ("committed index", "upstream", "zipnet_consensus_committed_index"),
    ("quote expiry", "Z17", "zipnet_evidence_expiry_timestamp_seconds"),
    ("collateral expiry", "Z17", "zipnet_collateral_expiry_timestamp_seconds"),
    ("certificate expiry", "Z17", "zipnet_certificate_expiry_timestamp_seconds"),
    ("ticket expiry", "Z17", "zipnet_capability_expiry_timestamp_seconds"),
    ("descriptor expiry", "Z17", "zipnet_descriptor_expiry_timestamp_seconds"),
    ("key expiry", "Z17", "zipnet_key_expiry_timestamp_seconds"),
)
"""What was asked for, the row or source that asked, and the metric's name."""

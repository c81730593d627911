"""Every metric a node exports, declared once (names: ``docs/reference/metrics.md``).

Rules:

1. One :class:`prometheus_client.CollectorRegistry` for each node, never the global one: several
   nodes may live in one process.
2. Every series carries ``zipnet_instance`` and ``role``; some carry ``reason`` as well. Never
   ``instance``, which belongs to the scraper, and never anything about a client.
3. Reasons are the snake_case codes of :mod:`zipnet.errors` and its peers. Their number is bounded;
   what is malformed or beyond the bound counts as ``other``, so no peer can grow the exposition.
4. Process figures are our own: the stock collector goes silent under ``ProcSubset=pid``.
"""

from __future__ import annotations

import os
import platform
import re
import time
from typing import TYPE_CHECKING, Final, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ROUND_DURATION_BUCKETS_S", "CounterByReason", "GaugeByReason", "NodeMetrics"]

ROUND_DURATION_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0)

_LABELS = ("zipnet_instance", "role")
_MAX_REASONS = 48
_REASON = re.compile(r"[a-z][a-z0-9_]{0,47}")
_OTHER = "other"

# The exposition format's `_created` series double every counter and answer no question of ours.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class _Reasons:
    """Admits a bounded set of well-formed reasons."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def admit(self, reason: str) -> str:
        if reason in self._known:
            return reason
        if len(self._known) >= _MAX_REASONS or not _REASON.fullmatch(reason):
            return _OTHER
        self._known.add(reason)
        return reason


class CounterByReason:
    """A counter with one series for each reason."""

    def __init__(self, counter: Counter, instance: str, role: str) -> None:
        self._counter = counter
        self._where = (instance, role)
        self._reasons = _Reasons()

    def inc(self, reason: str, amount: int = 1) -> None:
        """Count ``amount`` events that happened for ``reason`` (snake_case)."""
        self._counter.labels(*self._where, self._reasons.admit(reason)).inc(amount)


class GaugeByReason:
    """A gauge with one series for each reason."""

    def __init__(self, gauge: Gauge, instance: str, role: str) -> None:
        self._gauge = gauge
        self._where = (instance, role)
        self._reasons = _Reasons()

    def set(self, reason: str, value: float) -> None:
        """Set the series of ``reason`` (snake_case)."""
        self._gauge.labels(*self._where, self._reasons.admit(reason)).set(value)

    def remove(self, reason: str) -> None:
        """Stop exporting the series of ``reason``."""
        self._gauge.remove(*self._where, self._reasons.admit(reason))


class _ProcessCollector(Collector):
    """Memory, descriptors and start time of this process, read when scraped."""

    def __init__(self, instance: str, role: str) -> None:
        self._where = (instance, role)
        self._started_at = time.time()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Read the figures; one that cannot be read is left out rather than guessed."""
        yield self._family(
            "zipnet_process_start_time_seconds", "When the process started.", self._started_at
        )
        try:
            with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - procfs
                pages = int(statm.read().split()[1])
            descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - procfs
        except OSError:
            return
        yield self._family(
            "zipnet_process_resident_memory_bytes",
            "Resident memory of the process.",
            pages * os.sysconf("SC_PAGE_SIZE"),
        )
        yield self._family("zipnet_process_open_fds", "Open file descriptors.", descriptors)

    def _family(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=_LABELS)
        family.add_metric(self._where, value)
        return family


class NodeMetrics:
    """The metrics of one node; each attribute is ready to use, its labels already bound.

    Args:
        registry: The node's own registry.
        instance: Name of the instance.
        role: ``server`` or ``aggregator``.
        version: Version of zipnet, for ``zipnet_build_info``.
        commit: Source commit, or ``unknown``.
        posture: ``production``, ``non-production`` or ``development``.
        attestation: ``required``, ``emulated`` or ``off``.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        instance: str,
        role: str,
        version: str = "unknown",
        commit: str = "unknown",
        posture: str = "development",
        attestation: str = "off",
    ) -> None:
        self.registry = registry
        self._where = (instance, role)
        self._declare_node()
        self._declare_rounds()
        self._declare_links()
        build = self._gauge_with(
            "zipnet_build_info",
            "Always 1; the labels say what is running.",
            ("version", "commit", "python", "posture", "attestation"),
        )
        python = platform.python_version()
        build.labels(*self._where, version, commit, python, posture, attestation).set(1)
        registry.register(_ProcessCollector(instance, role))

    def _declare_node(self) -> None:
        self.ready_state = self._gauge("zipnet_ready_state", "1 while the node is ready, else 0.")
        self.not_ready = self._gauge_by_reason(
            "zipnet_not_ready", "1 for each reason why the node is not ready."
        )
        self.safe_mode = self._gauge_by_reason(
            "zipnet_safe_mode",
            "1 once a durable write failed, for that reason, and the node stopped signing.",
        )
        self.safe_mode.set("none", 0)
        self.consensus_leader = self._gauge("zipnet_consensus_leader", "1 while this node leads.")
        self.consensus_committed_index = self._gauge(
            "zipnet_consensus_committed_index", "Position of the last committed command."
        )
        self.client_registry_size = self._gauge(
            "zipnet_client_registry_size", "Registered clients."
        )
        self.server_registry_size = self._gauge(
            "zipnet_server_registry_size", "Committee servers of the descriptor."
        )

    def _declare_rounds(self) -> None:
        self.rounds_opened = self._counter("zipnet_rounds_opened_total", "Rounds opened.")
        self.rounds_finalized = self._counter("zipnet_rounds_finalized_total", "Rounds made final.")
        self.rounds_aborted = self._counter_by_reason(
            "zipnet_rounds_aborted_total", "Rounds aborted, by reason."
        )
        self.partials_submitted = self._counter(
            "zipnet_partials_submitted_total", "Partials this server released."
        )
        self.partials_refused = self._counter_by_reason(
            "zipnet_partials_refused_total", "Partials the release guard refused, by reason."
        )
        self.record_sequence = self._gauge(
            "zipnet_record_sequence", "Sequence number of the last verified record."
        )
        self.last_record_timestamp = self._gauge(
            "zipnet_last_record_timestamp_seconds", "When the last verified record was stored."
        )
        self.round_duration = self._histogram(
            "zipnet_round_duration_seconds", "From a round's opening to its record."
        )
        self.round_participants = self._gauge(
            "zipnet_round_participants", "Participants of the last final round."
        )
        self.slots_void = self._counter(
            "zipnet_slots_void_total", "Slots of final rounds whose tag did not verify."
        )

    def _declare_links(self) -> None:
        self.bonds = self._gauge("zipnet_bonds", "Live authenticated links to other nodes.")
        self.envelopes_accepted = self._counter(
            "zipnet_envelopes_accepted_total", "Envelopes folded into an aggregate."
        )
        self.rejected = self._counter_by_reason(
            "zipnet_rejected_total", "Peers and requests refused, by reason."
        )
        self.revocations = self._counter_by_reason(
            "zipnet_revocations_total", "Revocations enforced, by what was revoked."
        )
        self.uds_denied = self._counter_by_reason(
            "zipnet_uds_denied_total", "Callers of the admin socket turned away, by reason."
        )
        self.collateral_expiry = self._gauge(
            "zipnet_collateral_expiry_timestamp_seconds",
            "When this machine's TDX collateral lapses; 0 where it has none.",
        )
        self.capability_expiry = self._gauge(
            "zipnet_capability_expiry_timestamp_seconds",
            "When the capability this node shows to others ends; 0 where it has none.",
        )
        self._clock_skew = self._gauge_with(
            "zipnet_clock_skew_seconds",
            "How far ahead another server's clock is, by its index.",
            ("server",),
        )
        self.tls_handshake_failures = self._counter(
            "zipnet_tls_handshake_failures_total", "Transport handshakes that failed."
        )

    def clock_skew(self, server: int, seconds: float) -> None:
        """Show how far ahead a server's clock is."""
        self._clock_skew.labels(*self._where, str(server)).set(seconds)

    def _bind(self, metric: _Metric) -> _Metric:
        return metric.labels(*self._where)

    def _counter(self, name: str, text: str) -> Counter:
        return self._bind(Counter(name, text, _LABELS, registry=self.registry))

    def _gauge(self, name: str, text: str) -> Gauge:
        return self._bind(Gauge(name, text, _LABELS, registry=self.registry))

    def _gauge_with(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, (*_LABELS, *labels), registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        buckets = ROUND_DURATION_BUCKETS_S
        return self._bind(Histogram(name, text, _LABELS, registry=self.registry, buckets=buckets))

    def _counter_by_reason(self, name: str, text: str) -> CounterByReason:
        counter = Counter(name, text, (*_LABELS, "reason"), registry=self.registry)
        return CounterByReason(counter, *self._where)

    def _gauge_by_reason(self, name: str, text: str) -> GaugeByReason:
        return GaugeByReason(self._gauge_with(name, text, ("reason",)), *self._where)

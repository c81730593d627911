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
import time
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from zipnet.observe.families import (
    NODE_LABELS,
    ROUND_DURATION_BUCKETS_S,
    CounterByReason,
    Families,
    GaugeByReason,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "COMMIT_LATENCY_BUCKETS_S",
    "REQUEST_LATENCY_BUCKETS_S",
    "ROUND_DURATION_BUCKETS_S",
    "CounterByReason",
    "GaugeByReason",
    "NodeMetrics",
]

REQUEST_LATENCY_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
COMMIT_LATENCY_BUCKETS_S: Final = (
    0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip


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
        family = GaugeMetricFamily(name, text, labels=NODE_LABELS)
        family.add_metric(self._where, value)
        return family


class NodeMetrics(Families):
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
        super().__init__(registry, instance=instance, role=role)
        self._declare_node()
        self._declare_rounds()
        self._declare_links()
        self._declare_wall()
        self._declare_storage()
        self._declare_expiry()
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
        self.degraded = self._gauge_by_reason(
            "zipnet_degraded", "1 for each reason why the node is ready, but not as it should be."
        )
        self.service_restarts = self._counter(
            "zipnet_service_restarts_total",
            "Earlier starts on this state folder; 0 where nothing is kept.",
        )
        self._version_supported = self._gauge_with(
            "zipnet_peer_version_supported",
            "1 while another server's version goes with this one's, by its index.",
            ("server",),
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

    def _declare_wall(self) -> None:
        self.auth_failures = self._counter_by(
            "service",
            "zipnet_auth_failures_total",
            "Callers who were not who they must be, by what they called.",
        )
        self.http_requests = self._counter_by(
            "code", "zipnet_http_requests_total", "HTTP requests answered, by status code."
        )
        self.breaker_open = self._counter_by(
            "target",
            "zipnet_breaker_open_total",
            "Times a breaker opened, by what it keeps from being asked.",
        )
        self._breaker_seconds = self._gauge_with(
            "zipnet_breaker_open_seconds",
            "For how long a target has been left alone; 0 while it is asked.",
            ("target",),
        )
        self.unknown_kind = self._counter(
            "zipnet_unknown_kind_total", "Requests and pushes of a kind this node does not know."
        )
        self._request_latency = Histogram(
            "zipnet_request_latency_seconds",
            "Time in a request's handler, by route.",
            (*NODE_LABELS, "route"),
            registry=self.registry,
            buckets=REQUEST_LATENCY_BUCKETS_S,
        )
        self._routes: dict[str, Histogram] = {}

    def _declare_storage(self) -> None:
        self.commit_latency = self._histogram(
            "zipnet_commit_latency_seconds",
            "From a command's proposal here to its place in the log.",
            COMMIT_LATENCY_BUCKETS_S,
        )
        self.disk_free = self._gauge(
            "zipnet_disk_free_bytes", "Room on the disk of the state folder; 0 without one."
        )
        self.disk_fsync = self._histogram(
            "zipnet_disk_fsync_duration_seconds",
            "Time to make a test block durable.",
            REQUEST_LATENCY_BUCKETS_S,
        )
        self.wal_fsync_fail = self._counter(
            "zipnet_wal_fsync_fail_total", "Writes that could not be made durable."
        )
        self.seq_gap_detected = self._counter(
            "zipnet_seq_gap_detected_total", "Records that came before the ones they follow."
        )
        self.integrity_fail = self._counter_by(
            "what",
            "zipnet_integrity_fail_total",
            "Things that did not prove what they claim to be, stored or received, by kind.",
        )
        self.bus_lagged = self._counter(
            "zipnet_bus_lagged_total", "Subscribers let go because they fell behind the feed."
        )

    def _declare_expiry(self) -> None:
        self.descriptor_expiry = self._gauge(
            "zipnet_descriptor_expiry_timestamp_seconds", "When the descriptor in use ends."
        )
        self._key_expiry = self._gauge_with(
            "zipnet_key_expiry_timestamp_seconds",
            "When a key this node works with should have been rotated, by what it is.",
            ("key",),
        )
        self.certificate_expiry = self._gauge(
            "zipnet_certificate_expiry_timestamp_seconds",
            "When this node's transport certificate ends.",
        )
        self.evidence_expiry = self._gauge(
            "zipnet_evidence_expiry_timestamp_seconds",
            "When the quote this node shows lapses; 0 where it shows none.",
        )

    def key_expires(self, key: str, at: float) -> None:
        """Show when a key should be replaced, Unix seconds."""
        self._key_expiry.labels(*self._where, key).set(at)

    def version_supported(self, server: int, supported: bool) -> None:  # noqa: FBT001 - a gauge
        """Show whether a server's version goes with this one's."""
        self._version_supported.labels(*self._where, str(server)).set(supported)

    def clock_skew(self, server: int, seconds: float) -> None:
        """Show how far ahead a server's clock is."""
        self._clock_skew.labels(*self._where, str(server)).set(seconds)

    def request_took(self, route: str, seconds: float) -> None:
        """Count a request of a route, one of a bounded set."""
        bound = self._routes.get(route)
        if bound is None:
            bound = self._routes[route] = self._request_latency.labels(*self._where, route)
        bound.observe(seconds)

    def watch_breaker(self, target: str, read: Callable[[], float]) -> None:
        """Show for how long a target has been left alone, as ``read`` says when asked."""
        self._breaker_seconds.labels(*self._where, target).set_function(read)

    def breaker_seconds(self, target: str, seconds: float) -> None:
        """Show for how long a target has been left alone."""
        self._breaker_seconds.labels(*self._where, target).set(seconds)

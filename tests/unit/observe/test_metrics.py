"""Promises of the metrics: the names dashboards use, the labels, and nothing that grows."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from zipnet.observe.metrics import NodeMetrics
from zipnet.observe.names import ASKED_NAMES

PLAIN = {"zipnet_instance", "role"}
REASON = PLAIN | {"reason"}
EXPECTED = {
    "zipnet_build_info": PLAIN | {"version", "commit", "python", "posture", "attestation"},
    "zipnet_ready_state": PLAIN,
    "zipnet_not_ready": REASON,
    "zipnet_degraded": REASON,
    "zipnet_service_restarts": PLAIN,
    "zipnet_peer_version_supported": PLAIN | {"server"},
    "zipnet_commit_latency_seconds": PLAIN,
    "zipnet_disk_free_bytes": PLAIN,
    "zipnet_disk_fsync_duration_seconds": PLAIN,
    "zipnet_wal_fsync_fail": PLAIN,
    "zipnet_seq_gap_detected": PLAIN,
    "zipnet_integrity_fail": PLAIN | {"what"},
    "zipnet_bus_lagged": PLAIN,
    "zipnet_descriptor_expiry_timestamp_seconds": PLAIN,
    "zipnet_certificate_expiry_timestamp_seconds": PLAIN,
    "zipnet_evidence_expiry_timestamp_seconds": PLAIN,
    "zipnet_auth_failures": PLAIN | {"service"},
    "zipnet_http_requests": PLAIN | {"code"},
    "zipnet_breaker_open": PLAIN | {"target"},
    "zipnet_breaker_open_seconds": PLAIN | {"target"},
    "zipnet_request_latency_seconds": PLAIN | {"route"},
    "zipnet_unknown_kind": PLAIN,
    "zipnet_rounds_opened": PLAIN,
    "zipnet_rounds_finalized": PLAIN,
    "zipnet_rounds_aborted": REASON,
    "zipnet_partials_submitted": PLAIN,
    "zipnet_partials_refused": REASON,
    "zipnet_client_registry_size": PLAIN,
    "zipnet_server_registry_size": PLAIN,
    "zipnet_consensus_leader": PLAIN,
    "zipnet_consensus_committed_index": PLAIN,
    "zipnet_bonds": PLAIN,
    "zipnet_record_sequence": PLAIN,
    "zipnet_last_record_timestamp_seconds": PLAIN,
    "zipnet_round_duration_seconds": PLAIN,
    "zipnet_round_participants": PLAIN,
    "zipnet_envelopes_accepted": PLAIN,
    "zipnet_rejected": REASON,
    "zipnet_revocations": REASON,
    "zipnet_uds_denied": REASON,
    "zipnet_collateral_expiry_timestamp_seconds": PLAIN,
    "zipnet_capability_expiry_timestamp_seconds": PLAIN,
    "zipnet_clock_skew_seconds": PLAIN | {"server"},
    "zipnet_key_expiry_timestamp_seconds": PLAIN | {"key"},
    "zipnet_tls_handshake_failures": PLAIN,
    "zipnet_safe_mode": REASON,
    "zipnet_slots_void": PLAIN,
    "zipnet_process_start_time_seconds": PLAIN,
    "zipnet_process_resident_memory_bytes": PLAIN,
    "zipnet_process_open_fds": PLAIN,
}


def _metrics() -> NodeMetrics:
    metrics = NodeMetrics(
        CollectorRegistry(), instance="acme.test", role="server", version="1.2.3", commit="abc"
    )
    metrics.not_ready.set("starting", 1)
    metrics.rounds_aborted.inc("deadline")
    metrics.partials_refused.inc("too_few")
    metrics.rejected.inc("quota")
    metrics.revocations.inc("peer")
    metrics.uds_denied.inc("uid")
    metrics.clock_skew(1, 0.5)
    metrics.key_expires("identity", 1.0)
    metrics.version_supported(1, supported=True)
    metrics.degraded.set("disk_low", 1)
    metrics.integrity_fail.inc("record")
    metrics.auth_failures.inc("server")
    metrics.http_requests.inc("200")
    metrics.breaker_open.inc("source")
    metrics.breaker_seconds("source", 0.0)
    metrics.request_took("get_records", 0.002)
    metrics.round_duration.observe(0.3)
    return metrics


def _scrape(metrics: NodeMetrics) -> str:
    return generate_latest(metrics.registry).decode()


def test_exactly_the_named_metrics_with_exactly_the_named_labels() -> None:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(_scrape(_metrics())):
        labels = {name for sample in family.samples for name in sample.labels}
        found[family.name] = labels - {"le"}
    assert found == EXPECTED


@pytest.mark.requirement("A3")
def test_every_name_that_was_asked_for_is_exported() -> None:
    found = {family.name for family in text_string_to_metric_families(_scrape(_metrics()))}
    for _, _, name in ASKED_NAMES:
        assert name.removesuffix("_total") in found, name


def test_nothing_is_labelled_with_the_scrapers_own_label() -> None:
    for family in text_string_to_metric_families(_scrape(_metrics())):
        assert all("instance" not in sample.labels for sample in family.samples)


def test_promtool_has_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (make ops-tools)")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=_scrape(_metrics()), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_two_nodes_in_one_process_do_not_mix_and_leave_the_global_registry_alone() -> None:
    before = generate_latest(REGISTRY).count(b"zipnet_")
    first, second = _metrics(), _metrics()
    first.rounds_opened.inc()
    assert "zipnet_rounds_opened_total" in _scrape(first)
    assert 'zipnet_rounds_opened_total{role="server",zipnet_instance="acme.test"} 0.0' in _scrape(
        second
    )
    assert generate_latest(REGISTRY).count(b"zipnet_") == before == 0


def test_reasons_are_bounded_and_malformed_ones_count_as_other() -> None:
    metrics = _metrics()
    for index in range(1000):
        metrics.rejected.inc(f"reason_{index}")
    metrics.rejected.inc('evil"} 1\ninjected 1')
    text = _scrape(metrics)
    assert text.count("zipnet_rejected_total{") < 60
    assert "injected" not in text
    assert 'reason="other"' in text


def test_process_figures_are_those_of_this_process() -> None:
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(_scrape(_metrics()))
        for sample in family.samples
    }
    assert abs(values["zipnet_process_start_time_seconds"] - time.time()) < 60
    assert 5e6 < values["zipnet_process_resident_memory_bytes"] < 5e9
    # One more descriptor than listed here: the listing itself holds one while it runs.
    assert abs(values["zipnet_process_open_fds"] - len(list(Path("/proc/self/fd").iterdir()))) <= 3

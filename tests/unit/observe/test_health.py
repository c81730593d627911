"""Promises of readiness: not ready until everything holds, and always with a reason."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from zipnet.observe import FailedCondition, Health
from zipnet.observe.health import HOLDS, degraded, failed
from zipnet.observe.metrics import NodeMetrics


def _value(metrics: NodeMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(
        name, {"zipnet_instance": "acme.test", "role": "server", **labels}
    )


def test_a_node_starts_unready_for_the_reason_starting() -> None:
    health = Health(["transport", "consensus"])
    assert not health.ready()
    assert health.failed() == [
        FailedCondition("transport", "starting"),
        FailedCondition("consensus", "starting"),
    ]


def test_ready_only_while_every_condition_holds() -> None:
    health = Health(["transport", "consensus"])
    health.set("transport", ok=True)
    assert not health.ready()
    health.set("consensus", ok=True)
    assert health.ready()
    health.set("transport", ok=False, reason="closed")
    assert health.failed() == [FailedCondition("transport", "closed")]
    assert not health.ready()


def test_a_condition_nobody_named_counts_once_it_is_set() -> None:
    health = Health([])
    assert health.ready()
    health.set("storage", ok=False, reason="safe_mode")
    assert not health.ready()


def test_metrics_follow_and_a_reason_that_passed_reads_zero() -> None:
    metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
    health = Health(["consensus"], metrics)
    assert _value(metrics, "zipnet_ready_state") == 0
    assert _value(metrics, "zipnet_not_ready", reason="starting") == 1
    health.set("consensus", ok=False, reason="no_leader")
    assert _value(metrics, "zipnet_not_ready", reason="starting") == 0
    assert _value(metrics, "zipnet_not_ready", reason="no_leader") == 1
    health.set("consensus", ok=True)
    assert _value(metrics, "zipnet_ready_state") == 1
    assert _value(metrics, "zipnet_not_ready", reason="no_leader") == 0


def test_a_degraded_dependency_leaves_the_node_ready_and_shows() -> None:
    metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
    health = Health(["disk"], metrics)
    health.report("disk", degraded("disk_low"))
    assert health.ready()
    assert health.degraded() == [FailedCondition("disk", "disk_low")]
    assert health.states() == {"disk": "degraded"}
    assert _value(metrics, "zipnet_degraded", reason="disk_low") == 1
    assert _value(metrics, "zipnet_ready_state") == 1
    health.report("disk", failed("disk_full"))
    assert not health.ready()
    assert health.degraded() == []
    assert _value(metrics, "zipnet_degraded", reason="disk_low") == 0


def test_what_nobody_looks_at_any_more_has_failed() -> None:
    now = 100.0
    metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
    health = Health([], metrics, monotonic=lambda: now)
    health.expect("disk", 5.0)
    assert health.failed() == [FailedCondition("disk", "starting")]
    health.report("disk", HOLDS)
    health.report("clock", HOLDS)  # nobody promised to look at it again
    now = 105.0
    assert health.ready()
    now = 105.1
    assert not health.ready()
    assert health.failed() == [FailedCondition("disk", "not_checked")]
    health.review()
    assert _value(metrics, "zipnet_not_ready", reason="not_checked") == 1
    health.report("disk", HOLDS)
    assert health.ready()


def test_a_failure_keeps_its_reason_when_it_is_not_looked_at_again() -> None:
    now = 0.0
    health = Health([], monotonic=lambda: now)
    health.expect("disk", 5.0)
    health.report("disk", failed("disk_full"))
    now = 60.0
    assert health.failed() == [FailedCondition("disk", "disk_full")]


async def test_waiting_ends_when_the_last_condition_holds() -> None:
    health = Health(["a", "b"])
    waiting = asyncio.create_task(health.wait_ready())
    health.set("a", ok=True)
    await asyncio.sleep(0)
    assert not waiting.done()
    health.set("b", ok=True)
    async with asyncio.timeout(5):
        await waiting

"""How metrics are made: always with the labels of the node, and with bounded further ones."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = [
    "NODE_LABELS",
    "ROUND_DURATION_BUCKETS_S",
    "CounterByReason",
    "Families",
    "GaugeByReason",
]

NODE_LABELS: Final = ("zipnet_instance", "role")
ROUND_DURATION_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0)

_MAX_REASONS = 56
_REASON = re.compile(r"[a-z0-9][a-z0-9_]{0,47}")
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


class Families:
    """Makes metrics of one node in its registry.

    Args:
        registry: The node's own registry.
        instance: Name of the instance.
        role: What the node is.
    """

    def __init__(self, registry: CollectorRegistry, *, instance: str, role: str) -> None:
        self.registry = registry
        self._where = (instance, role)

    def _bind(self, metric: _Metric) -> _Metric:
        return metric.labels(*self._where)

    def _counter(self, name: str, text: str) -> Counter:
        return self._bind(Counter(name, text, NODE_LABELS, registry=self.registry))

    def _gauge(self, name: str, text: str) -> Gauge:
        return self._bind(Gauge(name, text, NODE_LABELS, registry=self.registry))

    def _gauge_with(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, (*NODE_LABELS, *labels), registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...] = ROUND_DURATION_BUCKETS_S
    ) -> Histogram:
        return self._bind(
            Histogram(name, text, NODE_LABELS, registry=self.registry, buckets=buckets)
        )

    def _counter_by_reason(self, name: str, text: str) -> CounterByReason:
        return self._counter_by("reason", name, text)

    def _counter_by(self, label: str, name: str, text: str) -> CounterByReason:
        counter = Counter(name, text, (*NODE_LABELS, label), registry=self.registry)
        return CounterByReason(counter, *self._where)

    def _gauge_by_reason(self, name: str, text: str) -> GaugeByReason:
        return GaugeByReason(self._gauge_with(name, text, ("reason",)), *self._where)

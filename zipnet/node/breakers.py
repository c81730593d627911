"""The breakers of one node: whatever it depends on that keeps failing is left alone for a while.

Row A4. The logic of one breaker is pure (``zipnet.access.breaker``); here they are kept by target,
and show as ``zipnet_breaker_open_total`` and ``zipnet_breaker_open_seconds``.

Rules:

1. Targets are names of the deployment (``server_2``, ``parent``, ``upstream``), never of clients.
2. Only failures of an attempt count: what was not attempted says nothing about the target.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zipnet.access.breaker import Breaker
from zipnet.observe.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.observe.metrics import NodeMetrics

__all__ = ["Breakers"]

_log = get_logger(__name__)


class Breakers:
    """Breakers by target, made when first asked for.

    Args:
        metrics: Where they show.
        failures: Failures in a row that open one.
        cool_s: How long it stays open the first time.
        longest_s: How long it stays open at most.
        monotonic: Seconds that only go forward.
    """

    def __init__(
        self,
        metrics: NodeMetrics,
        *,
        failures: int = 5,
        cool_s: float = 0.5,
        longest_s: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._knobs = (failures, cool_s, longest_s)
        self._monotonic = monotonic
        self._breakers: dict[str, Breaker] = {}

    def allows(self, target: str) -> bool:
        """Whether an attempt may be made; whoever makes one says how it ended."""
        return self._of(target).allows(self._monotonic())

    def retry_after_s(self, target: str) -> float:
        """Return the seconds until the next attempt may be made."""
        return self._of(target).retry_after_s(self._monotonic())

    def succeeded(self, target: str) -> None:
        """Say that an attempt went well."""
        self._of(target).succeeded()

    def failed(self, target: str) -> None:
        """Say that an attempt failed."""
        if self._of(target).failed(self._monotonic()):
            self._metrics.breaker_open.inc(target)
            _log.warning("breaker_opened", mode=target)

    def open_targets(self) -> list[str]:
        """Return what is left alone now, or has not answered well since it was."""
        now = self._monotonic()
        return [name for name, one in self._breakers.items() if one.open_for_s(now) > 0]

    def _of(self, target: str) -> Breaker:
        breaker = self._breakers.get(target)
        if breaker is None:
            failures, cool_s, longest_s = self._knobs
            breaker = Breaker(failures=failures, cool_s=cool_s, longest_s=longest_s)
            self._breakers[target] = breaker
            made = breaker
            self._metrics.watch_breaker(target, lambda: made.open_for_s(self._monotonic()))
        return breaker

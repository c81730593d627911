"""Readiness: named conditions, each with the reason why it does not hold.

A node is ready when every condition it was made with holds. Each failed condition shows in
``/readyz`` and as ``zipnet_not_ready{reason}``, so that an alert can say why.

Rules:

1. Conditions are named when the node is composed and start as failed with reason ``starting``.
2. ``zipnet_not_ready{reason}`` is 1 while some condition fails for that reason, then 0.
3. One event loop owns a :class:`Health`; it is not for use from other threads.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zipnet.observe.metrics import NodeMetrics

__all__ = ["FailedCondition", "Health"]

_STARTING = "starting"


@dataclass(frozen=True, slots=True)
class FailedCondition:
    """A condition that does not hold.

    Attributes:
        condition: Its name, snake_case, such as ``consensus``.
        reason: Why, snake_case, such as ``no_leader``; the metric's label.
    """

    condition: str
    reason: str


class Health:
    """What a node waits for before it calls itself ready.

    Args:
        conditions: Names of everything that must hold. More may be added by :meth:`set`.
        metrics: Where ``zipnet_ready_state`` and ``zipnet_not_ready`` are kept, if anywhere.
    """

    def __init__(self, conditions: Iterable[str], metrics: NodeMetrics | None = None) -> None:
        self._reasons: dict[str, str | None] = dict.fromkeys(conditions, _STARTING)
        self._metrics = metrics
        self._ready = asyncio.Event()
        self._exported: set[str] = set()
        self._publish()

    def set(self, name: str, *, ok: bool, reason: str = "failed") -> None:
        """Say whether a condition holds.

        Args:
            name: The condition.
            ok: Whether it holds now.
            reason: Why not, snake_case; ignored when it holds.
        """
        self._reasons[name] = None if ok else reason
        self._publish()

    def ready(self) -> bool:
        """Whether every condition holds."""
        return self._ready.is_set()

    def failed(self) -> list[FailedCondition]:
        """Return the conditions that do not hold, in the order they were named."""
        return [
            FailedCondition(name, reason)
            for name, reason in self._reasons.items()
            if reason is not None
        ]

    async def wait_ready(self) -> None:
        """Return once every condition holds; bound the wait with ``asyncio.timeout``."""
        await self._ready.wait()

    def _publish(self) -> None:
        failing = {condition.reason for condition in self.failed()}
        if failing:
            self._ready.clear()
        else:
            self._ready.set()
        if self._metrics is None:
            return
        self._metrics.ready_state.set(0 if failing else 1)
        self._exported |= failing
        for reason in self._exported:
            self._metrics.not_ready.set(reason, 1 if reason in failing else 0)

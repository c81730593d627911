"""Readiness: named dependencies, each with how it is and why (rows M7, A16).

A dependency holds, holds but not as it should (*degraded*), or does not hold (*failed*). A node is
ready when none failed. What is not well shows in ``/readyz``, as ``zipnet_not_ready{reason}`` and
``zipnet_degraded{reason}``, so that an alert can say why.

Rules:

1. Dependencies are named when the node is composed and start as failed with reason ``starting``.
2. It fails closed: a dependency that is to be reported on every so often (:meth:`Health.expect`)
   and is not, failed for the reason ``not_checked``. Who looks after it may be what broke.
3. ``zipnet_not_ready{reason}`` is 1 while some dependency failed for that reason, then 0;
   ``zipnet_degraded{reason}`` likewise.
4. One event loop owns a :class:`Health`; it is not for use from other threads.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from zipnet.observe.metrics import GaugeByReason, NodeMetrics

__all__ = [
    "HOLDS",
    "STARTING",
    "FailedCondition",
    "Finding",
    "Health",
    "Level",
    "degraded",
    "failed",
]


class Level(StrEnum):
    """How a dependency is."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at a dependency found.

    Attributes:
        level: How it is.
        reason: Why it is not well, snake_case; empty when it is.
    """

    level: Level
    reason: str = ""


HOLDS: Final = Finding(Level.OK)
"""All is well."""

STARTING: Final = "starting"
"""Reason of what was not looked at yet."""

_STARTING: Final = Finding(Level.FAILED, STARTING)
_NOT_CHECKED: Final = Finding(Level.FAILED, "not_checked")


def degraded(reason: str) -> Finding:
    """Return the finding that a dependency holds, but not as it should."""
    return Finding(Level.DEGRADED, reason)


def failed(reason: str) -> Finding:
    """Return the finding that a dependency does not hold."""
    return Finding(Level.FAILED, reason)


@dataclass(frozen=True, slots=True)
class FailedCondition:
    """A dependency that is not well.

    Attributes:
        condition: Its name, snake_case, such as ``consensus``.
        reason: Why, snake_case, such as ``no_leader``; the metric's label.
    """

    condition: str
    reason: str


class Health:
    """What a node depends on, and how that is.

    Args:
        conditions: Names of everything that must hold. More may be added by :meth:`report`.
        metrics: Where ``zipnet_ready_state``, ``zipnet_not_ready`` and ``zipnet_degraded`` are
            kept, if anywhere.
        monotonic: Seconds that only go forward, for rule 2.
    """

    def __init__(
        self,
        conditions: Iterable[str],
        metrics: NodeMetrics | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._found: dict[str, Finding] = dict.fromkeys(conditions, _STARTING)
        self._metrics = metrics
        self._monotonic = monotonic
        self._ready = asyncio.Event()
        self._due: dict[str, tuple[float, float]] = {}
        self._exported: dict[Level, set[str]] = {Level.FAILED: set(), Level.DEGRADED: set()}
        self.review()

    def set(self, name: str, *, ok: bool, reason: str = "failed") -> None:
        """Say whether a dependency holds.

        Args:
            name: The dependency.
            ok: Whether it holds now.
            reason: Why not, snake_case; ignored when it holds.
        """
        self.report(name, HOLDS if ok else failed(reason))

    def report(self, name: str, finding: Finding) -> None:
        """Say how a dependency is now."""
        self._found[name] = finding
        if name in self._due:
            every_s, _ = self._due[name]
            self._due[name] = every_s, self._monotonic() + every_s
        self.review()

    def expect(self, name: str, within_s: float) -> None:
        """Take a dependency as failed once nobody has reported on it for ``within_s`` (rule 2)."""
        self._found.setdefault(name, _STARTING)
        self._due[name] = within_s, self._monotonic() + within_s
        self.review()

    def ready(self) -> bool:
        """Whether no dependency failed."""
        return not self.failed()

    def failed(self) -> list[FailedCondition]:
        """Return the dependencies that do not hold, in the order they were named."""
        return self._at(Level.FAILED)

    def degraded(self) -> list[FailedCondition]:
        """Return the dependencies that hold, but not as they should."""
        return self._at(Level.DEGRADED)

    def states(self) -> dict[str, str]:
        """Return every dependency with how it is: ``ok``, ``degraded`` or ``failed``."""
        return {name: finding.level.value for name, finding in self._now().items()}

    async def wait_ready(self) -> None:
        """Return once no dependency failed; bound the wait with ``asyncio.timeout``."""
        await self._ready.wait()

    def review(self) -> None:
        """Bring the metrics, and whoever waits, up to date; a report does it too."""
        failing = {item.reason for item in self.failed()}
        if failing:
            self._ready.clear()
        else:
            self._ready.set()
        if self._metrics is None:
            return
        self._metrics.ready_state.set(0 if failing else 1)
        self._export(Level.FAILED, failing, self._metrics.not_ready)
        limping = {item.reason for item in self.degraded()}
        self._export(Level.DEGRADED, limping, self._metrics.degraded)

    def _export(self, level: Level, reasons: Collection[str], gauge: GaugeByReason) -> None:
        self._exported[level].update(reasons)
        for reason in self._exported[level]:
            gauge.set(reason, 1 if reason in reasons else 0)

    def _at(self, level: Level) -> list[FailedCondition]:
        return [
            FailedCondition(name, finding.reason)
            for name, finding in self._now().items()
            if finding.level is level
        ]

    def _now(self) -> dict[str, Finding]:
        now = self._monotonic()
        late = {name for name, (_, due) in self._due.items() if now > due}
        return {
            name: self._aged(finding) if name in late else finding
            for name, finding in self._found.items()
        }

    @staticmethod
    def _aged(finding: Finding) -> Finding:
        return finding if finding.level is Level.FAILED else _NOT_CHECKED

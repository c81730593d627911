"""Look after what a node depends on, over and over: one probe for each dependency (row A16).

Rules:

1. A probe looks; it changes nothing but its own test file. What it finds goes to
   :class:`~zipnet.observe.health.Health`, and to the log when it changes.
2. A probe that fails by itself, or does not come back, leaves its dependency failed: readiness
   fails closed.
3. Probes run beside each other: a disk that hangs keeps nobody from looking at the clock.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from zipnet.observe.health import HOLDS, Finding, Level, degraded, failed
from zipnet.observe.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from zipnet.node.mesh import CommitteeMesh
    from zipnet.observe.health import Health

__all__ = ["BreakerProbe", "PeerProbe", "Probe", "watch_dependencies"]

_GRACE: Final = 3.0
_MARGIN_S: Final = 10.0

_log = get_logger(__name__)


class Probe(Protocol):
    """Looks at one dependency.

    Attributes:
        name: The dependency, snake_case, as ``/readyz`` shows it.
        every_s: Seconds between two looks.
    """

    name: str
    every_s: float

    async def look(self) -> Finding:
        """Return how the dependency is."""
        ...


async def watch_dependencies(probes: Sequence[Probe], health: Health) -> None:
    """Run probes until cancelled, each at its own pace."""
    for probe in probes:
        health.expect(probe.name, probe.every_s * _GRACE + _MARGIN_S)
    async with asyncio.TaskGroup() as group:
        for probe in probes:
            group.create_task(_run(probe, health))
        while True:
            # What is overdue shows in the metrics too, not only when somebody asks.
            health.review()
            await asyncio.sleep(1.0)


async def _run(probe: Probe, health: Health) -> None:
    before = HOLDS
    while True:
        try:
            finding = await probe.look()
        except Exception:  # noqa: BLE001 - rule 2: whatever it is, it is logged and fails closed
            _log.exception("probe_failed", condition=probe.name)
            finding = failed("probe_failed")
        health.report(probe.name, finding)
        if finding != before:
            tell = _log.info if finding.level is Level.OK else _log.warning
            tell("dependency_changed", condition=probe.name, state=finding.level.value,
                 reason=finding.reason or "well")  # fmt: skip
            before = finding
        await asyncio.sleep(probe.every_s)


class PeerProbe:
    """Whether the other servers can be reached.

    Args:
        mesh: The links to them.
    """

    name = "peers"
    every_s = 0.5

    def __init__(self, mesh: CommitteeMesh) -> None:
        self._mesh = mesh

    async def look(self) -> Finding:
        """Degraded while one cannot be reached, failed while no majority can."""
        others = self._mesh.members
        up = self._mesh.connected()
        if (len(up) + 1) * 2 <= len(others) + 1:
            return failed("no_majority")
        missing = [int(server) for server in others if server not in up]
        return degraded(f"server_{missing[0]}_unreachable") if missing else HOLDS


class BreakerProbe:
    """Whether something this node asks of others is left alone because it keeps failing.

    Args:
        open_targets: Names of what is left alone now.
    """

    name = "breakers"
    every_s = 0.5

    def __init__(self, open_targets: Callable[[], Collection[str]]) -> None:
        self._open_targets = open_targets

    async def look(self) -> Finding:
        """Degraded while a breaker is open: its target's own dependency says what that costs."""
        return degraded("breaker_open") if self._open_targets() else HOLDS

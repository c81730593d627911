"""How far this server's clock is from the other servers' (row Z22).

Rules:

1. A server asks the others what time they have; half of the journey there and back is taken off.
   What a slow journey may hide is added to the tolerance, so that load is not taken for skew.
2. Rounds, evidence and descriptors are judged by the clock. A server that most of those it can ask
   disagree with by a second is degraded, by five it is not ready; one that disagrees with a
   minority is not at fault.
3. A clock is never set here: that is the operator's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from zipnet.errors import ZipnetError
from zipnet.observe.health import HOLDS, Finding, Level, degraded, failed
from zipnet.observe.log import get_logger
from zipnet.wire.messages import Clock, GetClock, Kind, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from zipnet.node.mesh import CommitteeMesh
    from zipnet.observe.health import Health
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.protocol.ids import ServerIndex

__all__ = ["ClockWatch", "clock_is_off", "estimate_skew", "judge_clock"]

TOLERATED_S: Final = 5.0
SUSPECT_S: Final = 1.0
_ASK_S = 5.0
_OVERDUE_S = 30.0
_TIMEOUT_S = 2.0
_CONDITION = "clock"

_log = get_logger(__name__)


def estimate_skew(asked: float, theirs: float, answered: float) -> tuple[float, float]:
    """Return how far ahead the other clock is, and by how much that may be wrong, in seconds.

    Args:
        asked: Wall time here when the question left.
        theirs: Wall time there.
        answered: Wall time here when the answer came.
    """
    journey = max(0.0, answered - asked)
    return theirs - (asked + answered) / 2, journey / 2


def clock_is_off(estimates: Sequence[tuple[float, float]], tolerated_s: float) -> bool:
    """Whether most of those asked have another time, whatever the journeys may hide (rule 2)."""
    differ = sum(1 for skew, doubt in estimates if abs(skew) - doubt > tolerated_s)
    return differ * 2 > len(estimates)


def judge_clock(estimates: Sequence[tuple[float, float]]) -> Finding:
    """Return what other servers' times say about this one's."""
    if clock_is_off(estimates, TOLERATED_S):
        return failed("clock_skew")
    return degraded("clock_drifts") if clock_is_off(estimates, SUSPECT_S) else HOLDS


class ClockWatch:
    """Compares clocks for one server.

    Args:
        mesh: The way to the others.
        wall: Unix seconds.
        health: Where the condition ``clock`` is kept.
        metrics: Where the skew is shown.
    """

    def __init__(
        self,
        mesh: CommitteeMesh,
        wall: Callable[[], float],
        health: Health,
        metrics: NodeMetrics,
    ) -> None:
        self._mesh = mesh
        self._wall = wall
        self._health = health
        self._metrics = metrics
        self._found = HOLDS

    async def run(self, servers: Sequence[ServerIndex]) -> None:
        """Ask the other servers again and again until cancelled."""
        self._health.expect(_CONDITION, _OVERDUE_S)
        while True:
            self._judge(await self._ask_all(servers))
            await asyncio.sleep(_ASK_S)

    async def _ask_all(
        self, servers: Sequence[ServerIndex]
    ) -> Mapping[ServerIndex, tuple[float, float]]:
        async with asyncio.TaskGroup() as group:
            asked = {server: group.create_task(self._ask(server)) for server in servers}
        found = {server: task.result() for server, task in asked.items()}
        return {server: one for server, one in found.items() if one is not None}

    async def _ask(self, server: ServerIndex) -> tuple[float, float] | None:
        asked = self._wall()
        try:
            answer = await self._mesh.request(
                server, Kind.GET_CLOCK, GetClock(), timeout_s=_TIMEOUT_S
            )
            theirs = decode(answer, Clock).wall_ms / 1000
        except ZipnetError:  # not there, or of an older version: it has no say
            return None
        return estimate_skew(asked, theirs, self._wall())

    def _judge(self, found: Mapping[ServerIndex, tuple[float, float]]) -> None:
        for server, (skew, _) in found.items():
            self._metrics.clock_skew(int(server), skew)
        finding = judge_clock(list(found.values()))
        self._health.report(_CONDITION, finding)
        if finding != self._found:
            self._found = finding
            reason = finding.reason or "agrees"
            _log.warning("clock_judged", ready=finding.level is not Level.FAILED, reason=reason)

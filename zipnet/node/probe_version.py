"""Whether the committee's servers run versions that go together (rows A2, A13).

Rules:

1. Servers tell each other their version, nobody else. Who does not answer has no say; an older
   release does not know the question and is asked again only now and then.
2. The same version is as it should be. A difference of one release, as an upgrade makes it, is
   degraded: it should not last. More than that is not supported.
3. A server most of those it asked have no supported version for is not ready; a minority is at
   fault itself.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Final

from zipnet.errors import AdmissionError, ZipnetError
from zipnet.observe.health import HOLDS, Finding, Level, degraded, failed
from zipnet.wire.messages import GetVersion, Kind, Version, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zipnet.node.mesh import CommitteeMesh
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.protocol.ids import ServerIndex

__all__ = ["VersionProbe", "compare_versions", "judge_versions"]

_TIMEOUT_S: Final = 2.0
_ASK_OLD_S: Final = 60.0
_NUMBERS = re.compile(r"(\d+)\.(\d+)(?:\.\d+)?")


def compare_versions(own: str, theirs: str) -> Level:
    """Return how two versions go together (rule 2); what is no version goes with itself only."""
    if own == theirs:
        return Level.OK
    a, b = _NUMBERS.match(own), _NUMBERS.match(theirs)
    if a is None or b is None or a[1] != b[1]:
        return Level.FAILED
    return Level.DEGRADED if abs(int(a[2]) - int(b[2])) <= 1 else Level.FAILED


def judge_versions(levels: Sequence[Level]) -> Finding:
    """Return what the versions of those that answered mean for this server (rule 3)."""
    wrong = sum(1 for level in levels if level is Level.FAILED)
    if wrong * 2 > len(levels):
        return failed("version_unsupported")
    return HOLDS if all(level is Level.OK for level in levels) else degraded("version_differs")


class VersionProbe:
    """Asks the other servers for their version.

    Args:
        mesh: The way to them.
        own: Returns this server's version.
        metrics: Where each answer is shown.
    """

    name = "versions"
    every_s = 2.0

    def __init__(self, mesh: CommitteeMesh, own: Callable[[], str], metrics: NodeMetrics) -> None:
        self._mesh = mesh
        self._own = own
        self._metrics = metrics
        self._silent_until: dict[ServerIndex, float] = {}

    async def look(self) -> Finding:
        """Ask everybody, and judge the answers."""
        async with asyncio.TaskGroup() as group:
            asked = {one: group.create_task(self._ask(one)) for one in self._mesh.members}
        answers = {server: task.result() for server, task in asked.items()}
        found: list[Level] = []
        for server, theirs in answers.items():
            if theirs is not None:
                level = compare_versions(self._own(), theirs)
                self._metrics.version_supported(int(server), level is not Level.FAILED)
                found.append(level)
        return judge_versions(found)

    async def _ask(self, server: ServerIndex) -> str | None:
        now = time.monotonic()
        if now < self._silent_until.get(server, now):
            return None
        try:
            answer = await self._mesh.request(
                server, Kind.GET_VERSION, GetVersion(), timeout_s=_TIMEOUT_S
            )
            return decode(answer, Version).version
        except AdmissionError:  # it does not know the question
            self._silent_until[server] = now + _ASK_OLD_S
            return None
        except ZipnetError:
            return None

"""Run a real server that notes its crash points, and dies at the one it is told to.

``python -m tests.crashpoints.instrument FOLDER server …`` adds each point it comes by to the file
``points`` in FOLDER. Once the file ``arm`` is there, with ``WHEN POINT`` in it, the process takes
the file away and ends in SIGKILL at that point.

A point is an operation of the real adapters, named by what it does and for whom, so the list comes
from the code that runs and never from a list of ours: ``fsync releases.journal by
node.server_acts._persist``. Operations are system calls on files of the state folder (``pwrite``,
``ftruncate``, ``fsync``, ``replace``, ``unlink``) and frames handed to a link (``send PUT_BLOB
request``), those of consensus by the commands they carry.

WHEN is ``before``, ``after``, or ``torn``: half of a ``pwrite`` is done.

Only operations after the node said that it is ready are points: what a start does, the start after
each death does again.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

from zipnet.consensus.messages import AppendEntries, Submit, decode_message
from zipnet.errors import RemoteProtocolError
from zipnet.transport.link import FramedConnection
from zipnet.wire.frames import Frame, SessionKind
from zipnet.wire.messages import Kind

_T = TypeVar("_T")
_Path = str | os.PathLike[str]
_ZIPNET = str(Path(__file__).parents[2] / "zipnet") + os.sep
_COMMANDS = {
    1: "AnnounceKem", 2: "RegisterClient", 3: "RetireClient", 4: "OpenRound",
    5: "ChooseAggregate", 6: "PostPartial", 7: "SignRecord", 8: "SealRecord", 9: "AbortRound",
}  # fmt: skip
#: Frames that make or keep a link, or let somebody join: no part of the release and record paths.
_ASIDE = {
    *(kind.name for kind in SessionKind),
    *("SUBSCRIBE", "REGISTER", "GET_KEM_KEYS", "GET_KEM_EVIDENCE", "GET_REGISTRY", "GET_CROWD"),
    *("SEAT", "GET_CLOCK", "GET_VERSION", "GET_CHECKPOINT", "PRESENT_CAPABILITY", "REVOKED"),
}
#: Who touches files for something else than a round: registrations, the audit trail, health.
_OTHERS = ("node.server_clients.", "node.audit.", "node.probe_disk.", "node.restarts.")


class Points:
    """Decides at each operation: note it, die, or go on."""

    def __init__(self, folder: Path) -> None:
        self._out, self._arm = folder / "points", folder / "arm"
        self._order: tuple[str, str] | None = None
        self._seen: set[str] = set()
        self.ready = False

    def doing(self, point: str, act: Callable[[], _T], torn: Callable[[], object] | None) -> _T:
        """Do ``act``, unless this is where the process dies."""
        self.enter(point, torn)
        result = act()
        self.leave(point)
        return result

    def enter(self, point: str, torn: Callable[[], object] | None = None) -> None:
        """Come to a point; does not return where the process is to die before it, or in it."""
        if not self.ready or any(other in point for other in _OTHERS):
            return
        self._look()
        if point not in self._seen:
            self._note(point, can_tear=torn is not None)
        if self._order == ("before", point):
            _die()
        if self._order == ("torn", point) and torn is not None:
            torn()
            _die()

    def leave(self, point: str) -> None:
        """Go past a point; does not return where the process is to die after it."""
        if self.ready and self._order == ("after", point):
            _die()

    def _look(self) -> None:
        if self._order is None and self._arm.exists():
            when, _, point = self._arm.read_text().partition(" ")
            self._order = (when, point)

    def _note(self, point: str, *, can_tear: bool) -> None:
        self._seen.add(point)
        with self._out.open("a") as file:
            for when in ("before", "after", *(["torn"] if can_tear else [])):
                file.write(f"{when} {point}\n")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def _name(path: str) -> str:
    """The file without what differs from run to run."""
    inside = path.partition(".state")[2].strip("/")
    name = inside or "state folder"
    return re.sub(r"\d{3,}", "*", re.sub(r"[0-9a-f]{64}", "*", name))


def _caller() -> str:
    """The nearest function of ours outside storage: for whom the file is touched."""
    frame: FrameType | None = sys._getframe(2)
    inner = "?"
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_ZIPNET):
            module = file.removeprefix(_ZIPNET).removesuffix(".py").replace(os.sep, ".")
            inner = f"{module}.{frame.f_code.co_name}"
            if not module.startswith("storage."):
                return inner
        frame = frame.f_back
    return inner


def instrument(folder: Path) -> None:
    """Put every durable operation and every send of this process behind the points."""
    points = Points(folder)
    _watch_files(points)
    _watch_sends(points)
    _watch_readiness(points)


def _watch_files(points: Points) -> None:
    pwrite, ftruncate, fsync = os.pwrite, os.ftruncate, os.fsync
    replace, unlink = os.replace, os.unlink

    def path_of(descriptor: int) -> str:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())

    def watched(path: object) -> bool:
        return ".state" in str(path)

    def new_pwrite(descriptor: int, data: bytes | memoryview, offset: int) -> int:
        path = path_of(descriptor)
        if not watched(path):
            return pwrite(descriptor, data, offset)
        return points.doing(
            f"pwrite {_name(path)} by {_caller()}",
            lambda: pwrite(descriptor, data, offset),
            lambda: pwrite(descriptor, memoryview(data)[: len(data) // 2], offset),
        )

    def new_ftruncate(descriptor: int, length: int) -> None:
        point = f"ftruncate {_name(path_of(descriptor))} by {_caller()}"
        points.doing(point, lambda: ftruncate(descriptor, length), None)

    def new_fsync(descriptor: int) -> None:
        path = path_of(descriptor)
        if not watched(path):
            return fsync(descriptor)
        points.doing(f"fsync {_name(path)} by {_caller()}", lambda: fsync(descriptor), None)
        return None

    def new_replace(source: _Path, target: _Path) -> None:
        point = f"replace {_name(str(target))} by {_caller()}"
        points.doing(point, lambda: replace(source, target), None)

    def new_unlink(path: _Path, *, dir_fd: int | None = None) -> None:
        point = f"unlink {_name(str(path))} by {_caller()}"
        points.doing(point, lambda: unlink(path, dir_fd=dir_fd), None)

    os.pwrite, os.ftruncate, os.fsync = new_pwrite, new_ftruncate, new_fsync  # type: ignore[assignment]
    os.replace, os.unlink = new_replace, new_unlink  # type: ignore[assignment]


def _watch_sends(points: Points) -> None:
    send = FramedConnection.send

    async def new_send(self: FramedConnection, frame: Frame) -> None:
        name = _frame_name(frame)
        if name is None:
            await send(self, frame)
            return
        points.enter(name)
        await send(self, frame)
        points.leave(name)

    FramedConnection.send = new_send  # type: ignore[method-assign]


def _frame_name(frame: Frame) -> str | None:
    """What a frame is, None for one that is no point."""
    kinds: dict[int, str] = {int(k): k.name for k in (*Kind, *SessionKind)}
    name = kinds.get(frame.kind, str(frame.kind))
    if name in _ASIDE:
        return None
    way = "answer" if frame.response else "request" if frame.request_id else "push"
    inner = _consensus_name(frame.payload) if frame.kind == Kind.CONSENSUS else ""
    return None if inner is None else f"send {name}{inner} {way}"


def _consensus_name(payload: bytes) -> str | None:
    try:
        _, message = decode_message(payload)
    except RemoteProtocolError:
        return ""
    kind = type(message).__name__
    if isinstance(message, AppendEntries):
        carried = sorted({_command_name(e.command) for e in message.entries if e.command})
        return f" {kind}[{','.join(carried)}]" if carried else None
    if isinstance(message, Submit):
        return f" {kind}[{_command_name(message.command)}]"
    return f" {kind}"


def _command_name(command: bytes) -> str:
    return _COMMANDS.get(command[1], f"kind {command[1]}")


def _watch_readiness(points: Points) -> None:
    from zipnet.node.notify import ServiceNotifier

    ready = ServiceNotifier.ready

    def new_ready(self: ServiceNotifier, status: str = "") -> None:
        points.ready = True
        ready(self, status)

    ServiceNotifier.ready = new_ready  # type: ignore[method-assign]


if __name__ == "__main__":
    instrument(Path(sys.argv.pop(1)))
    from zipnet.cli import main

    sys.exit(main())

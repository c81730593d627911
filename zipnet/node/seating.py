"""Who sits in a server's seat of the consensus engine, where a server has forgotten who it was.

A member of the engine promises two things: to vote once in a term, and never to lose what it
confirmed. One that keeps nothing on disk can promise neither across a restart. So it does not
pretend to be the member it was: after a restart it is *another* member, with a fresh id, that asks
for its predecessor's seat, and the engine's own way of replacing a member makes that safe
(docs/decisions/0006).

Rules:

1. A process without memory asks every other server whether the seat is *blank*: there is no log,
   and nobody ever heard another life of this server speak. Only if all others say so does it take
   the seat under the id the committee is founded with.
2. As soon as one says otherwise it draws an id nobody ever had, and asks for its seat under that
   one. Until the committee gave it, and it has applied what is committed up to there, it neither
   votes nor proposes nor releases anything.
3. What a server answers reflects all it heard before: links of an earlier life end before a later
   one's begin (zipnet.node.listen, rule 2).
4. A server gives away only the seat of the server that asks, as the handshake proved it, and only
   as long as it goes on asking: a wish of a life that is over must not unseat the next one.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, Protocol

from zipnet.errors import AdmissionError, ConsensusError, RemoteProtocolError, TransportError
from zipnet.observe.log import get_logger
from zipnet.protocol.ids import ServerIndex
from zipnet.wire.messages import Kind, Seat, TakeSeat, decode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from zipnet.node.mesh import CommitteeMesh
    from zipnet.ports import CommittedCommand, CommittedSnapshot

__all__ = ["ForgetfulConsensus", "Seating"]

_PAUSE_S: Final = 0.25
_SEATED_PAUSE_S: Final = 1.0
_WISH_S: Final = 4.0
_ASK_TIMEOUT_S: Final = 2.0


class Seats(Protocol):
    """What an engine tells of its committee."""

    def is_blank(self) -> bool:
        """Whether its log holds nothing but its founding."""
        ...

    def is_seated(self) -> bool:
        """Whether this member is in the committee, as far as is committed."""
        ...

    def members(self) -> tuple[int, ...]:
        """Id of each seat's member, as the newest entry of the log says."""
        ...

    def want_members(self, ids: Sequence[int]) -> None:
        """Ask that these sit."""
        ...

    def want_no_change(self) -> None:
        """Take that back."""
        ...


class Engine(Seats, Protocol):
    """A consensus engine with seats."""

    async def start(self) -> None:
        """Begin."""
        ...

    async def stop(self) -> None:
        """End."""
        ...

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        """Put a command into the log."""
        ...

    def batches(self) -> AsyncIterator[Sequence[CommittedCommand | CommittedSnapshot]]:
        """Yield what is committed."""
        ...

    def compact(self, index: int, state: bytes) -> None:
        """Let a state stand for a beginning of the log."""
        ...

    def receive(self, server: int, message: bytes) -> None:
        """Take a message."""
        ...

    def link_changed(self, server: int, *, up: bool) -> None:
        """Note a link."""
        ...

    def leader(self) -> int | None:
        """Who leads."""
        ...

    def caught_up(self) -> bool:
        """Whether all that is known to be committed was handed out."""
        ...


class Seating:
    """Answers the other servers about their seats (rules 1, 3, 4).

    Args:
        engine: This server's engine.
    """

    def __init__(self, engine: Seats) -> None:
        self._engine = engine
        self._lives: dict[int, set[bytes]] = {}
        self._wanted: dict[int, tuple[int, asyncio.TimerHandle]] = {}

    def heard(self, server: int, boot_id: bytes) -> None:
        """Note that a life of a server spoke to this one's engine."""
        self._lives.setdefault(server, set()).add(boot_id)

    def answer(self, server: int, boot_id: bytes, member: int | None) -> Seat:
        """Tell a life of a server about its seat, and ask for it on its behalf.

        Args:
            server: The server that asks.
            boot_id: Its life.
            member: Id it would sit under, None to ask only.
        """
        if member is not None:
            self._forget(server)
            later = asyncio.get_running_loop().call_later(_WISH_S, self._expire, server)
            self._wanted[server] = member, later
            self._wish()
        others = self._lives.get(server, set()) - {boot_id}
        return Seat(blank=self._engine.is_blank() and not others)

    def close(self) -> None:
        """Forget every wish."""
        for server in list(self._wanted):
            self._forget(server)

    def _forget(self, server: int) -> None:
        if server in self._wanted:
            self._wanted.pop(server)[1].cancel()

    def _expire(self, server: int) -> None:
        self._forget(server)
        self._wish()

    def _wish(self) -> None:
        if not self._wanted:
            self._engine.want_no_change()
            return
        ids = list(self._engine.members())
        for seat, (member, _) in self._wanted.items():
            ids[seat] = member
        self._engine.want_members(ids)


class ForgetfulConsensus:
    """An engine that begins without memory. Implements :class:`zipnet.ports.Consensus`.

    Args:
        server: This server.
        size: Seats of the committee.
        mesh: How the others are asked.
        build: Makes the engine: with None under the founding id, else under this one, joining.
        member: Id of a server that keeps its memory and took the place of another; None chooses.
    """

    def __init__(
        self,
        *,
        server: ServerIndex,
        size: int,
        mesh: CommitteeMesh,
        build: Callable[[int | None], Engine],
        member: int | None = None,
    ) -> None:
        self._member = member
        self._server = server
        self._size = size
        self._mesh = mesh
        self._build = build
        self._engine: Engine | None = None
        self._begun: asyncio.Task[Engine] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._log = get_logger(__name__)

    # -- the port ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to find out whose seat this is; the engine runs from then on."""
        self._begun = asyncio.create_task(self._begin(), name="seating")

    async def stop(self) -> None:
        """Stop asking, and the engine. Idempotent."""
        running = [task for task in (self._begun, self._asking) if task is not None]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        if self._engine is not None:
            await self._engine.stop()

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        """Put a command into the log.

        Raises:
            ConsensusError: It did not get in, or this server has no seat yet.
        """
        if self._engine is None or not self._engine.is_seated():
            raise ConsensusError("this server has no seat in the committee yet")
        await self._engine.propose(command, timeout_s=timeout_s)

    async def batches(self) -> AsyncIterator[Sequence[CommittedCommand | CommittedSnapshot]]:
        """Yield what is committed, once there is an engine."""
        if self._begun is None:
            return
        engine = await asyncio.shield(self._begun)
        async for batch in engine.batches():
            yield batch

    def compact(self, index: int, state: bytes) -> None:
        """Let a state stand for a beginning of the log."""
        if self._engine is not None:
            self._engine.compact(index, state)

    def receive(self, server: int, message: bytes) -> None:
        """Take a message; there is nothing to tell before there is an engine."""
        if self._engine is not None:
            self._engine.receive(server, message)

    def link_changed(self, server: int, *, up: bool) -> None:
        """Note a link; an engine that begins later asks the mesh."""
        if self._engine is not None:
            self._engine.link_changed(server, up=up)

    def leader(self) -> int | None:
        """Who leads, as far as is known."""
        return None if self._engine is None else self._engine.leader()

    def caught_up(self) -> bool:
        """Whether this server sits in the committee and has applied what is committed."""
        engine = self._engine
        return engine is not None and engine.is_seated() and engine.caught_up()

    # -- seats ---------------------------------------------------------------------------------

    def is_blank(self) -> bool:
        """Whether nothing is known here of any log."""
        return self._engine is None or self._engine.is_blank()

    def is_seated(self) -> bool:
        """Whether this server sits in the committee."""
        return self._engine is not None and self._engine.is_seated()

    def members(self) -> tuple[int, ...]:
        """Id of each seat's member."""
        return tuple(range(self._size)) if self._engine is None else self._engine.members()

    def want_members(self, ids: Sequence[int]) -> None:
        """Ask that these sit."""
        if self._engine is not None:
            self._engine.want_members(ids)

    def want_no_change(self) -> None:
        """Take back what was asked."""
        if self._engine is not None:
            self._engine.want_no_change()

    async def _begin(self) -> Engine:
        member = await self._choose() if self._member is None else self._member
        engine = self._build(member)
        await engine.start()
        self._engine = engine
        self._log.info("memory_begun", state="founding" if member is None else "joining")
        if member is not None:
            self._asking = asyncio.create_task(self._ask_for_seat(engine, member), name="seat")
        return engine

    async def _choose(self) -> int | None:
        """Rules 1 and 2: None for the founding id, else an id nobody ever had."""
        while True:
            answers = await self._ask_all(None)
            if not all(answers):
                # Above every founding id, and below what a message can carry.
                return self._size + 1 + int.from_bytes(os.urandom(8), "big") % (1 << 62)
            if len(answers) == self._size - 1:
                return None
            await asyncio.sleep(_PAUSE_S)

    async def _ask_for_seat(self, engine: Engine, member: int) -> None:
        """Go on asking (rule 4): whoever leads next must know of this life, not of the last."""
        seated = False
        while True:
            if engine.is_seated() and not seated:
                self._log.info("seat_taken", server=int(self._server))
            seated = engine.is_seated()
            await self._ask_all(member)
            await asyncio.sleep(_SEATED_PAUSE_S if seated else _PAUSE_S)

    async def _ask_all(self, member: int | None) -> list[bool]:
        """Ask every connected server; what each said of the seat, in no order."""
        servers = sorted(self._mesh.connected())
        answers = await asyncio.gather(*(self._ask(server, member) for server in servers))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, server: int, member: int | None) -> bool | None:
        request = TakeSeat(member=member)
        try:
            payload = await self._mesh.request(
                ServerIndex(server), Kind.SEAT, request, timeout_s=_ASK_TIMEOUT_S
            )
            return decode(payload, Seat).blank
        except (TransportError, AdmissionError, RemoteProtocolError):
            return None

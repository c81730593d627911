"""A committee server of the model: the shipped machine, guard, custody and consensus engine.

What :mod:`zipnet.node.server_acts` does with threads, files and links is done here with virtual
time, a simulated disk and the modelled network. Effects run in list order, and those that must be
durable take their fsync before the next one is looked at. A crash loses everything but the disk,
the chains and the releases.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from sim.model.server_work import ServerWork
from zipnet.consensus import EmbeddedConsensus, Timing
from zipnet.machines.guard import ReleaseGuard
from zipnet.machines.server import ServerMachine
from zipnet.machines.server_effects import (
    Committed,
    Instant,
    LinksChanged,
    Restored,
    StandingChanged,
    TimerFired,
)
from zipnet.ports import CommittedSnapshot
from zipnet.storage import CompactingFileJournal

__all__ = ["ModelServer"]

_TICK_S = 0.05
_TIMING = Timing(heartbeat_s=0.15, election_min_s=0.8, election_max_s=2.0)


class _Mesh:
    """The consensus engine's links: those of the modelled network."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server

    def send(self, server: int, message: bytes) -> None:
        own, other = self._server, self._server.world.servers[server]

        def arrive() -> None:
            if other.consensus is not None:
                other.consensus.receive(own.index, message)

        own.world.fabric.send(own.port, other.port, "consensus", len(message), arrive)

    def connected(self) -> frozenset[int]:
        return frozenset(int(index) for index in self._server.connected())


class ModelServer(ServerWork):
    """One server: its lives."""

    async def start(self) -> None:
        """Start from what is on the disk."""
        world, index = self.world, self.index
        self._life += 1
        self.port.online, self.port.life = True, self.port.life + 1
        self.forget()
        self._linked: frozenset[int] = frozenset()
        self._standing = StandingChanged(leads=False, caught_up=False)
        self._log_read = True
        params, cadence = world.group.params, world.scenario.cadence
        guard = ReleaseGuard(
            server=index, min_participants=params.min_participants, history=list(self.releases)
        )
        self.machine = ServerMachine(
            server=index,
            descriptor=world.group.descriptor,
            guard=world.hooks.guard(guard),
            cadence=cadence,
            min_participants=params.min_participants,
            next_sequence=len(self.records),
            max_clients=1_000_000,
        )
        self._events.put_nowait(Restored(0, world.founding))
        self.consensus = EmbeddedConsensus(
            server=index,
            size=len(world.group.servers),
            journal=CompactingFileJournal("raft", identity=bytes(32), files=self.disk),
            mesh=_Mesh(self),
            timing=_TIMING,
            rng=random.Random(f"{world.seed}/raft/{index}/{self._life}"),
            run_blocking=self._blocking(self.disk.life),
        )
        await self.consensus.start()
        for work in (self._feed(), self._tick(), self._follow()):
            self.begin(work)
        world.note("server_started", self.name)

    def crash(self) -> None:
        """End this life without any goodbye."""
        self.port.online = False
        engine = None if self.consensus is None else self.consensus._task  # noqa: SLF001 - a crash says no goodbye
        for task in [*self._tasks, *([engine] if engine else [])]:
            task.cancel()
        self._tasks.clear()
        self.machine = self.consensus = None
        self.disk.kill()
        self.world.note("server_crashed", self.name)

    def _blocking(self, life: int) -> Callable[[Callable[[], None]], Awaitable[None]]:
        async def run(call: Callable[[], None]) -> None:
            await asyncio.sleep(self.world.costs.fsync)
            if self.disk.life != life:
                await asyncio.Event().wait()
            call()

        return run

    async def _feed(self) -> None:
        while self.machine is not None:
            event = await self._events.get()
            if isinstance(event, Committed):
                await self.processor.work(len(event.commands) * self.world.costs.ed25519_verify)
            for effect in self.machine.step(event, self._now()):
                await self._perform(effect)
            if isinstance(event, Committed) and self.waiting:
                self._answer_registrations()

    def _now(self) -> Instant:
        return Instant(asyncio.get_running_loop().time(), self.world.wall_ms())

    async def _tick(self) -> None:
        while True:
            linked = frozenset(int(i) for i in self.connected())
            if linked != self._linked:
                self._note_links(linked)
                self.post(LinksChanged(self.connected()))
            self._look_at_standing()
            self.post(TimerFired())
            await asyncio.sleep(_TICK_S)

    def _note_links(self, linked: frozenset[int]) -> None:
        assert self.consensus is not None
        for server in sorted(linked ^ self._linked):
            self.consensus.link_changed(server, up=server in linked)
        self._linked = linked

    def _look_at_standing(self) -> None:
        assert self.consensus is not None
        seen = self._log_read and self._events.empty()
        caught_up = self.consensus.caught_up() and (seen or self._standing.caught_up)
        leads = self.consensus.leader() == self.index
        standing = StandingChanged(leads=leads, caught_up=caught_up)
        if standing != self._standing:
            if leads and not self._standing.leads:
                self.world.note("leader_elected", self.name)
            self._standing = standing
            self.post(standing)

    async def _follow(self) -> None:
        assert self.consensus is not None
        async for batch in self.consensus.batches():
            commands = tuple(i.command for i in batch if not isinstance(i, CommittedSnapshot))
            self._log_read = False
            self.post(Committed(commands))
            self._log_read = True

"""A committee in virtual time under trouble drawn from one seed, with its promises checked.

Checked at every batch of every member: indexes without gaps from 1, or from a snapshot, after each
start; the same command at the same index on every member, ever; only commands somebody proposed;
each at most once; a snapshot's state is what exactly the commands up to its index lead to.
Checked at the end: after healing every member makes progress and catches up; after a power cut of
the whole site, everything that was acknowledged is replayed, in the same places.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sim.clock import VirtualLoop, run_virtual
from sim.disk import Disk, PowerCut
from sim.network import Life, Network, Weather
from tests.conformance.consensus.engines import EngineUnderTest, Place
from zipnet.errors import ConsensusError, SafeMode, StorageError
from zipnet.ports import CommittedSnapshot

if TYPE_CHECKING:
    from zipnet.consensus.embedded import RunBlocking
    from zipnet.ports import Consensus

TROUBLE_S = 12.0
PATIENCE_S = 30.0
#: Sizes of a state; the larger one travels in four pieces.
STATES = (40, 40, 40, 200_000)


class InvariantError(AssertionError):
    """A promise of the port does not hold."""


class Member:
    """One server: its disk, which outlives crashes, and its present life, if any."""

    def __init__(self, server: int, disk: Disk, identity: int, *, joining: bool = False) -> None:
        self.server = server
        self.disk = disk
        self.identity = identity
        self.joining = joining
        self.damaged = False
        self.compact_every = 0
        self.compacted_at = 0
        self.engine: Consensus | None = None
        self.life: Life | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.applied = 0
        self.slow = 0.0


class Cluster:
    def __init__(self, engine: EngineUnderTest, *, size: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.size = size
        self.engine = engine
        self.network = Network(size, random.Random(self.rng.random()))
        self.members = [
            Member(s, Disk(random.Random(self.rng.random()), lying=engine.lying_disks), s)
            for s in range(size)
        ]
        self.identities = size
        #: What a member knows of the others when it is new.
        self.trailing = self.rng.choice((0, 3, 64))
        self.state_bytes = self.rng.choice(STATES)
        for member in self.members:
            member.compact_every = self.rng.choice((0, 5, 5, 20, 60))
        self.seen: Counter[str] = Counter()
        self.canonical: list[bytes] = []
        self.digests: list[bytes] = [bytes(32)]
        self.proposed: set[bytes] = set()
        self.acknowledged: set[bytes] = set()
        self.broken: InvariantError | None = None
        self.counter = 0
        self.events: list[str] = []
        #: Elections collide often: time-outs are short and close to each other.
        self.rivalry = self.rng.random() < 0.5

    # -- lives ------------------------------------------------------------------------------------

    async def start(self, member: Member) -> None:
        if member.engine is not None:
            return
        life = self.network.join(member.server)
        run_blocking = self._blocking(member, member.disk.life)
        place = Place(
            member.server,
            self.size,
            member.disk,
            life,
            random.Random(self.rng.random()),
            run_blocking,
            rivalry=self.rivalry,
            members=tuple(one.identity for one in self.members),
            joining=member.joining,
            trailing=self.trailing,
        )
        try:
            engine = self.engine.build(place)
        except (PowerCut, StorageError) as failure:
            self.network.leave(member.server)
            if member.damaged and isinstance(failure, StorageError):
                self.seen["lost to damage"] += 1
                self._replace(member)
                return
            if isinstance(failure, StorageError) and not self._excused(member):
                raise InvariantError(f"{member.server} cannot start: {failure}") from failure
            member.disk.crash() if isinstance(failure, PowerCut) else member.disk.kill()
            return
        if member.damaged:
            self.seen["damage made up for"] += 1
            member.damaged = False
        member.engine, member.life, member.applied, member.compacted_at = engine, life, 0, 0
        life.endpoint = engine
        await engine.start()
        self.engine.want(engine, self._identities())
        self.network.connect(member.server)
        member.tasks = [asyncio.create_task(self._consume(member, engine))]

    def stop(self, member: Member, *, power: bool) -> None:
        """End a life without any goodbye; with ``power``, lose what was not synced."""
        if member.engine is None:
            return
        self.note(f"{'cut' if power else 'kill'} {member.server}")
        task = getattr(member.engine, "_task", None)
        for running in [*member.tasks, *([task] if task else [])]:
            running.cancel()
        member.engine = member.life = None
        member.tasks = []
        self.network.leave(member.server)
        member.disk.crash() if power else member.disk.kill()

    def _blocking(self, member: Member, life: int) -> RunBlocking:
        async def run(call: Callable[[], None]) -> None:
            await asyncio.sleep(self.rng.uniform(0.0002, 0.003) + member.slow * self.rng.random())
            if member.disk.life != life:
                await asyncio.Event().wait()
            try:
                call()
            except PowerCut:
                asyncio.get_running_loop().call_soon(lambda: self.stop(member, power=True))
                await asyncio.Event().wait()
            await asyncio.sleep(self.rng.uniform(0.0, 0.002))

        return run

    @staticmethod
    def _excused(member: Member) -> bool:
        return bool(member.disk.sync_error or member.disk.write_error)

    # -- invariants -------------------------------------------------------------------------------

    async def _consume(self, member: Member, engine: Consensus) -> None:
        try:
            async for batch in engine.batches():
                for committed in batch:
                    if isinstance(committed, CommittedSnapshot):
                        self._check_snapshot(member, committed)
                    else:
                        self._check(member, committed.index, committed.command)
                self._maybe_compact(member, engine)
        except SafeMode:
            self.note(f"fail-safe {member.server}")
            self.stop(member, power=False)
        except InvariantError as broken:
            self.broken = self.broken or broken

    def _maybe_compact(self, member: Member, engine: Consensus) -> None:
        if member.compact_every and member.applied - member.compacted_at >= member.compact_every:
            member.compacted_at = member.applied
            self.seen["snapshots"] += 1
            engine.compact(member.applied, self._state(member.applied))

    def _state(self, index: int) -> bytes:
        return self.digests[index].ljust(self.state_bytes, b"s")

    def _check_snapshot(self, member: Member, snapshot: CommittedSnapshot) -> None:
        self.seen["snapshots begun from" if not member.applied else "snapshots sent"] += 1
        if not member.applied < snapshot.index <= len(self.canonical):
            raise InvariantError(f"{member.server} got a snapshot at {snapshot.index}")
        if snapshot.state != self._state(snapshot.index):
            raise InvariantError(f"a snapshot at {snapshot.index} is of something else")
        member.applied = member.compacted_at = snapshot.index

    def _check(self, member: Member, index: int, command: bytes) -> None:
        member.applied += 1
        if index != member.applied:
            raise InvariantError(f"{member.server} handed out {index}, not {member.applied}")
        if index <= len(self.canonical):
            if self.canonical[index - 1] != command:
                raise InvariantError(f"two commands at index {index}")
            return
        if command not in self.proposed:
            raise InvariantError(f"nobody proposed what stands at index {index}")
        if command in self.canonical:
            raise InvariantError(f"the command at index {index} stands there twice")
        self.canonical.append(command)
        self.digests.append(hashlib.sha256(self.digests[-1] + command).digest())

    def verify(self) -> None:
        if self.broken:
            raise self.broken

    # -- clients ----------------------------------------------------------------------------------

    async def propose(self, member: Member, *, timeout_s: float) -> bool:
        engine = member.engine
        if engine is None:
            return False
        self.counter += 1
        size = self.rng.choice((0, 0, 0, 200, 200, 8000))
        command = f"{self.counter}:".encode() + bytes(size)
        self.proposed.add(command)
        try:
            await engine.propose(command, timeout_s=timeout_s)
        except ConsensusError:
            return False
        if member.engine is engine:
            self.acknowledged.add(command)
        return True

    async def _client(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until and self.broken is None:
            await self.propose(self.rng.choice(self.members), timeout_s=self.rng.uniform(0.2, 3))
            await asyncio.sleep(self.rng.expovariate(12))

    # -- trouble ----------------------------------------------------------------------------------

    def note(self, what: str) -> None:
        self.seen[what.partition(" ")[0].partition("(")[0].lower()] += 1
        self.events.append(f"{asyncio.get_running_loop().time():.3f} {what}")

    async def _trouble(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until and self.broken is None:
            await asyncio.sleep(self.rng.uniform(0.05, 0.9))
            await self.rng.choice(self._repertoire())()

    def _repertoire(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self._stop_one,
            self._stop_one,
            self._stop_leader,
            self._cut_soon,
            self._cut_soon,
            self._blink,
            self._blink,
            self._stop_all,
            self._start_some,
            self._start_some,
            self._start_some,
            self._partition,
            self._swallow,
            self._reset,
            self._heal,
            self._heal,
            self._weather,
            self._disk_trouble,
            self._slow_disk,
            self._replace_one,
            self._damage,
        ]

    def _leader(self) -> Member:
        for member in self.members:
            if member.engine is not None and member.engine.leader() == member.server:
                return member
        return self.rng.choice(self.members)

    async def _stop_one(self) -> None:
        self.stop(self.rng.choice(self.members), power=self.rng.random() < 0.6)

    async def _stop_leader(self) -> None:
        self.stop(self._leader(), power=self.rng.random() < 0.6)

    async def _cut_soon(self) -> None:
        member = self.rng.choice((self._leader(), self.rng.choice(self.members)))
        member.disk.cut_at = member.disk.operations + self.rng.randint(1, 12)

    async def _blink(self) -> None:
        """Restart members again and again while they elect a leader."""
        self.stop(self._leader(), power=True)
        for _ in range(self.rng.randint(2, 10)):
            await asyncio.sleep(self.rng.choice((0.005, 0.03, 0.2)) * self.rng.random())
            member = self.rng.choice(self.members)
            if self.rng.random() < 0.6:
                self._reset_one()
                continue
            self.stop(member, power=True)
            if self.rng.random() < 0.9:
                await self.start(member)

    async def _stop_all(self) -> None:
        for member in self.members:
            self.stop(member, power=True)
        await self._start_some()

    async def _start_some(self) -> None:
        for member in self.members:
            if self.rng.random() < 0.8:
                member.disk.sync_error = member.disk.write_error = 0
                await self.start(member)

    async def _partition(self) -> None:
        if self.size == 1:
            return
        lonely = set(self.rng.sample(range(self.size), self.rng.randint(1, self.size // 2)))
        silent = self.rng.random() < 0.5
        self.note(f"partition {lonely} silent={silent}")
        for one in lonely:
            for other in set(range(self.size)) - lonely:
                if silent:
                    self.network.swallow(one, other)
                    self.network.swallow(other, one)
                else:
                    self.network.sever(one, other)

    async def _swallow(self) -> None:
        if self.size == 1:
            return
        one, other = self.rng.sample(range(self.size), 2)
        self.note(f"swallow {one}->{other}")
        self.network.swallow(one, other)

    async def _reset(self) -> None:
        for _ in range(self.rng.randint(1, 3)):
            self._reset_one()

    def _reset_one(self) -> None:
        if self.size > 1:
            self.network.reset(*self.rng.sample(range(self.size), 2))

    async def _heal(self) -> None:
        self.note("heal")
        self.network.heal()

    async def _weather(self) -> None:
        self.network.weather = self.rng.choice(
            (
                Weather(),
                Weather(delay_s=(0.001, 0.12)),
                Weather(loss=0.1),
                Weather(delay_s=(0.01, 0.4), loss=0.02),
                Weather(repeats=False, reconnect_s=(0.0, 0.05)),
                Weather(delay_s=(0.02, 0.06), reconnect_s=(0.0, 0.02)),
            )
        )
        self.note(f"{self.network.weather}")

    async def _disk_trouble(self) -> None:
        disk = self.rng.choice(self.members).disk
        disk.short_writes = self.rng.choice((0.0, 0.3))
        if self.rng.random() < 0.5:
            disk.sync_error = errno.EIO
        else:
            disk.write_error = errno.ENOSPC

    def _identities(self) -> tuple[int, ...]:
        return tuple(member.identity for member in self.members)

    def _may_replace(self) -> bool:
        """One disk at a time may be lost: the change before has to be over, at the leader."""
        if self.size == 1 or any(member.damaged for member in self.members):
            return False
        engines = [member.engine for member in self.members if member.engine is not None]
        return any(self.engine.settled(engine, self._identities()) for engine in engines)

    async def _replace_one(self) -> None:
        if self._may_replace():
            self._replace(self.rng.choice(self.members))

    def _replace(self, gone: Member) -> None:
        """Give a server's place to another with an empty disk; the first never comes back."""
        self.stop(gone, power=True)
        self.seen["torn writes"] += gone.disk.torn
        self.note(f"replace {gone.server}")
        disk = Disk(random.Random(self.rng.random()), lying=self.engine.lying_disks)
        newcomer = Member(gone.server, disk, self.identities, joining=True)
        newcomer.compact_every = gone.compact_every
        self.identities += 1
        self.members[gone.server] = newcomer
        for member in self.members:
            if member.engine is not None:
                self.engine.want(member.engine, self._identities())

    async def _damage(self) -> None:
        """Spoil a byte of a stopped server's newest snapshot, as a medium may."""
        if not self._may_replace():
            return
        member = self.rng.choice(self.members)
        self.stop(member, power=True)
        if self.engine.damage(member.disk, self.rng):
            self.note(f"damage {member.server}")
            member.damaged = True

    async def _slow_disk(self) -> None:
        self.rng.choice(self.members).slow = self.rng.choice((0.0, 0.05, 0.5))

    # -- the run ----------------------------------------------------------------------------------

    async def run(self) -> None:
        for member in self.members:
            await self.start(member)
        until = asyncio.get_running_loop().time() + TROUBLE_S
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(self._client(until))
            group.create_task(self._trouble(until))
        self.verify()
        await self.repair()
        await self.settle()
        for member in self.members:
            self.stop(member, power=True)
        await self.repair()
        await self.settle()
        lost = self.acknowledged - set(self.canonical)
        if lost:
            raise InvariantError(f"{len(lost)} acknowledged commands are lost")
        for member in self.members:
            self.stop(member, power=True)
            self.seen["torn writes"] += member.disk.torn
        await asyncio.sleep(0)

    async def repair(self) -> None:
        self.note("repair")
        self.network.weather = Weather()
        for seat in range(self.size):
            for _ in range(2):  # a server lost to damage is replaced, and that one starts
                member = self.members[seat]
                member.slow = 0.0
                member.disk.sync_error = member.disk.write_error = 0
                member.disk.cut_at = None
                if member.engine is None:
                    await self.start(member)
            if self.members[seat].engine is None:
                raise InvariantError(f"{seat} does not start on a sound disk")
        self.network.heal()

    async def settle(self) -> None:
        """Wait until every member proposes successfully and all are level."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not self._complete():
            self.verify()
            if asyncio.get_running_loop().time() > deadline:
                raise InvariantError("a replacement is never let in")
            await asyncio.sleep(0.05)
        async with asyncio.TaskGroup() as group:
            for member in self.members:
                group.create_task(self._until_accepted(member))
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not self._level():
            self.verify()
            if asyncio.get_running_loop().time() > deadline:
                raise InvariantError("members do not catch up")
            await asyncio.sleep(0.05)
        self.verify()

    async def _until_accepted(self, member: Member) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not await self.propose(member, timeout_s=5):
            self.verify()
            if asyncio.get_running_loop().time() > deadline:
                raise InvariantError(f"{member.server} gets nothing accepted")
            await asyncio.sleep(0.01)

    def _complete(self) -> bool:
        engines = [member.engine for member in self.members if member.engine is not None]
        return any(self.engine.settled(engine, self._identities()) for engine in engines)

    def _level(self) -> bool:
        return all(
            member.engine is not None
            and member.engine.caught_up()
            and member.applied == len(self.canonical)
            for member in self.members
        )


def run_one(engine: EngineUnderTest, *, size: int, seed: int) -> Cluster:
    """Run one seed; any broken promise is an :class:`InvariantError` that names it."""

    async def main() -> Cluster:
        assert isinstance(asyncio.get_running_loop(), VirtualLoop)
        cluster = Cluster(engine, size=size, seed=seed)
        try:
            await cluster.run()
        except BaseException as failure:
            failure.add_note(f"engine={engine.name} size={size} seed={seed}")
            failure.add_note("\n".join(cluster.events[-40:]))
            raise
        return cluster

    try:
        return run_virtual(main())
    except BaseExceptionGroup as group:
        broken = group.subgroup(InvariantError)
        if broken is None:
            raise
        raise InvariantError(f"seed {seed}: {broken.exceptions[0]}") from group

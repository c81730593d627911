"""A committee server of the model: the shipped machine, guard, custody and consensus engine.

What :mod:`zipnet.node.server_acts` does with threads, files and links is done here with virtual
time, a simulated disk and the modelled network. Effects run in list order, and those that must be
durable take their fsync before the next one is looked at. A crash loses everything but the disk,
the chains and the releases.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.disk import Disk
from sim.model.custody import CostCustody, ModelCustody
from sim.model.fabric import Port, Processor
from zipnet.consensus import EmbeddedConsensus, Timing
from zipnet.errors import ConsensusError, GuardError, RemoteProtocolError
from zipnet.machines.guard import Released, ReleaseGuard
from zipnet.machines.server import ServerMachine
from zipnet.machines.server_effects import (
    AdmitClient,
    AggregateArrived,
    AnnounceKemKey,
    AssembleRecord,
    CatchUpRecords,
    ClientAdmitted,
    ClientNotAdmitted,
    Committed,
    Effect,
    Event,
    Fetch,
    Instant,
    KeepAggregate,
    KemKeyReady,
    LinksChanged,
    OpenRoundWith,
    PartialArrived,
    PersistRelease,
    Propose,
    PublishAborted,
    PublishOpened,
    RecordAssembled,
    RefuseRelease,
    Restored,
    RetireChain,
    RetireOtherChains,
    SharePartial,
    StandingChanged,
    StepChains,
    StoreRecord,
    TimerFired,
    Unblind,
    Unblinded,
    UnblindFailed,
)
from zipnet.ports import CommittedSnapshot
from zipnet.protocol.aggregate import Partial, decode_aggregate, decode_partial
from zipnet.protocol.command import Command, OpenRound, RegisterClient, sign_command
from zipnet.protocol.header import sign_header
from zipnet.protocol.ids import Digest, ServerIndex, content_digest, derive
from zipnet.protocol.record import RECORD_SIGNATURE_USE, Record, RecordContent, assemble_content
from zipnet.storage import CompactingFileJournal

if TYPE_CHECKING:
    from sim.model.aggregating import ModelAggregator
    from sim.model.publishing import ModelClient
    from sim.model.world import World
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["ModelServer"]

_TICK_S = 0.05
_TIMEOUT_S = 5.0
_FETCH_S = 3.0
_ASK = 64
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


class ModelServer:
    """One server: what survives a crash, and what does not."""

    def __init__(self, world: World, index: ServerIndex, port: Port) -> None:
        self.world = world
        self.index = index
        self.name = f"server-{index}"
        self.port = port
        self.identity = world.group.servers[index]
        # What survives a crash.
        self.disk = Disk(random.Random(f"{world.seed}/disk/{index}"))
        kind = CostCustody if world.scenario.vectors == "cost" else ModelCustody
        self.custody = kind(world.group, index)
        self.releases: list[Released] = []
        self.records: list[VerifiedRecord] = []
        self.kept: dict[Digest, bytes] = {}
        # What does not.
        self.machine: ServerMachine | None = None
        self.consensus: EmbeddedConsensus | None = None
        self.subscribers: set[ModelAggregator] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._life = 0

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start from what is on the disk."""
        world, index = self.world, self.index
        self._life += 1
        self.port.online, self.port.life = True, self.port.life + 1
        self.processor, self.keys = Processor(), Processor()
        self.blobs: dict[Digest, bytes] = dict(self.kept)
        self.withheld: dict[Digest, bytes] = {}
        self.contents: dict[int, RecordContent] = {}
        self.waiting: dict[Digest, ModelClient] = {}
        self.subscribers = set()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
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

    def begin(self, work: Coroutine[object, object, None]) -> None:
        """Run something beside, for as long as this life lasts."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connected(self) -> frozenset[ServerIndex]:
        """Servers with a link to this one."""
        if not self.port.reachable:
            return frozenset()
        others = (s for s in self.world.servers if s is not self)
        return frozenset(s.index for s in others if s.port.reachable and s.machine is not None)

    def _blocking(self, life: int) -> Callable[[Callable[[], None]], Awaitable[None]]:
        async def run(call: Callable[[], None]) -> None:
            await asyncio.sleep(self.world.costs.fsync)
            if self.disk.life != life:
                await asyncio.Event().wait()
            call()

        return run

    # -- the machine ---------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Tell the machine what happened, in turn."""
        if self.machine is not None:
            self._events.put_nowait(event)

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

    # -- effects -------------------------------------------------------------------------------

    async def _perform(self, effect: Effect) -> None:  # noqa: C901, PLR0912 - the table of effects
        world = self.world
        match effect:
            case Propose():
                self.begin(self._propose(effect.command))
            case OpenRoundWith():
                header = world.hooks.open_with(self, effect.header)
                self.begin(self._propose(OpenRound(sign_header(header, self.identity))))
            case KeepAggregate():
                self.kept[effect.aggregate] = self.blobs[effect.aggregate]
                await asyncio.sleep(world.costs.fsync)
            case PersistRelease():
                self.releases.append(effect.released)
                world.hooks.released(self.index, effect.released)
                await asyncio.sleep(world.costs.fsync)
            case Unblind():
                self.begin(self._unblind(effect))
            case RefuseRelease():
                world.note(
                    "release_refused", self.name, round_number=effect.round, note=effect.reason
                )
            case SharePartial():
                self._share(effect)
            case Fetch():
                self.begin(self._fetch(effect.digest, effect.holders))
            case AssembleRecord():
                self.begin(self._assemble(effect))
            case StoreRecord():
                await self._store(effect)
            case CatchUpRecords():
                self.begin(self._catch_up(effect.next_sequence))
            case StepChains():
                self.custody.step_past(effect.round)
                self.withheld.clear()
                work = world.costs.chain_step * self.custody.chain_count + world.costs.fsync
                await self.keys.work(work)
            case AdmitClient():
                self._admit(effect)
            case RetireChain():
                self.custody.retire(effect.index)
            case RetireOtherChains():
                self.custody.retire_others(effect.kept)
            case AnnounceKemKey():
                epoch = max(effect.epoch, effect.announced + 1)
                digest = derive("sim-announcement", bytes([self.index]), epoch.to_bytes(8, "big"))
                self.post(KemKeyReady(epoch, digest))
            case PublishOpened():
                self._opened(effect)
            case PublishAborted():
                self._aborted(effect)

    def propose_later(self, command: Command, *, delay_s: float) -> None:
        """Propose a command of somebody else's choice, as a server under foreign control would."""

        async def later() -> None:
            await asyncio.sleep(delay_s)
            await self._propose(command)

        self.begin(later())

    async def _propose(self, command: Command) -> None:
        assert self.consensus is not None
        data = sign_command(command, self.index, self.world.group.group, self.identity)
        await self.processor.work(self.world.costs.ed25519_sign)
        try:
            await self.consensus.propose(data, timeout_s=_TIMEOUT_S)
        except ConsensusError as error:
            self.world.note("proposal_failed", self.name, note=error.reason)

    async def _unblind(self, effect: Unblind) -> None:
        world, header = self.world, effect.header
        count = len(effect.participants)
        await self.keys.work(world.costs.pads(count, world.scenario.wire_body_bytes))
        try:
            body = self.custody.unblind(
                header, effect.participants, world.group.params, world.group.engine
            )
        except GuardError:
            self.post(UnblindFailed(header.round))
            return
        partial = Partial(header.round, header.hash, self.index, effect.aggregate, bytes(body))
        blob = partial.encode()
        self.withheld = {content_digest(blob): blob}
        self.post(Unblinded(header.round, content_digest(blob)))

    def _share(self, effect: SharePartial) -> None:
        blob = self.withheld.pop(effect.partial, None)
        if blob is None:
            return
        self.blobs[effect.partial] = blob
        self.world.hooks.partial(self.index, effect.round, blob)
        size = self.world.nominal(len(blob))
        for other in self.world.servers:
            if other is not self:
                self._send(other, "partial", size, partial(other.blob, blob))

    def _send(self, other: ModelServer, kind: str, size: int, deliver: Callable[[], None]) -> None:
        self.world.fabric.send(self.port, other.port, kind, size, deliver)

    def aggregate(self, blob: bytes) -> None:
        """An aggregate of a root arrived."""
        if self.machine is None:
            return
        try:
            digest, found = decode_aggregate(blob, self.world.group.params)
        except RemoteProtocolError:
            self.world.note("aggregate_refused", self.name)
            return
        self.blobs[digest] = blob
        arrived = AggregateArrived(digest, found.round, found.header_hash, found.participants)
        work = self.world.costs.digest_byte * self.world.scenario.wire_body_bytes
        self.processor.run(work, lambda: self.post(arrived))

    def blob(self, blob: bytes) -> None:
        """A blob of another server arrived."""
        if self.machine is None:
            return
        digest, state = content_digest(blob), self.machine.state
        self.blobs[digest] = blob
        if state.chosen is not None and digest == state.chosen.aggregate:
            self.aggregate(blob)
        for server, posted in state.partials.items():
            if posted == digest:
                work = self.world.costs.digest_byte * self.world.scenario.wire_body_bytes
                arrived = PartialArrived(server, digest)
                self.processor.run(work, partial(self.post, arrived))

    async def _fetch(self, digest: Digest, holders: tuple[ServerIndex, ...]) -> None:
        if digest in self.blobs:
            self.blob(self.blobs[digest])
            return
        for holder in holders:
            blob = await self._ask(self.world.servers[holder], digest)
            if blob is not None:
                self.blob(blob)
                return

    async def _ask(self, holder: ModelServer, digest: Digest) -> bytes | None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes | None] = loop.create_future()

        def asked() -> None:
            blob = holder.blobs.get(digest) if holder.machine is not None else None
            size = _ASK if blob is None else self.world.nominal(len(blob))
            back = partial(_answer, answer, blob)
            self.world.fabric.send(holder.port, self.port, "blob", size, back)

        self._send(holder, "ask", _ASK, asked)
        try:
            async with asyncio.timeout(_FETCH_S):
                return await answer
        except TimeoutError:
            return None

    async def _assemble(self, effect: AssembleRecord) -> None:
        world, header = self.world, effect.header
        params = world.group.params
        blobs = [self.blobs.get(digest) for digest in (effect.aggregate, *effect.partials)]
        if any(blob is None for blob in blobs):
            return
        _, aggregate = decode_aggregate(blobs[0] or b"", params)
        clear = np.frombuffer(aggregate.body, dtype=np.uint8).copy()
        for blob in blobs[1:]:
            clear ^= np.frombuffer(decode_partial(blob or b"", params)[1].body, dtype=np.uint8)
        size, slots = world.scenario.wire_body_bytes, world.scenario.slots
        await self.processor.work(world.costs.assemble(len(header.roster), size, slots))
        salt = derive("sim-salt", header.hash)
        content = assemble_content(
            header,
            sequence=effect.sequence,
            participants=len(aggregate.participants),
            commitment=aggregate.participants.commitment(salt),
            clear_body=clear.tobytes(),
            params=params,
        )
        self.contents = {int(header.round): content}
        signature = self.identity.sign(RECORD_SIGNATURE_USE, content.hash)
        self.post(RecordAssembled(header.round, content.hash, content.schedule, signature))

    async def _store(self, effect: StoreRecord) -> None:
        content = self.contents.pop(int(effect.sealed.header.round), None)
        if content is None:
            self.begin(self._catch_up(effect.sealed.sequence + 1))
            return
        await asyncio.sleep(self.world.costs.fsync)
        self._take(self.world.verified(Record(content, effect.sealed.signatures)))

    def _take(self, record: VerifiedRecord) -> None:
        self.records.append(record)
        size = self.world.record_bytes(record)
        self.world.sealed(self, record, size)
        for aggregator in self._subscribed():
            self._push(aggregator, "record", size, partial(aggregator.sealed, record, size))

    async def _catch_up(self, next_sequence: int) -> None:
        while len(self.records) < next_sequence:
            have = len(self.records)
            ahead = [s for s in self.world.servers if s.port.reachable and len(s.records) > have]
            if ahead:
                record = ahead[0].records[have]
                arrived = asyncio.Event()
                size = self.world.record_bytes(record)
                fabric = self.world.fabric
                fabric.send(ahead[0].port, self.port, "record", size, arrived.set)
                await arrived.wait()
                if len(self.records) == have:
                    self._take(record)
            else:
                await asyncio.sleep(_TICK_S)

    # -- clients -------------------------------------------------------------------------------

    def register(self, client: ModelClient, blob: bytes, serial: int) -> None:
        """A client's registration arrived."""
        if self.machine is None:
            return
        digest = Digest(blob)
        self.waiting[digest] = client
        public = client.identity.public
        command = RegisterClient(public.peer_id, public.ed25519, serial, digest)
        work = self.world.costs.hybrid_verify
        self.processor.run(work, lambda: self.begin(self._propose(command)))

    def _answer_registrations(self) -> None:
        assert self.machine is not None
        registry = self.machine.state.registry
        for change in registry.changes_from(max(0, registry.version - 64), 64):
            client = self.waiting.pop(change.registration, None) if change.registration else None
            entry = registry.entry(change.index)
            if client is not None and entry is not None:
                index, version, first = change.index, entry.since_version, change.first_round
                self._push(
                    client, "registered", _ASK, partial(client.registered, index, version, first)
                )

    def _admit(self, effect: AdmitClient) -> None:
        change = effect.change
        known = self.world.registrations.get(change.registration or Digest(b""))
        if known is None:
            self.post(ClientNotAdmitted(change.index))
            return
        self.custody.begin(change.index, change.first_round, known[0], known[1], 0)
        if change.index < self.world.founders:
            self.post(ClientAdmitted(change.index))
        else:
            work = self.world.costs.decapsulate
            self.keys.run(work, lambda: self.post(ClientAdmitted(change.index)))

    # -- subscribers ---------------------------------------------------------------------------

    def subscribe(self, aggregator: ModelAggregator) -> None:
        """Push to an aggregator from now on, beginning with what is open."""
        self.subscribers.add(aggregator)
        if self.records:
            record = self.records[-1]
            size = self.world.record_bytes(record)
            self._push(aggregator, "record", size, lambda: aggregator.sealed(record, size))
        if self.machine is not None and self.machine.state.signed is not None:
            self._opened(PublishOpened(self.machine.state.signed))

    def _subscribed(self) -> list[ModelAggregator]:
        return sorted(self.subscribers, key=lambda a: a.name)

    def _push(
        self,
        target: ModelAggregator | ModelClient,
        kind: str,
        size: int,
        deliver: Callable[[], None],
    ) -> None:
        self.world.fabric.send(self.port, target.port, kind, size, deliver)

    def _opened(self, effect: PublishOpened) -> None:
        self.world.opened(self, effect.signed)
        for aggregator in self._subscribed():
            for shown in self.world.hooks.relay(self.name, effect.signed, aggregator.name):
                self._push(aggregator, "header", 260, partial(aggregator.opened, shown))

    def _aborted(self, effect: PublishAborted) -> None:
        aborted = effect.aborted
        self.world.aborted(self, aborted.round, aborted.why.name.lower())
        for aggregator in self._subscribed():
            self._push(
                aggregator,
                "abort",
                40,
                partial(aggregator.aborted, aborted.round, int(aborted.why)),
            )


def _answer(waiting: asyncio.Future[bytes | None], blob: bytes | None) -> None:
    if not waiting.done():
        waiting.set_result(blob)

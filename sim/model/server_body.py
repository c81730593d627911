"""What a model server is made of, and whom it talks to: other servers, clients, subscribers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING

from sim.disk import Disk
from sim.model.custody import CostCustody, ModelCustody
from sim.model.fabric import Port, Processor
from zipnet.errors import ConsensusError
from zipnet.machines.server_effects import (
    AdmitClient,
    ClientAdmitted,
    ClientNotAdmitted,
    Event,
    PublishAborted,
    PublishOpened,
)
from zipnet.protocol.command import Command, RegisterClient, sign_command
from zipnet.protocol.ids import Digest, ServerIndex

if TYPE_CHECKING:
    from sim.model.aggregating import ModelAggregator
    from sim.model.publishing import ModelClient
    from sim.model.world import World
    from zipnet.consensus import EmbeddedConsensus
    from zipnet.machines.guard import Released
    from zipnet.machines.server import ServerMachine
    from zipnet.protocol.record import RecordContent, VerifiedRecord

__all__ = ["ServerBody"]

_TIMEOUT_S = 5.0
_ASK = 64
_MAX_EVENTS = 1 << 20  # a model in which more wait for one server tells nothing any more


class ServerBody:
    """One server: what survives a crash, what does not, and its conversations."""

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
        self._tasks: set[asyncio.Task[None]] = set()
        self._life = 0
        self.forget()

    def forget(self) -> None:
        """Begin a life: nothing is in memory but what the disk kept."""
        self.processor, self.keys = Processor(), Processor()
        self.subscribers: set[ModelAggregator] = set()
        self.blobs: dict[Digest, bytes] = dict(self.kept)
        self.withheld: dict[Digest, bytes] = {}
        self.contents: dict[int, RecordContent] = {}
        self.waiting: dict[Digest, ModelClient] = {}
        self._events: asyncio.Queue[Event] = asyncio.Queue(_MAX_EVENTS)

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

    def post(self, event: Event) -> None:
        """Tell the machine what happened, in turn."""
        if self.machine is not None:
            self._events.put_nowait(event)

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

    def _push(
        self,
        target: ModelAggregator | ModelClient,
        kind: str,
        size: int,
        deliver: Callable[[], None],
    ) -> None:
        self.world.fabric.send(self.port, target.port, kind, size, deliver)

    def _send(self, other: ServerBody, kind: str, size: int, deliver: Callable[[], None]) -> None:
        self.world.fabric.send(self.port, other.port, kind, size, deliver)

    def _subscribed(self) -> list[ModelAggregator]:
        return sorted(self.subscribers, key=lambda a: a.name)

    def subscribe(self, aggregator: ModelAggregator) -> None:
        """Push to an aggregator from now on, beginning with what is open."""
        self.subscribers.add(aggregator)
        if self.records:
            record = self.records[-1]
            size = self.world.record_bytes(record)
            self._push(aggregator, "record", size, lambda: aggregator.sealed(record, size))
        if self.machine is not None and self.machine.state.signed is not None:
            self._opened(PublishOpened(self.machine.state.signed))

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

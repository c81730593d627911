"""An aggregator of the model: the shipped machine, and a driver on the modelled network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from sim.model.fabric import Port, Processor
from zipnet.machines.aggregator import AggregatorMachine
from zipnet.machines.aggregator_effects import (
    Accept,
    ArmTimer,
    ChildAggregate,
    Distrust,
    Effect,
    EnvelopeReceived,
    Event,
    FetchRegistry,
    HeaderReceived,
    PeerGone,
    PeerHere,
    Refuse,
    RegistryReceived,
    RelayHeader,
    RoundOver,
    SendAggregate,
    SourceChanged,
    TimerFired,
)
from zipnet.protocol.aggregate import decode_aggregate

if TYPE_CHECKING:
    from sim.model.crowd import CrowdMember
    from sim.model.publishing import ModelClient
    from sim.model.server import ModelServer
    from sim.model.world import World
    from zipnet.protocol.envelope import Envelope
    from zipnet.protocol.header import SignedHeader
    from zipnet.protocol.ids import PeerId, RoundNumber
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["HEADER_BYTES", "ModelAggregator"]

HEADER_BYTES = 260
ANSWER_BYTES = 40
CHANGE_BYTES = 120
_WATCH_S = 0.5


@dataclass(slots=True)
class _Ticket:
    client: ModelClient | CrowdMember | None
    round: RoundNumber


class _Attached(Protocol):
    """Whoever has a place in the network."""

    port: Port


class ModelAggregator:
    """One aggregator: machine, link, processor, subscribers.

    Attributes:
        children: Aggregators below this one.
        clients: Clients that send here, by peer id.
    """

    def __init__(self, world: World, name: str, parent: ModelAggregator | None, port: Port) -> None:
        self.world = world
        self.name = name
        self.parent = parent
        self.port = port
        self.processor = Processor()
        identity = world.group.aggregators[name]
        self.peer = identity.peer_id
        entry = world.group.descriptor.aggregator(self.peer)
        assert entry is not None
        self.machine = AggregatorMachine(world.group.descriptor, entry)
        self.children: list[ModelAggregator] = []
        self.clients: dict[PeerId, ModelClient | CrowdMember] = {}
        self.source: ModelServer | None = None
        self._records: list[tuple[VerifiedRecord, int]] = []
        self._tickets: dict[int, _Ticket] = {}
        self._next = 0

    # -- who is here ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Bond with the parent, or follow a server."""
        if self.parent is not None:
            self.parent.step(PeerHere(self.peer))
        else:
            self._watch()

    def join(self, peer: PeerId, client: ModelClient | CrowdMember) -> None:
        """Take a client's session."""
        self.clients[peer] = client
        self.step(PeerHere(peer))

    def leave(self, peer: PeerId) -> None:
        """Note that a client's session ended."""
        if self.clients.pop(peer, None) is not None:
            self.step(PeerGone(peer))

    def _watch(self) -> None:
        source = self.source
        if source is None or not source.port.reachable:
            candidates = [s for s in self.world.servers if s.port.reachable and s.machine]
            if candidates:
                if source is not None:
                    source.subscribers.discard(self)
                self.source = candidates[0]
                self.source.subscribe(self)
                if source is not None:
                    self.world.note("source_changed", self.name, note=self.source.name)
                    self.step(SourceChanged())
        asyncio.get_running_loop().call_later(_WATCH_S, self._watch)

    # -- what arrives --------------------------------------------------------------------------

    def step(self, event: Event) -> None:
        """Feed the machine and do what it asks for."""
        for effect in self.machine.step(event, asyncio.get_running_loop().time()):
            self._perform(effect)

    def opened(self, signed: SignedHeader) -> None:
        """A header arrived from above."""
        self.processor.run(
            self.world.costs.ed25519_verify, lambda: self.step(HeaderReceived(signed))
        )

    def sealed(self, record: VerifiedRecord, size: int) -> None:
        """A record arrived from above: keep it and pass it on."""
        if self._records and record.sequence <= self._records[-1][0].sequence:
            return
        self._records.append((record, size))
        self.step(RoundOver(record.round))
        for child in self.children:
            self._push(child, "record", size, partial(child.sealed, record, size))
        self.world.relay_record(self, record, size)

    def aborted(self, number: RoundNumber, why: int) -> None:
        """A round was given up, says somebody; passed on, and folding goes on."""
        for child in self.children:
            self._push(child, "abort", ANSWER_BYTES, partial(child.aborted, number, why))
        for client in list(self.clients.values()):
            self._push(client, "abort", ANSWER_BYTES, partial(client.aborted, number, why))

    def records_from(self, start: int) -> list[tuple[VerifiedRecord, int]]:
        """Return the records from a sequence on that this node still has."""
        return [item for item in self._records if item[0].sequence >= start]

    def envelope(self, client: ModelClient | CrowdMember, envelope: Envelope) -> None:
        """An envelope arrived: it is looked at when the processor gets to it."""
        work = self.world.costs.admit(self.world.scenario.wire_body_bytes)
        self.processor.run(work, lambda: self._admit(client, envelope))

    def _admit(self, client: ModelClient | CrowdMember, envelope: Envelope) -> None:
        if not self.world.hooks.envelope(self.name, envelope):
            return
        ticket = self._ticket(client, envelope.round)
        self.step(EnvelopeReceived(client.identity.peer_id, envelope, ticket))

    def child(self, child: ModelAggregator, blob: bytes) -> None:
        """An aggregate of a child arrived."""
        costs, size = self.world.costs, self.world.scenario.wire_body_bytes
        work = (costs.digest_byte + costs.xor_byte) * size + costs.fold_fixed
        self.processor.run(work, lambda: self._take(child, blob))

    def _take(self, child: ModelAggregator, blob: bytes) -> None:
        digest, aggregate = decode_aggregate(blob, self.world.group.params)
        ticket = self._ticket(None, aggregate.round)
        self.step(ChildAggregate(child.peer, digest, aggregate, ticket))

    def _ticket(self, client: ModelClient | CrowdMember | None, number: RoundNumber) -> int:
        self._next += 1
        self._tickets[self._next] = _Ticket(client, number)
        return self._next

    # -- effects -------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        loop = asyncio.get_running_loop()
        match effect:
            case FetchRegistry():
                self._fetch_registry(effect.from_version)
            case RelayHeader():
                self._relay(effect.signed)
            case ArmTimer():
                loop.call_at(effect.at, self.step, TimerFired())
            case Accept():
                self._answer(effect.ticket, None)
            case Refuse():
                self._answer(effect.ticket, effect.reason)
            case SendAggregate():
                self._send_up(effect)
            case Distrust():
                self.world.note("source_distrusted", self.name, note=effect.reason)

    def _relay(self, signed: SignedHeader) -> None:
        for child in self.children:
            for shown in self.world.hooks.relay(self.name, signed, child.name):
                self._push(child, "header", HEADER_BYTES, partial(child.opened, shown))
        for client in list(self.clients.values()):
            for shown in self.world.hooks.relay(self.name, signed, client.name):
                self._push(client, "header", HEADER_BYTES, partial(client.opened, shown))

    def _push(self, target: _Attached, kind: str, size: int, deliver: Callable[[], None]) -> None:
        self.world.fabric.send(self.port, target.port, kind, size, deliver)

    def _answer(self, ticket: int, refusal: str | None) -> None:
        entry = self._tickets.pop(ticket)
        client, number = entry.client, entry.round
        if refusal is not None:
            name = self.name if client is None else client.name
            self.world.note("submission_refused", name, round_number=number, note=refusal)
        if client is None:
            return
        self._push(client, "answer", ANSWER_BYTES, lambda: client.answered(number, refusal))

    def _send_up(self, effect: SendAggregate) -> None:
        world = self.world
        world.note("fold_closed", self.name, round_number=effect.round, value=float(effect.count))
        for target, blob in world.hooks.aggregate(self.name, effect):
            size = world.nominal(len(blob))
            if self.parent is not None and target is None:
                parent = self.parent
                self._push(parent, "aggregate", size, partial(parent.child, self, blob))
                continue
            for server in world.servers:
                if target is None or server.index == target:
                    self._push(server, "aggregate", size, partial(server.aggregate, blob))

    def _fetch_registry(self, start: int) -> None:
        source = self.world.first_reachable(self.name)
        if source is None:
            return

        def there() -> None:
            if source.machine is None:
                return
            registry = source.machine.state.registry
            changes = registry.changes_from(start, registry.version - start)
            size = CHANGE_BYTES * len(changes) + ANSWER_BYTES
            received = RegistryReceived(start, changes)
            self.world.fabric.send(
                source.port, self.port, "registry", size, lambda: self.step(received)
            )

        self.world.fabric.send(self.port, source.port, "ask", ANSWER_BYTES, there)

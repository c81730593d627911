"""Aggregator machines by hand: one node with a clock of its own, and a committee with clients."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from tests.harness.committee import HarnessCommittee, make_draw
from tests.harness.publishers import HarnessPublisher
from zipnet.machines.aggregator import AggregatorMachine
from zipnet.machines.aggregator_effects import (
    Accept,
    ChildAggregate,
    Distrust,
    Effect,
    EnvelopeReceived,
    Event,
    FetchRegistry,
    HeaderReceived,
    Refuse,
    RegistryReceived,
    SendAggregate,
    TimerFired,
)
from zipnet.protocol.aggregate import Aggregate, decode_aggregate
from zipnet.protocol.envelope import Envelope, seal_envelope
from zipnet.protocol.params import Cadence
from zipnet.protocol.participants import Participants

if TYPE_CHECKING:
    from zipnet.protocol.header import SignedHeader
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.ids import PeerId

__all__ = ["FOLD_S", "TREE", "Node", "World", "xor"]

TREE: dict[str, str | None] = {"root": None, "mid": "root", "leaf-a": "mid", "leaf-b": "root"}
FOLD_S = 0.9


def xor(*bodies: bytes) -> bytes:
    total = np.zeros(len(bodies[0]), dtype=np.uint8)
    for body in bodies:
        total ^= np.frombuffer(body, dtype=np.uint8)
    return total.tobytes()


class Node:
    """One machine with a clock of its own and its effects kept."""

    def __init__(self, committee: HarnessCommittee, name: str) -> None:
        entry = committee.descriptor.aggregator(committee.aggregators[name].peer_id)
        assert entry is not None
        self.committee = committee
        self.peer = entry.node.peer_id
        self.machine = AggregatorMachine(committee.descriptor, entry)
        self.now = 100.0
        self.effects: list[Effect] = []
        self.tickets = itertools.count(1)

    def feed(self, event: Event) -> list[Effect]:
        effects = self.machine.step(event, self.now)
        self.effects += effects
        return effects

    def know_registry(self) -> None:
        """Answer what the machine asked for, truthfully."""
        while (asked := self.asked()) is not None:
            changes = tuple(self.committee.changes[asked.from_version :])
            self.effects.remove(asked)
            self.feed(RegistryReceived(asked.from_version, changes))

    def asked(self) -> FetchRegistry | None:
        return next((e for e in self.effects if isinstance(e, FetchRegistry)), None)

    def open(self, signed: SignedHeader | None = None) -> SignedHeader:
        signed = signed or self.committee.open_round()
        self.feed(HeaderReceived(signed))
        self.know_registry()
        assert self.machine.open_header == signed
        return signed

    def envelope(self, source: PeerId, envelope: Envelope) -> str:
        return self._answer(EnvelopeReceived(source, envelope, next(self.tickets)))

    def child(self, source: PeerId, aggregate: Aggregate) -> str:
        digest, parsed = decode_aggregate(aggregate.encode(), self.committee.params)
        return self._answer(ChildAggregate(source, digest, parsed, next(self.tickets)))

    def _answer(self, event: EnvelopeReceived | ChildAggregate) -> str:
        answers = [e for e in self.feed(event) if isinstance(e, Accept | Refuse)]
        (answer,) = answers
        assert answer.ticket == event.ticket
        return "accepted" if isinstance(answer, Accept) else answer.reason

    def sent(self) -> list[Aggregate]:
        blobs = [e.blob for e in self.effects if isinstance(e, SendAggregate)]
        return [decode_aggregate(blob, self.committee.params)[1] for blob in blobs]

    def distrusted(self) -> list[str]:
        return [e.reason for e in self.effects if isinstance(e, Distrust)]

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.feed(TimerFired())


class World:
    """A committee with four registered clients and bodies to fold."""

    def __init__(self) -> None:
        cadence = Cadence(
            round_period_ms=1000, fold_deadline_ms=int(FOLD_S * 1000), round_deadline_ms=2000
        )
        self.committee = HarnessCommittee(aggregators=TREE, cadence=cadence)
        self.clients = [HarnessPublisher(self.committee, f"client-{i}") for i in range(4)]
        self.index = [client.register().index for client in self.clients]
        self.draw = make_draw("bodies")

    def peer(self, number: int) -> PeerId:
        return self.clients[number].identity.peer_id

    def identity(self, number: int) -> Identity:
        return self.clients[number].identity

    def body(self) -> bytes:
        return self.draw(self.committee.params.body_bytes)

    def seal(self, signed: SignedHeader, number: int, body: bytes | None = None) -> Envelope:
        return seal_envelope(
            signed.header, self.index[number], body or self.body(), self.identity(number)
        )

    def aggregate(self, signed: SignedHeader, numbers: list[int], body: bytes) -> Aggregate:
        participants = Participants(self.index[i] for i in numbers)
        return Aggregate(signed.header.round, signed.header.hash, participants, body)

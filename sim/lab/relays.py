"""Malicious aggregators: dropping, splitting, replaying (protocol.md §6 "fold", §8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.lab.spy import Spy, xor
from zipnet.protocol.aggregate import Aggregate, decode_aggregate
from zipnet.protocol.ids import ServerIndex
from zipnet.protocol.participants import Participants

if TYPE_CHECKING:
    from zipnet.machines.aggregator_effects import SendAggregate
    from zipnet.protocol.envelope import Envelope
    from zipnet.protocol.header import SignedHeader

__all__ = ["DroppingAggregator", "ReplayingAggregator", "SplittingAggregator"]

_EVERY = 4


class DroppingAggregator(Spy):
    """Lets the target pass, and of the others as few as still make a round."""

    def __init__(self, mutant: str | None = None, *, target: int = 0) -> None:
        super().__init__(mutant)
        self._target = target

    def envelope(self, leaf: str, envelope: Envelope) -> bool:
        """Drop all but the target and as many as the minimum asks for."""
        assert self.world is not None
        super().envelope(leaf, envelope)
        least = self.world.group.params.min_participants
        return int(envelope.sender) < max(least, 1) or int(envelope.sender) == self._target


class SplittingAggregator(Spy):
    """Sends each server another set: everybody to one, everybody but one client to the others."""

    def __init__(self, mutant: str | None = None) -> None:
        super().__init__(mutant)
        self.sent = 0

    def aggregate(self, node: str, effect: SendAggregate) -> list[tuple[ServerIndex | None, bytes]]:
        """Send different aggregates to different servers."""
        del node
        assert self.world is not None
        self.keep_aggregate(effect.blob)
        less = self.without(effect.blob, int(effect.round) % max(effect.count, 1))
        self.keep_aggregate(less)
        self.sent += 2
        servers = range(len(self.world.servers))
        return [(ServerIndex(i), less if i else effect.blob) for i in servers]

    def without(self, blob: bytes, place: int) -> bytes:
        """Return an aggregate without one of its participants."""
        assert self.world is not None
        _, whole = decode_aggregate(blob, self.world.group.params)
        members = list(whole.participants)
        bodies = self.envelopes[int(whole.round), whole.header_hash]
        left_out = members.pop(place) if members else None
        if left_out is None or int(left_out) not in bodies:
            return blob
        body = xor(whole.body, bodies[int(left_out)][0])
        rest = Participants(members)
        return Aggregate(whole.round, whole.header_hash, rest, body).encode()


class ReplayingAggregator(Spy):
    """Shows headers, envelopes and aggregates a second time.

    Every header goes to clients twice, every aggregate to servers once more a round later, and in
    every fourth round the envelope of one client is folded from the round before.
    """

    def __init__(self, mutant: str | None = None) -> None:
        super().__init__(mutant)
        self._last: bytes | None = None
        self._bodies: dict[int, bytes] = {}
        self.replayed = 0

    def relay(self, node: str, signed: SignedHeader, target: str) -> list[SignedHeader]:
        """Show every header twice."""
        del node, target
        self.replayed += 1
        return [signed, signed]

    def aggregate(self, node: str, effect: SendAggregate) -> list[tuple[ServerIndex | None, bytes]]:
        """Send the aggregate of the round before along with this one's."""
        del node
        assert self.world is not None
        blob = effect.blob
        _, whole = decode_aggregate(blob, self.world.group.params)
        now = {s: b[0] for s, b in self.envelopes[int(whole.round), whole.header_hash].items()}
        if self._bodies and effect.round % _EVERY == 0:
            blob = self._with_old(whole, now)
        self._bodies = now
        self.keep_aggregate(blob)
        again = [] if self._last is None else [(None, self._last)]
        self.replayed += len(again)
        self._last = blob
        return [*again, (None, blob)]

    def _with_old(self, whole: Aggregate, now: dict[int, bytes]) -> bytes:
        """Return an aggregate with one client's envelope taken from the round before."""
        client = next(int(i) for i in whole.participants if int(i) in self._bodies)
        self.replayed += 1
        body = xor(whole.body, now[client], self._bodies[client])
        return Aggregate(whole.round, whole.header_hash, whole.participants, body).encode()

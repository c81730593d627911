"""What adversaries have in common: eyes on everything public, and the arithmetic of unmasking.

An adversary knows envelopes, aggregates, released partials and records. Whenever it has the
partials of a whole roster for a set of participants it knows the XOR of their clear vectors; of two
such sets in one round, the XOR of the difference too; of two envelopes of one client under one pad,
that client's own. Everything it can conclude about authors follows from these *clear sets*:

1. A message that stands in the clear vector of a set was written by somebody in that set.
2. A message whose slot is empty in it was written by somebody else.

What is left of the round's participants after both rules is the message's anonymity set; the
posterior over authors is uniform on it, and its entropy is the measure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from sim.lab.mutants import ForgetfulGuard, NoCoverPublisher, PadReusePublisher
from sim.model.hooks import Hooks
from zipnet.protocol.aggregate import decode_aggregate, decode_partial

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.model.world import World
    from zipnet.machines.aggregator_effects import SendAggregate
    from zipnet.machines.guard import ReleaseGuard
    from zipnet.protocol.envelope import Envelope
    from zipnet.protocol.ids import Digest, MessageId, ServerIndex
    from zipnet.protocol.participants import Participants
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["Exposure", "Spy", "xor"]


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is known of one message's author.

    Attributes:
        message: The message.
        candidates: Who may have written it.
        participants: Who took part in its round.
    """

    message: MessageId
    candidates: frozenset[int]
    participants: frozenset[int]

    @property
    def lost_bits(self) -> float:
        """Entropy of prior minus entropy of posterior, in bits."""
        return math.log2(len(self.participants)) - math.log2(max(len(self.candidates), 1))

    @property
    def identified(self) -> bool:
        """Whether one candidate is left."""
        return len(self.candidates) == 1 < len(self.participants)


class Spy(Hooks):
    """Sees what anybody could see, does nothing; adversaries build on it.

    Args:
        mutant: How the protocol is broken, for tests: ``no-cover``, ``pad-reuse``,
            ``release-twice`` or None.
    """

    def __init__(self, mutant: str | None = None) -> None:
        self.mutant = mutant
        kinds = {"no-cover": NoCoverPublisher, "pad-reuse": PadReusePublisher}
        self.publisher_type = kinds.get(mutant or "")
        self.world: World | None = None
        self.envelopes: dict[tuple[int, Digest], dict[int, list[bytes]]] = defaultdict(dict)
        self.aggregates: dict[Digest, tuple[Participants, bytes]] = {}
        self.partials: dict[tuple[int, Digest, Digest], dict[int, bytes]] = defaultdict(dict)
        self.records: list[VerifiedRecord] = []

    def begin(self, world: World) -> None:
        """Remember where everything is."""
        self.world = world

    def guard(self, honest: ReleaseGuard) -> ReleaseGuard:
        """Break the guard where the mutant says so."""
        return ForgetfulGuard(honest) if self.mutant == "release-twice" else honest

    def envelope(self, leaf: str, envelope: Envelope) -> bool:
        """Keep every envelope."""
        del leaf
        seen = self.envelopes[int(envelope.round), envelope.header_hash]
        bodies = seen.setdefault(int(envelope.sender), [])
        if envelope.body not in bodies:
            bodies.append(envelope.body)
        return True

    def keep_aggregate(self, blob: bytes) -> Digest:
        """Keep an aggregate and return its digest."""
        assert self.world is not None
        digest, found = decode_aggregate(blob, self.world.group.params)
        self.aggregates[digest] = found.participants, found.body
        return digest

    def aggregate(self, node: str, effect: SendAggregate) -> list[tuple[ServerIndex | None, bytes]]:
        """Keep every aggregate."""
        self.keep_aggregate(effect.blob)
        return super().aggregate(node, effect)

    def partial(self, server: ServerIndex, round_number: int, blob: bytes) -> None:
        """Keep every partial."""
        del server, round_number
        self.keep_partial(blob)

    def keep_partial(self, blob: bytes) -> None:
        """Keep a partial, however it was got."""
        assert self.world is not None
        _, found = decode_partial(blob, self.world.group.params)
        key = int(found.round), found.header_hash, found.aggregate
        self.partials[key][int(found.server)] = found.body

    def record(self, record: VerifiedRecord) -> None:
        """Keep every record."""
        self.records.append(record)

    # -- conclusions ---------------------------------------------------------------------------

    def clear_sets(self, record: VerifiedRecord) -> Iterator[tuple[frozenset[int], bytes]]:
        """Yield every set of clients whose clear vectors' XOR is known for a record's round."""
        header = record.record.content.header
        whole: list[tuple[frozenset[int], bytes]] = []
        for (number, header_hash, digest), partials in self.partials.items():
            if (number, header_hash) != (int(header.round), header.hash):
                continue
            if set(partials) >= {int(s) for s in header.roster} and digest in self.aggregates:
                participants, body = self.aggregates[digest]
                clear = xor(body, *(partials[int(server)] for server in header.roster))
                whole.append((frozenset(map(int, participants)), clear))
        yield from whole
        for (one, clear), (other, known) in combinations(whole, 2):
            if one != other:
                yield one ^ other, xor(clear, known)
        for sender, bodies in self.envelopes.get((int(header.round), header.hash), {}).items():
            for body, again in combinations(bodies, 2):
                yield frozenset((sender,)), xor(body, again)

    def participants_of(self, record: VerifiedRecord) -> frozenset[int]:
        """Return who took part in a record's round, as every aggregator and server knows."""
        header = record.record.content.header
        count = record.record.content.participants
        for number, header_hash, digest in self.partials:
            if (number, header_hash) == (int(header.round), header.hash):
                participants, _ = self.aggregates.get(digest, (None, b""))
                if participants is not None and len(participants) == count:
                    return frozenset(map(int, participants))
        return frozenset()

    def exposures(self) -> list[Exposure]:
        """Return what is known of the author of every message in the records."""
        assert self.world is not None
        width = self.world.group.params.slot_bytes
        found: list[Exposure] = []
        for record in self.records:
            everybody = self.participants_of(record)
            sets = list(self.clear_sets(record))
            for slot, fragment in record.fragments.items():
                raw = record.record.content.slots[slot]
                candidates = set(everybody)
                for members, clear in sets:
                    at = clear[slot * width : (slot + 1) * width]
                    if at == raw:
                        candidates &= members
                    elif not any(at):
                        candidates -= members
                found.append(Exposure(fragment.message_id, frozenset(candidates), everybody))
        return found

    def index_of_author(self, message: MessageId) -> int | None:
        """Return who really wrote a message: what adversaries are measured by."""
        assert self.world is not None
        name = self.world.truth.get(message)
        for client in self.world.clients:
            if client.name == name and client.machine.index is not None:
                return int(client.machine.index)
        return None


def xor(*parts: bytes) -> bytes:
    """Return the XOR of vectors of one length."""
    total = 0
    for part in parts:
        total ^= int.from_bytes(part, "big")
    return total.to_bytes(len(parts[0]), "big")

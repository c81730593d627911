"""What a publisher still has to say: messages in order, and where their fragments are.

A fragment is *waiting* (needs a slot), *in flight* (left in the envelope of a round whose outcome
is not known) or *placed* (a verified record shows it). Rules:

1. Fragments leave in the order their messages were queued.
2. A fragment in flight is never sent again until its round is known to have failed it, and a
   placed fragment never is.
3. Only verified records place fragments; only the record chain or a signed header says that a
   round failed.
4. A message that was given up after part of it had left is remembered for a while: records may
   still show it, and the same message queued again goes on where it was.

The publisher machine decides when; this module only keeps the books.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zipnet.protocol.ids import Digest, MessageId, RoundNumber, SlotIndex
    from zipnet.protocol.record import Record, VerifiedRecord
    from zipnet.protocol.slots import Fragment

__all__ = ["Outgoing", "Placement", "QueuedMessage", "Receipt"]

_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one fragment was broadcast.

    Attributes:
        round: Round of the record.
        sequence: The record's position in the log.
        slot: Slot of the round that holds the fragment.
        record_hash: Hash of the verified record.
        participants: Clients that took part in that round.
        record: The record itself, as it was verified.
    """

    round: RoundNumber
    sequence: int
    slot: SlotIndex
    record_hash: Digest
    participants: int
    record: Record = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a whole message stands in verified records.

    Attributes:
        message_id: The message's random id.
        placements: One entry per fragment, in fragment order.
    """

    message_id: MessageId
    placements: tuple[Placement, ...]

    @property
    def round(self) -> RoundNumber:
        """The round that completed the message."""
        return max(p.round for p in self.placements)

    @property
    def sequence(self) -> int:
        """Log position of the record that completed the message."""
        return max(p.sequence for p in self.placements)

    @property
    def participants(self) -> int:
        """Size of the smallest crowd any of the fragments was sent in."""
        return min(p.participants for p in self.placements)

    @property
    def slots(self) -> tuple[SlotIndex, ...]:
        """The fragments' slots, in fragment order; with several rounds, each in its own round."""
        return tuple(p.slot for p in self.placements)

    @property
    def record_hashes(self) -> tuple[Digest, ...]:
        """Hashes of the records that hold the message, in log order, each once."""
        by_sequence = {p.sequence: p.record_hash for p in self.placements}
        return tuple(by_sequence[sequence] for sequence in sorted(by_sequence))

    @property
    def proof(self) -> tuple[bytes, ...]:
        """The co-signed records that hold the message, in log order: proof for anyone.

        With the descriptor alone ``zipnet.verify_proof`` gets the message back out of them.
        """
        by_sequence = {p.sequence: p.record for p in self.placements}
        return tuple(by_sequence[sequence].encode() for sequence in sorted(by_sequence))


@dataclass(slots=True)
class QueuedMessage:
    """One message on its way.

    Attributes:
        ticket: The driver's number for it.
        fragments: All fragments in order.
        deadline: Monotonic time at which it is given up.
    """

    ticket: int
    fragments: tuple[Fragment, ...] = field(repr=False)
    deadline: float
    placed: dict[int, Placement] = field(default_factory=dict)
    in_flight: dict[int, RoundNumber] = field(default_factory=dict)
    left_in: set[RoundNumber] = field(default_factory=set)

    @property
    def message_id(self) -> MessageId:
        """The message's random id."""
        return self.fragments[0].message_id

    def waiting(self) -> Iterator[Fragment]:
        """Yield the fragments that need a slot, in order."""
        for fragment in self.fragments:
            if fragment.index not in self.placed and fragment.index not in self.in_flight:
                yield fragment

    def receipt(self) -> Receipt | None:
        """Return the receipt once every fragment is placed."""
        if len(self.placed) < len(self.fragments):
            return None
        return Receipt(self.message_id, tuple(self.placed[f.index] for f in self.fragments))


class Outgoing:
    """All messages on their way, oldest first, and the last ones that were given up."""

    __slots__ = ("_flights", "_given_up", "_messages")

    def __init__(self) -> None:
        self._messages: dict[int, QueuedMessage] = {}
        self._given_up: OrderedDict[MessageId, QueuedMessage] = OrderedDict()
        # Per round the messages and fragment indexes that left in its envelope.
        self._flights: dict[RoundNumber, list[tuple[QueuedMessage, int]]] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: QueuedMessage) -> QueuedMessage:
        """Queue a message behind all others; one that was given up before goes on where it was."""
        known = self._given_up.pop(message.message_id, None)
        if known is not None:
            known.ticket, known.deadline = message.ticket, message.deadline
            message = known
        self._messages[message.ticket] = message
        return message

    def drop(self, ticket: int) -> QueuedMessage | None:
        """Forget a message: what already left is not recalled, nothing more of it is sent."""
        message = self._messages.pop(ticket, None)
        if message is not None and message.left_in:
            self._given_up[message.message_id] = message
            if len(self._given_up) > _REMEMBERED:
                self._given_up.popitem(last=False)
        return message

    def deliver(self, ticket: int) -> None:
        """Forget a message whose receipt was given."""
        self._messages.pop(ticket, None)

    def expired(self, now: float) -> list[QueuedMessage]:
        """Return the messages whose deadline has passed."""
        return [m for m in self._messages.values() if m.deadline <= now]

    def next_deadline(self) -> float | None:
        """Return the earliest deadline there is."""
        return min((m.deadline for m in self._messages.values()), default=None)

    def waiting_count(self) -> int:
        """Return how many fragments need a slot."""
        return sum(1 for m in self._messages.values() for _ in m.waiting())

    @property
    def rounds_in_flight(self) -> tuple[RoundNumber, ...]:
        """Rounds whose outcome somebody waits for, ascending."""
        return tuple(sorted(self._flights))

    def aboard(self, round_number: RoundNumber) -> list[QueuedMessage]:
        """Return the messages that have fragments in the envelope of a round, each once."""
        found = {id(m): m for m, _ in self._flights.get(round_number, ())}
        return [m for m in found.values() if m.ticket in self._messages]

    def board(
        self, round_number: RoundNumber, slots: Sequence[SlotIndex]
    ) -> list[tuple[SlotIndex, Fragment]]:
        """Put waiting fragments into the granted slots of a round, in order."""
        waiting = [(m, f) for m in self._messages.values() for f in m.waiting()]
        boarded: list[tuple[SlotIndex, Fragment]] = []
        for slot, (message, fragment) in zip(slots, waiting, strict=False):
            message.in_flight[fragment.index] = round_number
            message.left_in.add(round_number)
            self._flights.setdefault(round_number, []).append((message, fragment.index))
            boarded.append((slot, fragment))
        return boarded

    def land(self, record: VerifiedRecord) -> list[tuple[QueuedMessage, int]]:
        """Settle every flight up to a record's round; return messages and what it placed of each.

        Flights of earlier rounds had no record of their own, so they broadcast nothing. What the
        record shows is looked up by content: a fragment that was given up too early, on the word
        of a lying header, is still found.
        """
        for number in [r for r in self._flights if r <= record.round]:
            self._recall(number)
        by_id = {**self._given_up, **{m.message_id: m for m in self._messages.values()}}
        placed: Counter[MessageId] = Counter()
        for slot, fragment in sorted(record.fragments.items()):
            message = by_id.get(fragment.message_id)
            if message is None or fragment.index in message.placed:
                continue
            if fragment in message.fragments:
                message.placed[fragment.index] = _placement(record, slot)
                placed[message.message_id] += 1
        told = [(by_id[message_id], count) for message_id, count in placed.items()]
        return [(message, count) for message, count in told if message.ticket in self._messages]

    def abandon_after(self, round_number: RoundNumber) -> None:
        """Make the fragments of all later rounds wait again: a signed header says they failed."""
        for number in [r for r in self._flights if r > round_number]:
            self._recall(number)

    def _recall(self, round_number: RoundNumber) -> None:
        for message, index in self._flights.pop(round_number, ()):
            if message.in_flight.get(index) == round_number:
                del message.in_flight[index]

    def unsent(self, round_number: RoundNumber) -> None:
        """Note that the envelope of a round never left this process."""
        for message, _ in self._flights.get(round_number, ()):
            message.left_in.discard(round_number)
        self._recall(round_number)


def _placement(record: VerifiedRecord, slot: SlotIndex) -> Placement:
    return Placement(
        record.round,
        record.sequence,
        slot,
        record.hash,
        record.record.content.participants,
        record.record,
    )

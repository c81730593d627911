"""The reader: verified records in, whole messages out (protocol.md §5, §6 "Record", §8.7).

Rules:

1. Records are read in log order without a gap. The first must be the one asked for; from sequence
   0 on the chain is complete, from any other it is checked from there on.
2. Only verified records come in; one that does not extend the one before it is refused, changes
   nothing, and tells the driver to ask another server.
3. Fragments are put together in bounded memory. What is given up is said, never dropped silently.
4. A message is told once, however often its fragments are broadcast.
5. Rounds that ended without a record are told too: the signed headers say which.
6. From a bookmark, records are read again for their fragments and told of only where it stands; the
   record there must extend the one the bookmark names.

Fetching, following and verification of signatures belong to the driver (``zipnet.sdk.reader``).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zipnet.errors import VerificationError
from zipnet.machines.bookmark import Bookmark
from zipnet.protocol.ids import RoundNumber
from zipnet.protocol.record import ZERO_RECORD_HASH, require_extends
from zipnet.protocol.slots import Reassembler

if TYPE_CHECKING:
    from zipnet.protocol.ids import MessageId, SlotIndex
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.protocol.slots import Fragment

__all__ = [
    "Advanced",
    "FetchFrom",
    "Message",
    "MessageLost",
    "ReaderEffect",
    "ReaderMachine",
    "RecordArrived",
    "RefuseRecord",
    "RoundsSkipped",
    "VoidSlot",
]

_MAX_TRACKED = 65_536


@dataclass(frozen=True, slots=True)
class RecordArrived:
    """A record arrived and verified."""

    record: VerifiedRecord


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was broadcast in full.

    Attributes:
        round: Round that completed it.
        sequence: Log position of that round's record.
        slots: The slots it stands in, in fragment order; with several rounds each in its own.
        message_id: Its random id.
        payload: What was sent.
    """

    round: RoundNumber
    sequence: int
    slots: tuple[SlotIndex, ...]
    message_id: MessageId
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class VoidSlot:
    """A slot in which a collision or a corruption destroyed what was sent."""

    round: RoundNumber
    sequence: int
    slot: SlotIndex


@dataclass(frozen=True, slots=True)
class MessageLost:
    """A message of which not all fragments came was given up.

    Attributes:
        message_id: Its id.
        received: Fragments that had come.
        count: Fragments it was said to have.
        reason: ``age``, ``messages`` or ``bytes``: the bound that was reached.
    """

    message_id: MessageId
    received: int
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class RoundsSkipped:
    """Rounds that were opened and given up: they broadcast nothing.

    Attributes:
        first: The first of them.
        last: The last of them.
        sequence: The record whose header says so.
    """

    first: RoundNumber
    last: RoundNumber
    sequence: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """The record is part of the chain; everything it holds has been told before this."""

    record: VerifiedRecord


@dataclass(frozen=True, slots=True)
class FetchFrom:
    """Records from this sequence number on are missing; get them first."""

    from_sequence: int


@dataclass(frozen=True, slots=True)
class RefuseRecord:
    """The record does not continue the chain; another server may have the right one."""

    reason: str
    text: str


ReaderEffect = (
    Message | VoidSlot | MessageLost | RoundsSkipped | Advanced | FetchFrom | RefuseRecord
)


@dataclass(slots=True)
class _Places:
    """Where the fragments of an incomplete message stood, and the first of the records."""

    since: int
    slots: dict[int, SlotIndex] = field(default_factory=dict)


class ReaderMachine:
    """One pass over the record log.

    Args:
        from_sequence: First record to read; None starts with the first that arrives.
        resume: Where an earlier pass left off; takes the place of ``from_sequence``.
        reassembler: Bounds of what is kept for incomplete messages.
    """

    def __init__(
        self,
        from_sequence: int | None = 0,
        *,
        resume: Bookmark | None = None,
        reassembler: Reassembler | None = None,
    ) -> None:
        self._resume = resume
        self._expected = from_sequence if resume is None else resume.replay_from
        self._last: VerifiedRecord | None = None
        self._reassembler = reassembler or Reassembler()
        # Where fragments stood, for messages that are not complete yet; oldest first.
        self._places: OrderedDict[MessageId, _Places] = OrderedDict()
        self._tracked = 0

    @property
    def next_sequence(self) -> int | None:
        """The sequence number that is read next; None before the first record of all."""
        return self._expected

    @property
    def last(self) -> VerifiedRecord | None:
        """The newest record of the chain."""
        return self._last

    @property
    def bookmark(self) -> Bookmark | None:
        """Where this pass stands; None before its first record, unless it came from a bookmark."""
        if self._last is None or self._expected is None:
            return self._resume
        if self._resume is not None and self._expected < self._resume.sequence:
            return self._resume
        oldest = min((places.since for places in self._places.values()), default=self._expected)
        version = self._last.record.content.header.descriptor_version
        return Bookmark(self._expected, self._last.hash, oldest, int(version))

    def step(self, event: RecordArrived, now: float = 0.0) -> list[ReaderEffect]:
        """Take one verified record and return what it tells, in slot order. Time plays no part."""
        del now
        record = event.record
        expected = record.sequence if self._expected is None else self._expected
        if record.sequence < expected:
            return self._on_known(record)
        if record.sequence > expected:
            return [FetchFrom(expected)]
        if self._last is not None or record.sequence == 0:
            try:
                require_extends(record, self._last)
            except VerificationError as error:
                return [RefuseRecord(error.reason, str(error))]
        if self._resume is not None and record.sequence == self._resume.sequence:
            header = record.record.content.header
            if header.previous_record != (self._resume.record_hash or ZERO_RECORD_HASH):
                return [RefuseRecord("bookmark", "the log is another one than the bookmark's")]
            if header.descriptor_version < self._resume.version:
                text = f"record {record.sequence} is of an older version than the bookmark's"
                return [RefuseRecord("verification", text)]
        return self._advance(record)

    def _on_known(self, record: VerifiedRecord) -> list[ReaderEffect]:
        last = self._last
        if last is not None and record.sequence == last.sequence and record.hash != last.hash:
            return [RefuseRecord("verification", f"record {record.sequence} exists twice")]
        return []

    def _advance(self, record: VerifiedRecord) -> list[ReaderEffect]:
        self._last = record
        self._expected = record.sequence + 1
        told: list[tuple[SlotIndex, ReaderEffect]] = [
            (slot, VoidSlot(record.round, record.sequence, slot)) for slot in record.void_slots
        ]
        for slot, fragment in sorted(record.fragments.items()):
            message = self._offer(record, slot, fragment)
            told += [(slot, effect) for effect in ([message] if message else [])]
            told += [(slot, effect) for effect in self._lost()]
        told.sort(key=lambda item: item[0])
        if self._resume is not None and record.sequence < self._resume.sequence:
            return []  # told before the bookmark was made
        return [*_skipped(record), *(effect for _, effect in told), Advanced(record)]

    def _offer(self, record: VerifiedRecord, slot: SlotIndex, fragment: Fragment) -> Message | None:
        self._track(record, fragment, slot)
        payload = self._reassembler.offer(record.round, fragment)
        if payload is None:
            return None
        places = self._forget(fragment.message_id)
        slots = tuple(places[i] for i in range(fragment.count) if i in places)
        return Message(record.round, record.sequence, slots, fragment.message_id, payload)

    def _track(self, record: VerifiedRecord, fragment: Fragment, slot: SlotIndex) -> None:
        places = self._places.setdefault(fragment.message_id, _Places(record.sequence)).slots
        self._tracked += fragment.index not in places
        places[fragment.index] = slot
        while self._tracked > _MAX_TRACKED:
            self._forget(next(iter(self._places)))

    def _forget(self, message_id: MessageId) -> dict[int, SlotIndex]:
        forgotten = self._places.pop(message_id, None)
        places = {} if forgotten is None else forgotten.slots
        self._tracked -= len(places)
        return places

    def _lost(self) -> list[ReaderEffect]:
        lost: list[ReaderEffect] = []
        for gone in self._reassembler.take_evicted():
            self._forget(gone.message_id)
            lost.append(MessageLost(gone.message_id, gone.received, gone.count, gone.reason))
        return lost


def _skipped(record: VerifiedRecord) -> list[ReaderEffect]:
    """The rounds between a record and the one before it, if there are any."""
    first = RoundNumber(record.record.content.header.previous_final + 1)
    if first == record.round:
        return []
    return [RoundsSkipped(first, RoundNumber(record.round - 1), record.sequence)]

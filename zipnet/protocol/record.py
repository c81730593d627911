"""The record: what a round broadcast, co-signed by the committee (protocol.md §6 "Record").

A record is *content* (header, sequence, participant count and salted commitment, slots, reservation
vector) plus the hybrid signatures of the committee over its hash. Anyone verifies it with the
descriptor alone; parsing gives :class:`Record`, only :func:`verify_record` gives a
:class:`VerifiedRecord`.

Slots are stored sparsely: empty ones cost one byte, void ones keep their bytes so that every
reader can see for itself that the tag fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.protocol.encoding import Reader, Writer
from zipnet.protocol.header import RoundHeader
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES, PublicIdentity, verify_hybrid
from zipnet.protocol.ids import Digest, RoundNumber, ServerIndex, SlotIndex, derive
from zipnet.protocol.reservation import schedule_hash
from zipnet.protocol.slots import Fragment, SlotState, decode_slot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.params import RoundParams

__all__ = [
    "RECORD_SIGNATURE_USE",
    "ZERO_RECORD_HASH",
    "Record",
    "RecordContent",
    "VerifiedRecord",
    "assemble_content",
    "decode_record",
    "require_extends",
    "require_version_from",
    "verify_record",
]

RECORD_SIGNATURE_USE = "record"
ZERO_RECORD_HASH = Digest(bytes(32))
_LAYOUT = 1
_MAX_HEADER = 512
_MAX_BODY = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RecordContent:
    """Everything of a record that the signatures cover.

    Attributes:
        header: The round's header.
        sequence: Gapless number of the record in the log; the first is 0.
        participants: How many clients took part.
        commitment: Salted commitment to who they were.
        states: One state per slot.
        slots: Raw slots, ``b""`` where empty.
        reservations: The reservation vector's bytes.
    """

    header: RoundHeader
    sequence: int
    participants: int
    commitment: Digest
    states: tuple[SlotState, ...]
    slots: tuple[bytes, ...] = field(repr=False)
    reservations: bytes = field(repr=False)

    def encode_body(self) -> bytes:
        """Lay out slot states, raw non-empty slots and the reservation vector."""
        writer = Writer().u16(len(self.states))
        for state in self.states:
            writer.u8(state.value)
        for raw in self.slots:
            if raw:
                writer.fixed(raw, len(raw))
        return writer.fixed(self.reservations, len(self.reservations)).take()

    def encode(self) -> bytes:
        """Lay the content out (docs/protocol.md, "Record")."""
        return self._encode_with(self.encode_body())

    def _encode_with(self, body: bytes) -> bytes:
        return (
            Writer()
            .u8(_LAYOUT)
            .var16(self.header.encode())
            .u64(self.sequence)
            .u32(self.participants)
            .fixed(self.commitment, 32)
            .var32(body)
            .take()
        )

    @property
    def schedule(self) -> Digest:
        """Schedule hash that the next round's header must name."""
        return schedule_hash(self.reservations)

    @property
    def hash(self) -> Digest:
        """The record hash: what the committee signs and the next header names."""
        return derive("record", self.encode(), self.schedule)


@dataclass(frozen=True, slots=True)
class Record:
    """A record as parsed or assembled; nothing about it has been verified."""

    content: RecordContent
    signatures: tuple[tuple[ServerIndex, bytes], ...] = field(repr=False)

    @property
    def round(self) -> RoundNumber:
        """Round the record is of."""
        return self.content.header.round

    @property
    def sequence(self) -> int:
        """Position of the record in the log."""
        return self.content.sequence

    def encode(self) -> bytes:
        """Lay the record out as the bytes that are stored and served."""
        writer = Writer().var32(self.content.encode()).u8(len(self.signatures))
        for server, signature in self.signatures:
            writer.u8(server).fixed(signature, HYBRID_SIGNATURE_BYTES)
        return writer.take()


@dataclass(frozen=True, slots=True)
class VerifiedRecord:
    """A record whose signatures, roster and slots have all been checked.

    Attributes:
        record: The record itself.
        hash: Its record hash.
        fragments: The fragment of each valid slot.
    """

    record: Record
    hash: Digest
    fragments: Mapping[SlotIndex, Fragment] = field(repr=False)

    @property
    def round(self) -> RoundNumber:
        """Round the record is of."""
        return self.record.round

    @property
    def sequence(self) -> int:
        """Position of the record in the log."""
        return self.record.sequence

    @property
    def void_slots(self) -> tuple[SlotIndex, ...]:
        """Slots in which a collision or a corruption destroyed what was sent."""
        states = self.record.content.states
        return tuple(SlotIndex(i) for i, s in enumerate(states) if s is SlotState.VOID)


def assemble_content(
    header: RoundHeader,
    *,
    sequence: int,
    participants: int,
    commitment: Digest,
    clear_body: bytes | bytearray | memoryview,
    params: RoundParams,
) -> RecordContent:
    """Split the unblinded round vector into a record's content."""
    header_hash = header.hash
    states: list[SlotState] = []
    slots: list[bytes] = []
    view = memoryview(clear_body)
    for index in range(params.num_slots):
        raw = bytes(view[index * params.slot_bytes : (index + 1) * params.slot_bytes])
        state, _ = decode_slot(raw, params, header_hash, SlotIndex(index))
        states.append(state)
        slots.append(b"" if state is SlotState.EMPTY else raw)
    return RecordContent(
        header=header,
        sequence=sequence,
        participants=participants,
        commitment=commitment,
        states=tuple(states),
        slots=tuple(slots),
        reservations=bytes(view[params.matrix_bytes : params.body_bytes]),
    )


def decode_record(data: bytes, params: RoundParams) -> Record:
    """Parse a stored or served record.

    Raises:
        RemoteProtocolError: When the bytes are not exactly one record of this group's shape.
    """
    reader = Reader(data)
    content = _decode_content(reader.var32(max_len=_MAX_BODY + _MAX_HEADER), params)
    count = reader.u8()
    signatures = tuple(
        (ServerIndex(reader.u8()), reader.fixed(HYBRID_SIGNATURE_BYTES)) for _ in range(count)
    )
    reader.finish()
    servers = [server for server, _ in signatures]
    if servers != sorted(set(servers)):
        raise RemoteProtocolError("record signatures are not in ascending server order")
    return Record(content, signatures)


def _decode_content(data: bytes, params: RoundParams) -> RecordContent:
    reader = Reader(data)
    if reader.u8() != _LAYOUT:
        raise RemoteProtocolError("unknown record layout")
    header = RoundHeader.decode(reader.var16(max_len=_MAX_HEADER))
    sequence = reader.u64()
    participants = reader.u32()
    commitment = Digest(reader.fixed(32))
    body = Reader(reader.var32(max_len=_MAX_BODY))
    reader.finish()
    if body.u16() != params.num_slots:
        raise RemoteProtocolError("record has another number of slots than the group")
    try:
        states = tuple(SlotState(body.u8()) for _ in range(params.num_slots))
    except ValueError as error:
        raise RemoteProtocolError("record names an unknown slot state") from error
    slots = tuple(
        b"" if state is SlotState.EMPTY else body.fixed(params.slot_bytes) for state in states
    )
    reservations = body.fixed(params.reservation_bytes)
    body.finish()
    return RecordContent(header, sequence, participants, commitment, states, slots, reservations)


def verify_record(record: Record, descriptor: TrustedDescriptor) -> VerifiedRecord:
    """Verify a record with the descriptor alone.

    Raises:
        VerificationError: When any step fails; the message names the step.
    """
    content = record.content
    header = content.header
    # 1. It is a record of this group, with a roster the descriptor allows (protocol.md §8.4):
    #    the version of it that the round was held under.
    if header.group != descriptor.group:
        raise VerificationError("record belongs to another group")
    descriptor = descriptor.at(header.descriptor_version)
    descriptor.require_roster(header.roster)
    # 2. It was not unblinded for fewer clients than the group's minimum (§8.3).
    if content.participants < descriptor.params.min_participants:
        raise VerificationError(
            f"record counts {content.participants} participants, "
            f"the group's minimum is {descriptor.params.min_participants}"
        )
    # 3. The committee's signatures: enough of them, all from the roster, all valid.
    record_hash = content.hash
    _require_signatures(record, record_hash, descriptor)
    # 4. Each slot is what the record says it is.
    fragments = _require_slots(content, descriptor.params)
    return VerifiedRecord(record, record_hash, fragments)


def _require_signatures(record: Record, record_hash: Digest, descriptor: TrustedDescriptor) -> None:
    roster = record.content.header.roster
    signers = {server for server, _ in record.signatures}
    if not signers <= set(roster):
        raise VerificationError("record is signed by a server outside its roster")
    if len(signers) < descriptor.required_signatures:
        raise VerificationError(
            f"record has {len(signers)} signatures, {descriptor.required_signatures} are required"
        )
    committee: Sequence[PublicIdentity] = descriptor.committee
    for server, signature in record.signatures:
        verify_hybrid(committee[server], RECORD_SIGNATURE_USE, record_hash, signature)


def _require_slots(content: RecordContent, params: RoundParams) -> dict[SlotIndex, Fragment]:
    header_hash = content.header.hash
    empty = bytes(params.slot_bytes)
    fragments: dict[SlotIndex, Fragment] = {}
    for position, (state, raw) in enumerate(zip(content.states, content.slots, strict=True)):
        index = SlotIndex(position)
        found, fragment = decode_slot(raw or empty, params, header_hash, index)
        if found is not state:
            raise VerificationError(f"slot {position} is {found.name}, recorded as {state.name}")
        if fragment is not None:
            fragments[index] = fragment
    return fragments


def require_extends(record: VerifiedRecord, previous: VerifiedRecord | None) -> None:
    """Check that a record follows the previous one without a gap or a fork.

    Versions of the descriptor only grow along the log: whoever has the keys of servers that were
    replaced cannot continue it.

    Args:
        record: The newer record.
        previous: The record before it, or None when ``record`` must be the first (sequence 0).

    Raises:
        VerificationError: When sequence, round or hash do not continue the chain.
    """
    header = record.record.content.header
    sequence = 0 if previous is None else previous.sequence + 1
    last_round = RoundNumber(0) if previous is None else previous.round
    last_hash = ZERO_RECORD_HASH if previous is None else previous.hash
    if record.sequence != sequence:
        raise VerificationError(f"record {record.sequence} follows where {sequence} is due")
    if header.previous_final != last_round or header.previous_record != last_hash:
        raise VerificationError(f"record {record.sequence} does not extend the one before it")
    if previous is not None:
        require_version_from(record, previous)


def require_version_from(record: VerifiedRecord, older: VerifiedRecord) -> None:
    """Check that a record is of no older version of the descriptor than one before it.

    Raises:
        VerificationError: When it is.
    """
    version = record.record.content.header.descriptor_version
    known = older.record.content.header.descriptor_version
    if version < known:
        raise VerificationError(
            f"record {record.sequence} is of version {version} after version {known}"
        )

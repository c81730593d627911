"""The messages that travel inside frames, as strict msgspec types (protocol.md §6, §7).

Kinds below 16 belong to the session layer (HELLO, pings, refusals); see ``handshake`` and
``frames``. Everything signed or hashed travels here as opaque bytes and is parsed by
``zipnet.protocol``; nothing is hashed by re-encoding a message.

Rules:

1. Unknown fields, wrong types and oversize values are refused: ``decode`` raises
   ``RemoteProtocolError`` and nothing else.
2. A request gets exactly one response of its paired type, or a refusal.
3. Consensus traffic (``CONSENSUS``) is the engine's own codec and is carried as raw payload.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from zipnet.errors import RemoteProtocolError
from zipnet.wire.handshake import MAX_EVIDENCE_BYTES

__all__ = [
    "Accepted",
    "Blob",
    "Clock",
    "Crowd",
    "DescriptorFile",
    "GetBlob",
    "GetCheckpoint",
    "GetClock",
    "GetCrowd",
    "GetDescriptor",
    "GetKemEvidence",
    "GetKemKeys",
    "GetRecords",
    "GetRegistry",
    "GetVersion",
    "KemEvidence",
    "KemKeys",
    "Kind",
    "Message",
    "PresentCapability",
    "PutBlob",
    "RecordSealed",
    "Records",
    "Register",
    "Registered",
    "RegistryPage",
    "Revoked",
    "RoundAborted",
    "RoundOpened",
    "Seat",
    "SignedCheckpoint",
    "SubmitAggregate",
    "SubmitEnvelope",
    "Subscribe",
    "Subscribed",
    "TakeSeat",
    "Version",
    "VersionAdopted",
    "decode",
    "encode",
]

MAX_RECORDS_PER_PAGE = 64
MAX_CHANGES_PER_PAGE = 4096
MAX_STATEMENTS_PER_PUSH = 256

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Bulk = Annotated[bytes, Meta(max_length=1024 * 1024)]
SmallBlob = Annotated[bytes, Meta(max_length=64 * 1024)]
EvidenceBlob = Annotated[bytes, Meta(max_length=MAX_EVIDENCE_BYTES)]


class Kind(IntEnum):
    """Frame kinds of this layer."""

    GET_KEM_KEYS = 16
    REGISTER = 17
    SUBSCRIBE = 18
    ROUND_OPENED = 19
    RECORD_SEALED = 20
    ROUND_ABORTED = 21
    GET_RECORDS = 22
    GET_REGISTRY = 23
    SUBMIT_ENVELOPE = 24
    SUBMIT_AGGREGATE = 25
    CONSENSUS = 26
    PUT_BLOB = 27
    GET_BLOB = 28
    GET_CROWD = 29
    GET_KEM_EVIDENCE = 30
    SEAT = 31
    GET_CLOCK = 32
    PRESENT_CAPABILITY = 33
    REVOKED = 34
    GET_CHECKPOINT = 35
    GET_VERSION = 36
    GET_DESCRIPTOR = 37
    VERSION_ADOPTED = 38


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all messages: frozen, no unknown fields, bodies never shown by ``repr``."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class GetKemKeys(Message, frozen=True, kw_only=True):
    """Ask a server for the committee's current KEM announcements."""


class KemKeys(Message, frozen=True, kw_only=True):
    """One signed announcement blob per committee server, in server order.

    Attributes:
        announcements: The announcements.
        evidence: What vouches for each of them, in a group that gates its committee; else empty.
    """

    announcements: Annotated[list[SmallBlob], Meta(max_length=16)]
    evidence: Annotated[list[EvidenceBlob], Meta(max_length=16)]


class GetKemEvidence(Message, frozen=True, kw_only=True):
    """Ask another server for the evidence that vouches for its announced KEM key."""

    announcement: Bytes32


class KemEvidence(Message, frozen=True, kw_only=True):
    """A server's evidence for its announced KEM key."""

    evidence: EvidenceBlob


class Register(Message, frozen=True, kw_only=True):
    """Ask a server to put a signed registration into the registry.

    Attributes:
        registration: The signed registration.
        evidence: The evidence it names, in a group that gates its clients.
    """

    registration: SmallBlob
    evidence: EvidenceBlob | None


class Registered(Message, frozen=True, kw_only=True):
    """The registration is committed.

    Attributes:
        index: The client's registry index.
        version: Registry version that added it.
        first_round: First round number the registration is good for; its chains start there.
    """

    index: Number
    version: Number
    first_round: Number


class Subscribe(Message, frozen=True, kw_only=True):
    """Ask for pushes of headers, records and aborts, after replaying from ``from_sequence``.

    ``from_sequence`` None means: from now on.
    """

    from_sequence: Number | None


class Subscribed(Message, frozen=True, kw_only=True):
    """The subscription stands.

    Attributes:
        next_sequence: Sequence number the next sealed record will have.
        last_record: The latest sealed record, if there is one.
        open_round: Signed header of the round that is open now, if there is one.
    """

    next_sequence: Number
    last_record: Bulk | None
    open_round: SmallBlob | None


class RoundOpened(Message, frozen=True, kw_only=True):
    """A round opened; ``header`` is a signed header."""

    header: SmallBlob


class RecordSealed(Message, frozen=True, kw_only=True):
    """A record became final."""

    record: Bulk


class RoundAborted(Message, frozen=True, kw_only=True):
    """A round was given up; ``why`` is an ``AbortReason`` number."""

    round: Number
    why: Annotated[int, Meta(ge=0, le=255)]


class VersionAdopted(Message, frozen=True, kw_only=True):
    """The committee goes by this version of the descriptor; a hint to ask for it, not signed."""

    version: Number


class GetRecords(Message, frozen=True, kw_only=True):
    """Ask for up to ``limit`` records from a sequence number on."""

    from_sequence: Number
    limit: Annotated[int, Meta(ge=1, le=MAX_RECORDS_PER_PAGE)]


class Records(Message, frozen=True, kw_only=True):
    """Records in sequence order, and how many the server has in all."""

    records: Annotated[list[Bulk], Meta(max_length=MAX_RECORDS_PER_PAGE)]
    next_sequence: Number


class GetCheckpoint(Message, frozen=True, kw_only=True):
    """Ask a server for its signed checkpoint of the record log."""


class SignedCheckpoint(Message, frozen=True, kw_only=True):
    """A checkpoint as a signed note (``zipnet.ledger.checkpoint``)."""

    note: SmallBlob


class GetRegistry(Message, frozen=True, kw_only=True):
    """Ask for registry changes from a version on (aggregators and servers only)."""

    from_version: Number


class RegistryPage(Message, frozen=True, kw_only=True):
    """Encoded registry changes in order, and the version that exists in all."""

    changes: Annotated[
        list[Annotated[bytes, Meta(max_length=256)]], Meta(max_length=MAX_CHANGES_PER_PAGE)
    ]
    version: Number


class SubmitEnvelope(Message, frozen=True, kw_only=True):
    """One client's envelope, to its aggregator."""

    round: Number
    header_hash: Bytes32
    sender: Number
    body: Bulk
    signature: Bytes64


class SubmitAggregate(Message, frozen=True, kw_only=True):
    """A folded aggregate blob: leaf to parent, root to servers."""

    aggregate: Bulk


class GetClock(Message, frozen=True, kw_only=True):
    """Ask another server what time it has."""


class Clock(Message, frozen=True, kw_only=True):
    """A server's wall clock, milliseconds since 1970."""

    wall_ms: Number


class GetVersion(Message, frozen=True, kw_only=True):
    """Ask another server which version it runs (row A2)."""


class Version(Message, frozen=True, kw_only=True):
    """The version a server runs."""

    version: Annotated[str, Meta(max_length=64, pattern=r"^(unknown|\d[\w.+!-]*)$")]


class Accepted(Message, frozen=True, kw_only=True):
    """The submission was taken."""


class PresentCapability(Message, frozen=True, kw_only=True):
    """Show a capability for the rest of this session; a later one takes its place."""

    token: Annotated[bytes, Meta(min_length=1, max_length=4096)]


class Revoked(Message, frozen=True, kw_only=True):
    """Statements of what was revoked, pushed by servers to aggregators (protocol.md §7)."""

    statements: Annotated[
        list[Annotated[bytes, Meta(max_length=512)]], Meta(max_length=MAX_STATEMENTS_PER_PUSH)
    ]


class PutBlob(Message, frozen=True, kw_only=True):
    """A content-addressed blob pushed between servers."""

    blob: Bulk


class GetBlob(Message, frozen=True, kw_only=True):
    """Ask another server for the blob with this digest."""

    digest: Bytes32


class Blob(Message, frozen=True, kw_only=True):
    """A blob, or None where the server does not have it (or must not show it yet)."""

    blob: Bulk | None


class GetCrowd(Message, frozen=True, kw_only=True):
    """Ask a server how many clients are registered (row Z19); it is told nothing about who asks."""


class Crowd(Message, frozen=True, kw_only=True):
    """How many clients a server knows as registered and not retired, and at which version."""

    registered: Number
    version: Number


class GetDescriptor(Message, frozen=True, kw_only=True):
    """Ask a node for the file of a version of the descriptor; 0 asks for the newest."""

    version: Annotated[int, Meta(ge=0, lt=1 << 32)]


class DescriptorFile(Message, frozen=True, kw_only=True):
    """A version of the descriptor as its operator signed it; None where it is not known there."""

    file: Annotated[bytes, Meta(max_length=256 * 1024)] | None


class TakeSeat(Message, frozen=True, kw_only=True):
    """A server without memory asks another about its own seat in the consensus engine.

    Attributes:
        member: The id it asks to be seated under; None to ask only.
    """

    member: Number | None


class Seat(Message, frozen=True, kw_only=True):
    """Whether a server's seat is blank: no log here, and no other life of it was ever heard."""

    blank: bool


M = TypeVar("M", bound=Message)
_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[type[Message], msgspec.msgpack.Decoder[Message]] = {
    kind: msgspec.msgpack.Decoder(kind, strict=True)
    for kind in (
        GetKemKeys,
        KemKeys,
        GetKemEvidence,
        KemEvidence,
        Register,
        Registered,
        Subscribe,
        Subscribed,
        RoundOpened,
        RecordSealed,
        RoundAborted,
        VersionAdopted,
        GetRecords,
        Records,
        GetCheckpoint,
        SignedCheckpoint,
        GetRegistry,
        RegistryPage,
        SubmitEnvelope,
        SubmitAggregate,
        GetClock,
        Clock,
        GetVersion,
        Version,
        Accepted,
        PresentCapability,
        Revoked,
        PutBlob,
        GetBlob,
        Blob,
        GetCrowd,
        Crowd,
        GetDescriptor,
        DescriptorFile,
        TakeSeat,
        Seat,
    )
}


def encode(message: Message) -> bytes:
    """Return the payload bytes of a message."""
    return _ENCODER.encode(message)


def decode(payload: bytes, kind: type[M]) -> M:
    """Parse a payload as one type of message.

    Raises:
        RemoteProtocolError: When the bytes are not exactly such a message.
    """
    try:
        message = _DECODERS[kind].decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # ValidationError is a DecodeError; a field name that is no UTF-8 is a plain ValueError. The
        # library's words quote the peer's, at any length, so they stay out of ours.
        raise RemoteProtocolError(f"not a {kind.__name__} message") from error
    if not isinstance(message, kind):
        raise RemoteProtocolError(f"not a {kind.__name__} message")
    return message

"""Commands of the committee's log: small signed facts, never vectors (protocol.md §6).

Every command is signed by its author with Ed25519 over the group and its exact bytes, so a member
that relays another's command, or orders the log, cannot put words into anybody's mouth. Commands
are idempotent: committing one twice changes nothing the second time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, assert_never

from zipnet.errors import RemoteProtocolError
from zipnet.protocol.encoding import Reader, Writer
from zipnet.protocol.header import SignedHeader, decode_roster, encode_roster
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES, verify_ed25519
from zipnet.protocol.ids import (
    Digest,
    GroupId,
    PeerId,
    RegistryIndex,
    RoundNumber,
    ServerIndex,
)
from zipnet.protocol.revocation import MAX_STATEMENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.protocol.identity import Identity

__all__ = [
    "DESCRIPTOR_PART_BYTES",
    "MAX_COMMAND_BYTES",
    "AbortReason",
    "AbortRound",
    "AdoptDescriptor",
    "AnnounceKem",
    "ChooseAggregate",
    "Command",
    "OfferDescriptor",
    "OpenRound",
    "PostPartial",
    "RegisterClient",
    "RetireClient",
    "Revoke",
    "SealRecord",
    "SignRecord",
    "SignedCommand",
    "open_command",
    "sign_command",
]

MAX_COMMAND_BYTES = 8 * 1024
DESCRIPTOR_PART_BYTES = 6 * 1024
"""Bytes of a descriptor's file that one command carries; the last part may have fewer."""
_LAYOUT = 1
_USE = "command"
_SIGNATURE_BYTES = 64
_MAX_HEADER = 512


class AbortReason(IntEnum):
    """Why a round was given up; the number is on the wire, the name in logs and metrics."""

    BELOW_MINIMUM = 1
    NO_AGGREGATE = 2
    PARTIAL_MISSING = 3
    LEADER_CHANGED = 4
    PARTIAL_WITHHELD = 5


@dataclass(frozen=True, slots=True)
class AnnounceKem:
    """The author's KEM key of ``epoch`` is the announcement blob with this digest."""

    epoch: int
    announcement: Digest


@dataclass(frozen=True, slots=True)
class RegisterClient:
    """Add a client whose registration blob the author has verified."""

    peer: PeerId
    ed25519: bytes
    serial: int
    registration: Digest


@dataclass(frozen=True, slots=True)
class RetireClient:
    """Take a registry index out, for good."""

    index: RegistryIndex


@dataclass(frozen=True, slots=True)
class OpenRound:
    """Open a round with this signed header; the author is its opener."""

    signed: SignedHeader


@dataclass(frozen=True, slots=True)
class ChooseAggregate:
    """Choose the aggregate blob a round is unblinded from."""

    round: RoundNumber
    aggregate: Digest
    participants: Digest
    count: int


@dataclass(frozen=True, slots=True)
class PostPartial:
    """The author commits to its partial before anybody's partial is shown."""

    round: RoundNumber
    aggregate: Digest
    partial: Digest


@dataclass(frozen=True, slots=True)
class SignRecord:
    """The author's hybrid signature over a round's record."""

    round: RoundNumber
    record: Digest
    schedule: Digest
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SealRecord:
    """Take the signatures at hand as final, where the descriptor's ``max_absent`` allows it."""

    round: RoundNumber


@dataclass(frozen=True, slots=True)
class AbortRound:
    """Give a round up; ``absent`` names the servers waited for."""

    round: RoundNumber
    why: AbortReason
    absent: tuple[ServerIndex, ...]


@dataclass(frozen=True, slots=True)
class Revoke:
    """Revoke a capability or a peer; the statement says which, and proves who may say so."""

    statement: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class OfferDescriptor:
    """One part of the next version's file, so that the log carries all of it.

    Attributes:
        descriptor: Digest of the whole: of the descriptor, as the version after it names it.
        position: Which part, from 0.
        count: How many there are.
        part: The bytes.
    """

    descriptor: Digest
    position: int
    count: int
    part: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AdoptDescriptor:
    """Go on under the version the author offered before; between two rounds only."""

    version: int
    descriptor: Digest


Command = (
    AnnounceKem
    | RegisterClient
    | RetireClient
    | OpenRound
    | ChooseAggregate
    | PostPartial
    | SignRecord
    | SealRecord
    | AbortRound
    | Revoke
    | OfferDescriptor
    | AdoptDescriptor
)

_KINDS: dict[type, int] = {
    AnnounceKem: 1,
    RegisterClient: 2,
    RetireClient: 3,
    OpenRound: 4,
    ChooseAggregate: 5,
    PostPartial: 6,
    SignRecord: 7,
    SealRecord: 8,
    AbortRound: 9,
    Revoke: 10,
    OfferDescriptor: 11,
    AdoptDescriptor: 12,
}


@dataclass(frozen=True, slots=True)
class SignedCommand:
    """A command whose author's signature has been checked."""

    author: ServerIndex
    command: Command


def sign_command(
    command: Command, author: ServerIndex, group: GroupId, identity: Identity
) -> bytes:
    """Return the bytes of a command as they go into the log."""
    writer = Writer().u8(_LAYOUT).u8(_KINDS[type(command)]).u8(author)
    _write(writer, command)
    body = writer.take()
    return body + identity.sign_ed25519(_USE, bytes(group) + body)


def _write(writer: Writer, command: Command) -> None:  # noqa: C901, PLR0912 - one case per command
    match command:
        case AnnounceKem():
            writer.u64(command.epoch).fixed(command.announcement, 32)
        case RegisterClient():
            writer.fixed(command.peer, 32).fixed(command.ed25519, 32)
            writer.u64(command.serial).fixed(command.registration, 32)
        case RetireClient():
            writer.u64(command.index)
        case OpenRound():
            writer.var16(command.signed.encode())
        case ChooseAggregate():
            writer.u64(command.round).fixed(command.aggregate, 32)
            writer.fixed(command.participants, 32).u32(command.count)
        case PostPartial():
            writer.u64(command.round).fixed(command.aggregate, 32).fixed(command.partial, 32)
        case SignRecord():
            writer.u64(command.round).fixed(command.record, 32).fixed(command.schedule, 32)
            writer.fixed(command.signature, HYBRID_SIGNATURE_BYTES)
        case SealRecord():
            writer.u64(command.round)
        case AbortRound():
            writer.u64(command.round).u8(command.why).u16(encode_roster(command.absent))
        case Revoke():
            writer.var16(command.statement)
        case OfferDescriptor():
            writer.fixed(command.descriptor, 32).u8(command.position).u8(command.count)
            writer.var16(command.part)
        case AdoptDescriptor():
            writer.u32(command.version).fixed(command.descriptor, 32)
        case _:
            assert_never(command)


def open_command(data: bytes, group: GroupId, committee_keys: Sequence[bytes]) -> SignedCommand:
    """Parse a command of the log and check its author's signature.

    Raises:
        RemoteProtocolError: When the bytes are not one command.
        VerificationError: When the author did not sign it for this group.
    """
    if not _SIGNATURE_BYTES < len(data) <= MAX_COMMAND_BYTES:
        raise RemoteProtocolError("command has an impossible size")
    body, signature = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
    reader = Reader(body)
    if reader.u8() != _LAYOUT:
        raise RemoteProtocolError("unknown command layout")
    kind = reader.u8()
    author = ServerIndex(reader.u8())
    if author >= len(committee_keys):
        raise RemoteProtocolError("command is by no member of the committee")
    command = _read(kind, reader)
    reader.finish()
    verify_ed25519(committee_keys[author], _USE, bytes(group) + body, signature)
    return SignedCommand(author, command)


def _read(kind: int, reader: Reader) -> Command:  # noqa: C901, PLR0911, PLR0912 - one return each
    match kind:
        case 1:
            return AnnounceKem(reader.u64(), Digest(reader.fixed(32)))
        case 2:
            peer, key = PeerId(reader.fixed(32)), reader.fixed(32)
            return RegisterClient(peer, key, reader.u64(), Digest(reader.fixed(32)))
        case 3:
            return RetireClient(RegistryIndex(reader.u64()))
        case 4:
            return OpenRound(SignedHeader.decode(reader.var16(max_len=_MAX_HEADER)))
        case 5:
            number = RoundNumber(reader.u64())
            aggregate, participants = Digest(reader.fixed(32)), Digest(reader.fixed(32))
            return ChooseAggregate(number, aggregate, participants, reader.u32())
        case 6:
            number = RoundNumber(reader.u64())
            return PostPartial(number, Digest(reader.fixed(32)), Digest(reader.fixed(32)))
        case 7:
            number = RoundNumber(reader.u64())
            record, schedule = Digest(reader.fixed(32)), Digest(reader.fixed(32))
            return SignRecord(number, record, schedule, reader.fixed(HYBRID_SIGNATURE_BYTES))
        case 8:
            return SealRecord(RoundNumber(reader.u64()))
        case 9:
            return _read_abort(reader)
        case 10:
            return Revoke(reader.var16(max_len=MAX_STATEMENT_BYTES))
        case 11:
            digest, position, count = Digest(reader.fixed(32)), reader.u8(), reader.u8()
            part = reader.var16(max_len=DESCRIPTOR_PART_BYTES)
            return OfferDescriptor(digest, position, count, part)
        case 12:
            return AdoptDescriptor(reader.u32(), Digest(reader.fixed(32)))
        case _:
            raise RemoteProtocolError("unknown kind of command")


def _read_abort(reader: Reader) -> AbortRound:
    number = RoundNumber(reader.u64())
    code = reader.u8()
    absent = decode_roster(reader.u16())
    if code not in AbortReason.__members__.values():
        raise RemoteProtocolError("unknown reason for giving a round up")
    return AbortRound(number, AbortReason(code), absent)

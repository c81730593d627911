"""What engines of one committee say to each other: strict, versioned, size-capped messages.

A message is one version byte, the sender's member id (64 bits) and one MessagePack array, tagged by
kind. Anything else — another version, an unknown kind, a missing or surplus field, a value out of
range, trailing bytes — is refused with :class:`~zipnet.errors.RemoteProtocolError`. There is no
utility message, and no field of a general type.

Differences from the library's own messages, each of which closes a hole:

* :class:`AppendReply` carries the term, so an answer to an earlier leadership is recognised.
* :class:`AppendEntries` carries no entry indexes: entries follow ``prev_index`` without gaps.
* A log entry is a no-op, an opaque command or the committee's members; no other kind can be written
  down.
* A snapshot travels in pieces that name it by digest, so pieces of two never mix.
* The member id says who sits in the sender's seat: what a replaced member said does not count for
  the one that took its place.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from zipnet.consensus.members import MAX_STATE_BYTES
from zipnet.errors import RemoteProtocolError

__all__ = [
    "MAX_BATCH_BYTES",
    "MAX_BATCH_ENTRIES",
    "MAX_CHUNK_BYTES",
    "MAX_COMMAND_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_SNAPSHOT_BYTES",
    "AppendEntries",
    "AppendReply",
    "Entry",
    "InstallReply",
    "InstallSnapshot",
    "Message",
    "RequestVote",
    "Submit",
    "SubmitReply",
    "Vote",
    "decode_message",
    "encode_message",
]

MAX_COMMAND_BYTES: Final = 8 << 10
MAX_BATCH_ENTRIES: Final = 256
MAX_BATCH_BYTES: Final = 64 << 10
#: A full batch, its last command, and 32 bytes per entry of framing.
MAX_MESSAGE_BYTES: Final = MAX_BATCH_BYTES + MAX_COMMAND_BYTES + 32 * MAX_BATCH_ENTRIES

#: A snapshot's piece fits a message like a batch of entries does.
MAX_CHUNK_BYTES: Final = MAX_BATCH_BYTES
MAX_SNAPSHOT_BYTES: Final = MAX_STATE_BYTES + 1024

_VERSION: Final = b"\x02"
_SENDER_BYTES: Final = 8
_MAX_MEMBERS_BYTES: Final = 1 + 16 * 17

Term = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Index = Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)]
Command = Annotated[bytes, msgspec.Meta(max_length=MAX_COMMAND_BYTES)]
RequestId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One log entry: its term, and its command or the members it names; a no-op has neither."""

    term: Term
    command: Command | None
    members: Annotated[bytes, msgspec.Meta(max_length=_MAX_MEMBERS_BYTES)] | None = None


class _Tagged(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag_field="kind"
):
    """Base of all kinds."""


class RequestVote(_Tagged, frozen=True, tag=1):
    """A candidate asks for a vote in ``term``."""

    term: Term
    last_log_index: Index
    last_log_term: Term


class Vote(_Tagged, frozen=True, tag=2):
    """The sender's vote in ``term`` goes to the receiver."""

    term: Term


class AppendEntries(_Tagged, frozen=True, tag=3):
    """The leader of ``term`` asserts its log after ``prev_index``; without entries, a heartbeat."""

    term: Term
    prev_index: Index
    prev_term: Term
    commit_index: Index
    entries: Annotated[list[Entry], msgspec.Meta(max_length=MAX_BATCH_ENTRIES)]


class AppendReply(_Tagged, frozen=True, tag=4):
    """What the sender's log looks like to the leader of ``term``.

    ``success``: everything below ``next_index`` equals the leader's log and is durable.
    Otherwise the leader should go on from ``next_index``.
    """

    term: Term
    next_index: Index
    success: bool


class Submit(_Tagged, frozen=True, tag=5):
    """A follower hands a command to the leader of ``term``; the id is unique across restarts."""

    request_id: RequestId
    term: Term
    command: Command


class SubmitReply(_Tagged, frozen=True, tag=6):
    """Where the command was put (``log_index``, ``log_term``), or why not (``error`` non-zero)."""

    request_id: RequestId
    error: Annotated[int, msgspec.Meta(ge=0, le=15)]
    log_index: Index
    log_term: Term


class InstallSnapshot(_Tagged, frozen=True, tag=7):
    """A piece of the snapshot that ends at ``index``, from the leader of ``term``.

    ``digest`` is BLAKE3 of all ``size`` bytes; ``chunk`` begins at ``offset``.
    """

    term: Term
    index: Index
    digest: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    size: Annotated[int, msgspec.Meta(ge=1, le=MAX_SNAPSHOT_BYTES)]
    offset: Annotated[int, msgspec.Meta(ge=0, lt=MAX_SNAPSHOT_BYTES)]
    chunk: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_CHUNK_BYTES)]


class InstallReply(_Tagged, frozen=True, tag=8):
    """How many bytes of the snapshot that ends at ``index`` the sender holds."""

    term: Term
    index: Index
    offset: Annotated[int, msgspec.Meta(ge=0, lt=MAX_SNAPSHOT_BYTES)]


Message = (
    RequestVote
    | Vote
    | AppendEntries
    | AppendReply
    | Submit
    | SubmitReply
    | InstallSnapshot
    | InstallReply
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode_message(message: Message, *, sender: int) -> bytes:
    """Return the bytes of ``message``, at most :data:`MAX_MESSAGE_BYTES` for what engines build."""
    return _VERSION + sender.to_bytes(_SENDER_BYTES, "big") + _encoder.encode(message)


def decode_message(data: bytes) -> tuple[int, Message]:
    """Parse one message and who sent it.

    Raises:
        RemoteProtocolError: The bytes are no message of this version, or break a bound above.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise RemoteProtocolError(f"a consensus message of {len(data)} bytes is too large")
    if data[:1] != _VERSION:
        raise RemoteProtocolError("a consensus message of another version, or no message at all")
    body = memoryview(data)[1:]
    try:
        message = _decoder.decode(body[_SENDER_BYTES:])
    except (msgspec.DecodeError, RecursionError) as error:
        raise RemoteProtocolError("a consensus message that does not parse") from error
    if isinstance(message, AppendEntries):
        _check_terms(message)
    elif isinstance(message, InstallSnapshot) and (
        message.offset + len(message.chunk) > message.size
    ):
        raise RemoteProtocolError("a piece of a consensus snapshot that ends behind it")
    return int.from_bytes(body[:_SENDER_BYTES], "big"), message


def _check_terms(message: AppendEntries) -> None:
    term = message.prev_term
    for entry in message.entries:
        if not term <= entry.term <= message.term:
            raise RemoteProtocolError("a consensus message whose entries' terms go backwards")
        term = entry.term
        if entry.command is not None and entry.members is not None:
            raise RemoteProtocolError("a consensus message with an entry of two kinds")

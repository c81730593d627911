"""What engines of one committee say to each other: strict, versioned, size-capped messages.

A message is one version byte and one MessagePack array, tagged by kind. Anything else — another
version, an unknown kind, a missing or surplus field, a value out of range, trailing bytes — is
refused with :class:`~zipnet.errors.RemoteProtocolError`. There is no snapshot, membership or
utility message, and no field of a general type.

Differences from the library's own messages, each of which closes a hole:

* :class:`AppendReply` carries the term, so an answer to an earlier leadership is recognised.
* :class:`AppendEntries` carries no entry indexes: entries follow ``prev_index`` without gaps.
* A log entry is a no-op or an opaque command; no other kind can be written down.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from zipnet.errors import RemoteProtocolError

__all__ = [
    "MAX_BATCH_BYTES",
    "MAX_BATCH_ENTRIES",
    "MAX_COMMAND_BYTES",
    "MAX_MESSAGE_BYTES",
    "AppendEntries",
    "AppendReply",
    "Entry",
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

_VERSION: Final = b"\x01"

Term = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Index = Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)]
Command = Annotated[bytes, msgspec.Meta(max_length=MAX_COMMAND_BYTES)]
RequestId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One log entry: its term, and its command, or None for a leader's no-op."""

    term: Term
    command: Command | None


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


Message = RequestVote | Vote | AppendEntries | AppendReply | Submit | SubmitReply

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode_message(message: Message) -> bytes:
    """Return the bytes of ``message``, at most :data:`MAX_MESSAGE_BYTES` for what engines build."""
    return _VERSION + _encoder.encode(message)


def decode_message(data: bytes) -> Message:
    """Parse one message.

    Raises:
        RemoteProtocolError: The bytes are no message of this version, or break a bound above.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise RemoteProtocolError(f"a consensus message of {len(data)} bytes is too large")
    if data[:1] != _VERSION:
        raise RemoteProtocolError("a consensus message of another version, or no message at all")
    try:
        message = _decoder.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, RecursionError) as error:
        raise RemoteProtocolError("a consensus message that does not parse") from error
    if isinstance(message, AppendEntries):
        _check_terms(message)
    return message


def _check_terms(message: AppendEntries) -> None:
    term = message.prev_term
    for entry in message.entries:
        if not term <= entry.term <= message.term:
            raise RemoteProtocolError("a consensus message whose entries' terms go backwards")
        term = entry.term

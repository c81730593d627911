"""Checkpoints of the record log, signed by committee servers (c2sp.org/tlog-checkpoint).

The log's entries are record hashes, 32 bytes each, in sequence order; the tree over them is that of
RFC 6962 §2.1 with SHA-256. Text of a checkpoint::

    <instance>/<first 16 hex digits of the group id>
    <number of records>
    <base64 of the root>

Each server signs what it verified and stored itself, under the name ``<origin>/server-<index>``,
with both halves of its identity. Records cannot fork while one server of a roster is honest, so a
server never signs two checkpoints that no log could have both of; two such checkpoints, or one
that no verified log leads to, are a proof against whoever signed them.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.ledger.note import NoteKey, note_key, parse_note, sign_note
from zipnet.protocol.ids import ServerIndex

if TYPE_CHECKING:
    from zipnet.ledger.note import Note
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.identity import Identity

__all__ = [
    "LogCheckpoint",
    "VerifiedCheckpoint",
    "checkpoint_key",
    "checkpoint_keys",
    "open_checkpoint",
    "origin_of",
    "sign_checkpoint",
]

_ROOT_BYTES: Final = 32
_LINES: Final = 3
_MAX_DIGITS: Final = 19


@dataclass(frozen=True, slots=True)
class LogCheckpoint:
    """How long the log is and what it holds.

    Attributes:
        origin: Which log.
        size: Number of records.
        root: Root over their hashes, 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """A checkpoint and who of the committee signed it.

    Attributes:
        checkpoint: What they signed.
        servers: Who, with both halves of their identity; at least one.
        note: The note it came in.
    """

    checkpoint: LogCheckpoint
    servers: frozenset[ServerIndex]
    note: Note


def origin_of(descriptor: TrustedDescriptor) -> str:
    """Return the name of an instance's record log."""
    return f"{descriptor.descriptor.name}/{descriptor.group.hex()[:16]}"


def checkpoint_key(descriptor: TrustedDescriptor, server: ServerIndex) -> NoteKey:
    """Return the key a server signs checkpoints with."""
    return note_key(_key_name(origin_of(descriptor), server), descriptor.committee[server])


def checkpoint_keys(descriptor: TrustedDescriptor) -> tuple[NoteKey, ...]:
    """Return the keys of every server of every known version of the descriptor."""
    return tuple(
        checkpoint_key(version, ServerIndex(index))
        for version in (descriptor, *descriptor.earlier)
        for index in range(len(version.committee))
    )


def sign_checkpoint(checkpoint: LogCheckpoint, server: ServerIndex, identity: Identity) -> Note:
    """Sign a checkpoint as a committee server.

    Raises:
        LocalProtocolError: When the identity has been closed.
    """
    return sign_note(checkpoint.text, _key_name(checkpoint.origin, server), identity)


def open_checkpoint(data: bytes, descriptor: TrustedDescriptor) -> VerifiedCheckpoint:
    """Parse a checkpoint and verify the committee's signatures on it.

    Lines of keys that are not the committee's, such as witnesses', are kept and not looked at. A
    server's keys of all known versions of the descriptor count as that server's.

    Raises:
        RemoteProtocolError: When it is no checkpoint.
        VerificationError: When it is another log's, a server's line does not verify, or none did
            sign it.
    """
    note = parse_note(data)
    checkpoint = _parse(note.text)
    if checkpoint.origin != origin_of(descriptor):
        raise VerificationError("the checkpoint is of another log")
    signers = frozenset(
        ServerIndex(index)
        for version in (descriptor, *descriptor.earlier)
        for index in range(len(version.committee))
        if note.signed_by(checkpoint_key(version, ServerIndex(index)))
    )
    if not signers:
        raise VerificationError("no committee server signed the checkpoint")
    return VerifiedCheckpoint(checkpoint, signers, note)


def _parse(text: str) -> LogCheckpoint:
    lines = text.removesuffix("\n").split("\n")
    # Extension lines would be signed but nobody could audit them.
    if len(lines) != _LINES or not lines[1].isascii() or not lines[1].isdigit():
        raise RemoteProtocolError("this is no checkpoint of a record log")
    origin, size, encoded = lines
    try:
        root = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        root = b""
    if len(root) != _ROOT_BYTES or len(size) > _MAX_DIGITS:
        raise RemoteProtocolError("size or root of the checkpoint is malformed")
    checkpoint = LogCheckpoint(origin, int(size), root)
    if checkpoint.text != text:
        raise RemoteProtocolError("size or root of the checkpoint is malformed")
    return checkpoint


def _key_name(origin: str, server: ServerIndex) -> str:
    return f"{origin}/server-{server}"

"""A durable outbox: what was asked to be published survives the process, encrypted at rest.

Example::

    outbox = Outbox("outbox.journal", secret)
    async with Publisher(descriptor, outbox=outbox) as publisher:
        for outcome in await publisher.recover():
            ...
        receipt = await publisher.publish(b"not to be lost")

Rules:

1. A message is on the disk before any of it leaves, and struck out once the caller has its outcome.
2. What is found at the next start had no outcome told: it is looked for in the log first, up to the
   last round an earlier process can have been in, and sent again, under its own id, only if it is
   not there. So a crash neither loses nor doubles a message.
3. Entries are sealed with AES-256-GCM under a key derived from the given secret; the file shows how
   many there are and how long, nothing else.
4. Opening and emptying rewrite the file: what was struck out does not stay on the disk, as far as a
   file system overwrites at all (protocol.md §10).
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from zipnet.errors import ConfigError, DuplicateIdentityError, StorageError
from zipnet.protocol.ids import keyed
from zipnet.storage.journal import FileJournal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zipnet.protocol.secret import Secret

__all__ = ["Outbox", "Stored"]

_NONCE_BYTES = 12
_PIECE_BYTES = 512 * 1024
_REWRITE_BYTES = 4 * 1024 * 1024


class _Put(msgspec.Struct, frozen=True, tag="put"):
    number: int
    since: int
    salt: bytes
    piece: int
    pieces: int
    part: bytes


class _Struck(msgspec.Struct, frozen=True, tag="struck"):
    number: int
    since: int


_ENTRY: msgspec.msgpack.Decoder[_Put | _Struck] = msgspec.msgpack.Decoder(_Put | _Struck)


@dataclass(frozen=True, slots=True)
class Stored:
    """A message whose outcome nobody was told.

    Attributes:
        number: Its place in the outbox.
        message: What is to be published.
        salt: Its salt, 8 bytes.
        since: Record of the log from which on it may have been broadcast.
    """

    number: int
    message: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    since: int


class Outbox:
    """Messages on their way, in one file.

    Args:
        path: The file; it is made when it is not there, readable by its owner only.
        secret: What the entries are encrypted with; keep it elsewhere than the file.

    Raises:
        ConfigError: When the file belongs to another secret.
        StorageError: When it cannot be read or written.
        DuplicateIdentityError: When another process holds it.
    """

    def __init__(self, path: str | os.PathLike[str], secret: Secret) -> None:
        self._path = Path(path)
        with secret.reveal() as key:
            self._identity = keyed("outbox-identity", key)
            self._cipher = AESGCM(keyed("outbox-key", key))
        self._known_since = 0
        self._next = 0
        self._pending: dict[int, Stored] = {}
        try:
            self._journal = FileJournal(self._path, identity=self._identity)
        except DuplicateIdentityError as error:
            raise DuplicateIdentityError(
                f"the outbox {self._path} is in use by another process",
                hint="give each process an outbox of its own",
            ) from error
        except ConfigError as error:
            raise self._another_secret() from error
        except StorageError as error:
            raise StorageError(
                str(error), hint="give the outbox a file in a folder that this user can write to"
            ) from error
        try:
            self._load()
            self._rewrite()
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> Self:
        """Return the outbox."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._journal.close()

    def pending(self) -> tuple[Stored, ...]:
        """Return the messages without an outcome, oldest first."""
        return tuple(self._pending.values())

    def put(self, message: bytes, salt: bytes, since: int | None) -> int:
        """Store a message; returns its number once it is durable.

        Args:
            message: What is to be published.
            salt: Its salt.
            since: Next record of the log as far as known; None when nothing was read yet.

        Raises:
            SafeMode: When it could not be made durable.
        """
        self._known_since = max(self._known_since, since or 0)
        stored = Stored(self._next, message, salt, self._known_since)
        self._next += 1
        self._journal.append_group([self._seal(put) for put in _puts(stored)])
        self._pending[stored.number] = stored
        return stored.number

    def strike(self, number: int, since: int | None) -> None:
        """Forget a message whose outcome the caller has.

        Raises:
            SafeMode: When that could not be made durable.
        """
        self._known_since = max(self._known_since, since or 0)
        if self._pending.pop(number, None) is None:
            return
        self._journal.append(self._seal(_Struck(number, self._known_since)))
        if not self._pending and self._path.stat().st_size > _REWRITE_BYTES:
            self._rewrite()

    def _load(self) -> None:
        parts: dict[int, list[_Put]] = {}
        for sealed in self._journal.entries():
            entry = self._open(sealed)
            self._known_since = max(self._known_since, entry.since)
            self._next = max(self._next, entry.number + 1)
            if isinstance(entry, _Struck):
                parts.pop(entry.number, None)
            else:
                parts.setdefault(entry.number, []).append(entry)
        for number, pieces in sorted(parts.items()):
            message = b"".join(piece.part for piece in pieces)
            self._pending[number] = Stored(number, message, pieces[0].salt, pieces[0].since)

    def _rewrite(self) -> None:
        """Write what is pending to a new file and put it in the old one's place."""
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.unlink(missing_ok=True)
        journal = FileJournal(fresh, identity=self._identity)
        entries = [self._seal(put) for stored in self._pending.values() for put in _puts(stored)]
        # The place in the log outlives the messages: number -1 is nobody's.
        journal.append_group([self._seal(_Struck(-1, self._known_since)), *entries])
        # The old file stays locked until the new one, locked as well, has its name.
        fresh.replace(self._path)
        _sync_folder(self._path.parent)
        self._journal.close()
        self._journal = journal

    def _seal(self, entry: _Put | _Struck) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(entry), None)

    def _open(self, sealed: bytes) -> _Put | _Struck:
        try:
            clear = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
            return _ENTRY.decode(clear)
        except (InvalidTag, ValueError, msgspec.DecodeError) as error:
            raise self._another_secret() from error

    def _another_secret(self) -> ConfigError:
        return ConfigError(
            f"the outbox {self._path} cannot be opened with this secret",
            hint="give the secret it was made with",
        )


def _puts(stored: Stored) -> Iterator[_Put]:
    message = stored.message
    starts = range(0, len(message), _PIECE_BYTES)
    for piece, start in enumerate(starts):
        part = message[start : start + _PIECE_BYTES]
        yield _Put(stored.number, stored.since, stored.salt, piece, len(starts), part)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

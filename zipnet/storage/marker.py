"""The mark of safe mode in a state folder: set by the node, taken away by an operator only.

One sector, made while the disk is well, so that setting the mark later is an overwrite in place:
it needs no free block, and works on a full disk. Whoever runs on the folder holds the file's lock.

File layout (big-endian), 512 bytes::

    "ZNSAFEMD" ‖ version u8 ‖ set u8 ‖ wall time ms u64 ‖ cause 48 ‖ text 400 ‖ check 32 ‖ zeros

Rules:

1. A file that is missing or empty is not set. One whose check fails *is* set: a mark that was torn
   while it was written must not read as none.
2. A mark that is set is not set again: the first reason stands.
"""

from __future__ import annotations

import hmac
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from zipnet.errors import DuplicateIdentityError, StorageError
from zipnet.storage.files import Files, OsFiles

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MARKER_NAME", "SafeModeMarker", "SafeModeNote", "require_writable"]

MARKER_NAME: Final = "safe-mode"
_SIZE: Final = 512
_MAGIC: Final = b"ZNSAFEMD"
_VERSION: Final = 1
_BODY: Final = struct.Struct(">8sBBQ48s400s")
_CHECK_BYTES: Final = 32
_PROBE_BYTES: Final = 64 * 1024
_DAMAGED: Final = "marker_damaged"


@dataclass(frozen=True, slots=True)
class SafeModeNote:
    """Why a node is in safe mode.

    Attributes:
        cause: Stable snake_case word, at most 48 characters: ``disk_full``, ``io_error``, …
        text: What failed, in one line of at most 400 bytes.
        since_ms: When, in milliseconds since 1970; 0 where that is not known.
    """

    cause: str
    text: str
    since_ms: int


class SafeModeMarker:
    """The mark of one state folder; holds the file's lock until closed.

    Args:
        folder: The state folder; must exist.
        files: File operations; replaced by tests.

    Raises:
        DuplicateIdentityError: When another process holds the mark.
        StorageError: When the file cannot be made or read.
    """

    def __init__(self, folder: Path, *, files: Files | None = None) -> None:
        path = folder / MARKER_NAME
        try:
            self._file = (files or OsFiles()).open(str(path))
        except OSError as error:
            raise StorageError(f"cannot open {path}: {error.strerror}") from error
        try:
            self._file.lock()
            if self._file.size() == 0:
                self._write(_encode(None))
                self._file.sync_folder()
        except BlockingIOError as error:
            self._file.close()
            raise DuplicateIdentityError(
                f"the state folder {folder} is in use by another process",
                hint="stop the other process first",
            ) from error
        except OSError as error:
            self._file.close()
            raise StorageError(f"cannot make {path}: {error.strerror}") from error

    def read(self) -> SafeModeNote | None:
        """Return the note, or None when the mark is not set.

        Raises:
            StorageError: When the file cannot be read.
        """
        try:
            return _decode(self._file.read(0, _SIZE))
        except OSError as error:
            raise StorageError(f"the safe mode mark cannot be read: {error.strerror}") from error

    def set(self, note: SafeModeNote) -> bool:
        """Set the mark durably; False where the disk does not even take that."""
        try:
            if _decode(self._file.read(0, _SIZE)) is None:
                self._write(_encode(note))
        except OSError:
            return False
        return True

    def clear(self) -> None:
        """Take the mark away, durably. Only an operator's act calls this.

        Raises:
            StorageError: When the disk does not take it.
        """
        try:
            self._write(_encode(None))
        except OSError as error:
            raise StorageError(
                f"the safe mode mark could not be taken away: {error.strerror}",
                hint="the disk still refuses writes: repair it first",
            ) from error

    def close(self) -> None:
        """Release the file and its lock. Idempotent."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        offset = 0
        while offset < len(data):
            taken = self._file.write(offset, data[offset:])
            if taken <= 0:
                raise OSError("the file took no bytes")
            offset += taken
        self._file.sync()


def require_writable(folder: Path) -> None:
    """Write a file of 64 KiB durably into a folder and remove it again.

    Raises:
        StorageError: When the disk does not take it.
    """
    path = folder / f".probe-{os.getpid()}"
    try:
        try:
            with path.open("xb") as probe:
                probe.write(os.urandom(_PROBE_BYTES))
                probe.flush()
                os.fsync(probe.fileno())
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"the disk of {folder} still refuses writes: {error.strerror}",
            hint="free space or mend the disk, then try again",
        ) from error


def _encode(note: SafeModeNote | None) -> bytes:
    cause, text, since = (b"", b"", 0) if note is None else _fields(note)
    body = _BODY.pack(_MAGIC, _VERSION, note is not None, since, cause, text)
    return (body + _check(body)).ljust(_SIZE, b"\0")


def _fields(note: SafeModeNote) -> tuple[bytes, bytes, int]:
    return note.cause.encode()[:48], note.text.encode()[:400], note.since_ms


def _decode(data: bytes) -> SafeModeNote | None:
    if not data:
        return None
    body = data[: _BODY.size]
    check = data[_BODY.size : _BODY.size + _CHECK_BYTES]
    if len(body) < _BODY.size or not hmac.compare_digest(_check(body), check):
        return SafeModeNote(_DAMAGED, "the mark of safe mode is damaged", 0)
    magic, version, is_set, since, cause, text = _BODY.unpack(body)
    if magic != _MAGIC or version != _VERSION:
        return SafeModeNote(_DAMAGED, "the mark of safe mode is of another version", 0)
    if not is_set:
        return None
    words = (raw.rstrip(b"\0").decode(errors="replace") for raw in (cause, text))
    return SafeModeNote(next(words), next(words), since)


def _check(body: bytes) -> bytes:
    return blake3(body, derive_key_context="zipnet/v1/safe-mode").digest()

"""An append-only, checksummed, fsynced sequence of byte strings in one file.

Implements :class:`zipnet.ports.Journal`. It knows nothing of what the entries mean; the release
guard, the chain store and the consensus engine each keep their own file.

File layout (big-endian)::

    file   = header ‖ frame*
    header = "ZNJOURNL" ‖ version u16 ‖ identity 32 ‖ salt 16 ‖ check 16
    frame  = "ZNJF" ‖ length u32 ‖ sequence u64 ‖ head check 8 ‖ payload ‖ check 16
    payload = (kind u8 ‖ length u32 ‖ bytes)*        kind 0: entry, kind 1: truncate to u64

Checks are BLAKE3, keyed by a key derived from the header. The salt makes the key differ from file
to file, so an entry cannot be composed to look like a frame to the search of rule 3.

Rules:

1. One frame is one fsync. A frame is there whole or not at all, so a group of entries, or a
   truncation with the entries that replace what it dropped, cannot be half applied.
2. The file only ever grows, except for a torn tail and :meth:`FileJournal.reset`, which empties it.
   :meth:`FileJournal.truncate` appends a note.
3. Opening reads every frame. The first damaged one is a torn tail if no sound frame follows it,
   and is cut off; if one follows, the damage cannot come from a crash and the file is refused.
4. After a failed write or fsync the file is never written again by this object (the kernel may
   have dropped the dirty pages). What that append wrote may or may not be there after reopening.
5. Opening writes header and last frame once more and fsyncs them: after a failed fsync the page
   cache may show bytes that never reached the disk. This takes for granted that a sector rewritten
   with the bytes it holds keeps them, whenever the power goes.

What it cannot tell apart: a last frame damaged on the medium *after* its fsync, and a torn one.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Sequence
from typing import Final

from blake3 import blake3

from zipnet.errors import (
    ConfigError,
    DuplicateIdentityError,
    LocalProtocolError,
    SafeMode,
    StorageError,
)
from zipnet.storage.files import Files, OsFiles

__all__ = ["IDENTITY_BYTES", "MAX_ENTRY_BYTES", "MAX_GROUP_BYTES", "FileJournal"]

IDENTITY_BYTES: Final = 32
MAX_ENTRY_BYTES: Final = 1 << 20
MAX_GROUP_BYTES: Final = 16 << 20

_MAGIC: Final = b"ZNJOURNL"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">8sH32s16s16s")
_MARK: Final = b"ZNJF"
_HEAD: Final = struct.Struct(">4sIQ8s")
_CHECK_BYTES: Final = 16
_RECORD: Final = struct.Struct(">BI")
_COUNT: Final = struct.Struct(">Q")
_KIND_ENTRY: Final = 0
_KIND_TRUNCATE: Final = 1


class FileJournal:
    """A journal in one file. Implements :class:`zipnet.ports.Journal`.

    Args:
        path: The file; created with mode 0600 when missing. Its folder must exist.
        identity: 32 bytes that say whose journal this is and for what; a file that carries
            another identity is refused.
        files: The file operations; replaced by simulators.
        retain: Keep all entries in memory for :meth:`entries` and :meth:`truncate`. With False,
            :meth:`entries` hands out what was found on opening until the first append, and
            :meth:`truncate` is refused; for owners that keep their own copy.

    Raises:
        DuplicateIdentityError: Another process holds the file.
        ConfigError: The file belongs to another identity, or the identity is not 32 bytes.
        StorageError: The file cannot be read, or is damaged before its tail.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        identity: bytes,
        files: Files | None = None,
        retain: bool = True,
    ) -> None:
        if len(identity) != IDENTITY_BYTES:
            raise ConfigError(f"a journal identity has {IDENTITY_BYTES} bytes, not {len(identity)}")
        self._path = os.fspath(path)
        self._identity = identity
        self._retain = retain
        self._entries: list[bytes] = []
        self._failed = False
        self._closed = False
        self._sequence = 0
        self._end = 0
        self._key = b""
        try:
            self._file = (files or OsFiles()).open(self._path)
        except OSError as error:
            raise StorageError(f"cannot open the journal {self._path}: {error.strerror}") from error
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise

    def entries(self) -> Sequence[bytes]:
        """All entries in order (see ``retain`` for what is kept)."""
        return tuple(self._entries)

    def append(self, entry: bytes) -> None:
        """Append one entry and return once it is durable.

        Raises:
            SafeMode: It could not be made durable, now or earlier.
            LocalProtocolError: The entry is larger than :data:`MAX_ENTRY_BYTES`.
        """
        self.append_group((entry,))

    def append_group(self, entries: Sequence[bytes]) -> None:
        """Append several entries with one fsync; after a crash all of them are there, or none.

        Raises:
            SafeMode: They could not be made durable, now or earlier.
            LocalProtocolError: An entry or the group is too large.
        """
        if not entries:
            return
        for entry in entries:
            if len(entry) > MAX_ENTRY_BYTES:
                raise LocalProtocolError(f"a journal entry of {len(entry)} bytes is too large")
        payload = b"".join(_RECORD.pack(_KIND_ENTRY, len(entry)) + entry for entry in entries)
        self._write_frame(payload)
        if self._retain:
            self._entries.extend(entries)
        else:
            self._entries = []

    def truncate(self, count: int) -> None:
        """Drop all entries from position ``count`` on, durably.

        Raises:
            SafeMode: The note could not be made durable.
            LocalProtocolError: There are fewer entries, or this journal does not retain them.
        """
        if not self._retain or not 0 <= count <= len(self._entries):
            raise LocalProtocolError(f"cannot truncate this journal to {count} entries")
        note = _COUNT.pack(count)
        self._write_frame(_RECORD.pack(_KIND_TRUNCATE, len(note)) + note)
        del self._entries[count:]

    def reset(self) -> None:
        """Forget every entry, durably, and begin the file anew with another salt.

        Raises:
            SafeMode: That could not be made durable, or an earlier write was not.
        """
        if self._failed or self._closed:
            raise SafeMode(f"the journal {self._path} takes no more writes")
        self._failed = True
        try:
            # Made durable by itself, so that no old frame can show under the new header.
            self._file.truncate(0)
            self._file.sync()
            self._create()
        except OSError as error:
            raise _not_durable(self._path, error) from error
        self._failed = False
        self._entries = []
        self._sequence = 0

    def close(self) -> None:
        """Release the file and its lock. Idempotent; later appends raise :class:`SafeMode`."""
        if not self._closed:
            self._closed = True
            self._file.close()

    def _open(self) -> None:
        try:
            self._file.lock()
        except BlockingIOError as error:
            raise DuplicateIdentityError(
                f"the journal {self._path} is in use by another process",
                hint="stop the other process, or give this one its own data folder",
            ) from error
        try:
            if self._file.size() <= _HEADER.size and not self._header_is_sound():
                self._create()
            else:
                self._recover()
        except OSError as error:
            raise StorageError(f"cannot read the journal {self._path}: {error.strerror}") from error

    def _header_is_sound(self) -> bool:
        raw = self._file.read(0, _HEADER.size)
        return len(raw) == _HEADER.size and _header_check(raw) == raw[-_CHECK_BYTES:]

    def _create(self) -> None:
        # No append ever returned for a file no longer than a header: nothing is lost.
        self._file.truncate(0)
        bare = _HEADER.pack(_MAGIC, _VERSION, self._identity, os.urandom(16), bytes(_CHECK_BYTES))
        header = bare[:-_CHECK_BYTES] + _header_check(bare)
        self._put(0, header)
        self._file.sync()
        self._file.sync_folder()
        self._key = _key(header)
        self._end = len(header)

    def _recover(self) -> None:
        header = self._file.read(0, _HEADER.size)
        if not self._header_is_sound():
            raise StorageError(f"the journal {self._path} has a damaged header")
        _, version, identity, _, _ = _HEADER.unpack(header)
        if version != _VERSION:
            raise StorageError(f"the journal {self._path} has version {version}, not {_VERSION}")
        if not hmac.compare_digest(identity, self._identity):
            raise ConfigError(
                f"the journal {self._path} belongs to another instance or identity",
                hint="use the data folder that was made for this instance and identity",
            )
        self._key = _key(header)
        self._end = _HEADER.size
        size = self._file.size()
        last = b""
        while self._end < size:
            frame = self._read_frame(self._end)
            if frame is None:
                self._cut_tail(size)
                break
            self._replay(frame[_HEAD.size : -_CHECK_BYTES])
            self._sequence += 1
            self._end += len(frame)
            last = frame
        self._settle(header, last)

    def _read_frame(self, offset: int) -> bytes | None:
        head = self._file.read(offset, _HEAD.size)
        length, sequence = self._parse_head(head)
        if sequence != self._sequence:
            return None
        return self._read_body(offset, head, length)

    def _read_body(self, offset: int, head: bytes, length: int) -> bytes | None:
        frame = head + self._file.read(offset + _HEAD.size, length + _CHECK_BYTES)
        if len(frame) != _HEAD.size + length + _CHECK_BYTES:
            return None
        body, check = frame[:-_CHECK_BYTES], frame[-_CHECK_BYTES:]
        return frame if hmac.compare_digest(_keyed(self._key, body, _CHECK_BYTES), check) else None

    def _parse_head(self, head: bytes) -> tuple[int, int]:
        if len(head) != _HEAD.size:
            return 0, -1
        mark, length, sequence, check = _HEAD.unpack(head)
        if mark != _MARK or not hmac.compare_digest(_keyed(self._key, head[:-8], 8), check):
            return 0, -1
        return length, sequence

    def _cut_tail(self, size: int) -> None:
        rest = self._file.read(self._end, size - self._end)
        start = rest.find(_MARK)
        while start >= 0:
            head = rest[start : start + _HEAD.size]
            length, sequence = self._parse_head(head)
            # A frame that was once durable has a later number; an equal one is the torn one itself.
            later = sequence > self._sequence
            if later and self._read_body(self._end + start, head, length) is not None:
                raise StorageError(
                    f"the journal {self._path} is damaged at byte {self._end}, before its tail",
                    hint="the medium lost data; restore this node from its operator's procedure",
                )
            start = rest.find(_MARK, start + 1)
        self._file.truncate(self._end)
        self._file.sync()

    def _settle(self, header: bytes, last: bytes) -> None:
        self._put(0, header)
        self._put(self._end - len(last), last)
        self._file.sync()
        self._file.sync_folder()

    def _replay(self, payload: bytes) -> None:
        offset = 0
        while offset < len(payload):
            kind, length = _RECORD.unpack_from(payload, offset)
            offset += _RECORD.size
            body = payload[offset : offset + length]
            offset += length
            if kind == _KIND_ENTRY:
                self._entries.append(body)
            elif kind == _KIND_TRUNCATE:
                del self._entries[_COUNT.unpack(body)[0] :]
            else:
                raise StorageError(
                    f"the journal {self._path} holds a record of unknown kind {kind}"
                )

    def _write_frame(self, payload: bytes) -> None:
        if self._failed or self._closed:
            raise SafeMode(f"the journal {self._path} takes no more writes")
        if len(payload) > MAX_GROUP_BYTES:
            raise LocalProtocolError(f"a journal group of {len(payload)} bytes is too large")
        head = struct.pack(">4sIQ", _MARK, len(payload), self._sequence)
        body = head + _keyed(self._key, head, 8) + payload
        frame = body + _keyed(self._key, body, _CHECK_BYTES)
        # Latched first, released on success: whatever ends this call early leaves it latched.
        self._failed = True
        try:
            self._put(self._end, frame)
            self._file.sync()
        except OSError as error:
            raise _not_durable(self._path, error) from error
        self._failed = False
        self._sequence += 1
        self._end += len(frame)

    def _put(self, offset: int, data: bytes) -> None:
        while data:
            taken = self._file.write(offset, data)
            if taken <= 0:
                raise OSError("the file took no bytes")
            offset += taken
            data = data[taken:]


def _not_durable(path: str, error: OSError) -> SafeMode:
    return SafeMode(
        f"the journal {path} could not be made durable: {error.strerror}",
        hint="check the disk and its free space, then restart the node",
    )


def _key(header: bytes) -> bytes:
    return blake3(header, derive_key_context="zipnet/v1/journal").digest()


def _keyed(key: bytes, data: bytes, length: int) -> bytes:
    return blake3(data, key=key).digest(length=length)


def _header_check(header: bytes) -> bytes:
    context = "zipnet/v1/journal-header"
    return blake3(header[:-_CHECK_BYTES], derive_key_context=context).digest(length=_CHECK_BYTES)

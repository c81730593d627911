"""The record log on disk: every sealed record, in sequence, append-only (protocol.md §6 "Record").

Files ``records-<first sequence>.log`` of :data:`SEGMENT_RECORDS` records each (big-endian)::

    file   = header ‖ frame*
    header = "ZNRECORD" ‖ version u16 ‖ group 32 ‖ first sequence u64 ‖ salt 16 ‖ check 16
    frame  = "ZNRF" ‖ length u32 ‖ sequence u64 ‖ check 16 ‖ record bytes

A frame's check covers its head and its record, under a key derived from the header: what a record
holds is written by strangers, and the salt keeps them from composing one that looks like a frame.

Rules:

1. ``append`` returns once the record is durable; sequences have no gaps.
2. Opening cuts a torn tail off the last segment only. A damaged frame is a torn tail if no sound
   frame follows it; if one does, no crash can have caused it and the log is refused.
3. Every read checks the record against its checksum before it is served (row M8).
4. Only offsets are kept in memory.
5. After a failed write the log takes no more (safe mode); reading goes on.
6. Opening writes the last frame once more and fsyncs: after a failed fsync the page cache may show
   a record that never reached the disk.

The chain of hashes is not checked here: that is ``protocol.record``'s, for every reader alike.
"""

from __future__ import annotations

import hmac
import os
import struct
from pathlib import Path
from typing import Final

from blake3 import blake3

from zipnet.errors import ConfigError, LocalProtocolError, SafeMode, StorageError
from zipnet.protocol.ids import GroupId
from zipnet.storage.files import File, Files, OsFiles

__all__ = ["MAX_RECORD_BYTES", "SEGMENT_RECORDS", "RecordLog"]

SEGMENT_RECORDS: Final = 1024
MAX_RECORD_BYTES: Final = 2 * 1024 * 1024
_MAGIC: Final = b"ZNRECORD"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">8sH32sQ16s16s")
_MARK: Final = b"ZNRF"
_FRAME: Final = struct.Struct(">4sIQ16s")
_CHECK_BYTES: Final = 16
_CONTEXT: Final = "zipnet/v1/record-log"
_HEADER_CONTEXT: Final = "zipnet/v1/record-log-header"


class RecordLog:
    """All records of one group in one folder.

    Args:
        folder: Folder of the segments; must exist.
        group: Group the records belong to; segments of another one are refused. None accepts
            whatever group the segments name (for offline verification).
        files: File operations; replaced by fault-injecting tests.
        readonly: Never write, and leave a torn tail where it is.

    Raises:
        StorageError: When segments are missing, damaged before the tail, or unreadable.
        ConfigError: When a segment belongs to another group.
    """

    def __init__(
        self,
        folder: Path,
        *,
        group: GroupId | None,
        files: Files | None = None,
        readonly: bool = False,
    ) -> None:
        self._folder = folder
        self._group = group
        self._files = files or OsFiles()
        self._readonly = readonly
        self._segments: list[_Segment] = []
        self._failed = False
        try:
            self._open()
        except OSError as error:
            self.close()
            raise StorageError(f"cannot read the record log: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    @classmethod
    def open_readonly(cls, folder: Path, *, group: GroupId | None = None) -> RecordLog:
        """Open a record log for reading, also while its server runs."""
        return cls(folder, group=group, readonly=True)

    @property
    def begins_anywhere(self) -> bool:
        """False: a log on disk begins with the first record there ever was."""
        return False

    @property
    def first_sequence(self) -> int:
        """0: nothing is ever dropped."""
        return 0

    @property
    def next_sequence(self) -> int:
        """How many records there are: the sequence the next one will have."""
        return sum(len(segment.offsets) for segment in self._segments)

    def append(self, sequence: int, data: bytes) -> None:
        """Store one record and return once it is durable.

        Raises:
            LocalProtocolError: When the sequence is not the next one, or the record is oversize.
            SafeMode: When it could not be made durable, now or earlier.
        """
        if self._failed or self._readonly:
            raise SafeMode("the record log takes no more writes")
        if sequence != self.next_sequence:
            raise LocalProtocolError(f"record {sequence} is not next, {self.next_sequence} is")
        if len(data) > MAX_RECORD_BYTES:
            raise LocalProtocolError(f"a record of {len(data)} bytes is too large")
        self._failed = True  # released on success: whatever ends this call early leaves it latched
        try:
            if not self._segments or len(self._segments[-1].offsets) >= SEGMENT_RECORDS:
                self._segments.append(self._create_segment(sequence))
            self._segments[-1].append(sequence, data)
        except OSError as error:
            raise SafeMode(
                f"the record log could not be made durable: {error.strerror}",
                hint="check the disk and its free space, then restart the node",
            ) from error
        self._failed = False

    def read(self, from_sequence: int, limit: int, *, max_bytes: int = 1 << 63) -> list[bytes]:
        """Return up to ``limit`` records from a sequence on, at least one if there is one.

        Raises:
            StorageError: When a stored record no longer matches its checksum.
        """
        found: list[bytes] = []
        total = 0
        for sequence in range(max(0, from_sequence), self.next_sequence):
            if len(found) >= limit:
                break
            data = self._read_one(sequence)
            total += len(data)
            if found and total > max_bytes:
                break
            found.append(data)
        return found

    def close(self) -> None:
        """Close all segments. Idempotent."""
        for segment in self._segments:
            segment.file.close()
        self._segments = []

    def _read_one(self, sequence: int) -> bytes:
        segment = self._segments[sequence // SEGMENT_RECORDS]
        try:
            data = segment.read(sequence)
        except OSError as error:
            raise StorageError(f"record {sequence} cannot be read: {error.strerror}") from error
        if data is None:
            raise StorageError(f"record {sequence} on disk does not match its checksum")
        return data

    def _open(self) -> None:
        for path in sorted(self._folder.glob("records-*.log")):
            first = len(self._segments) * SEGMENT_RECORDS
            if path.name != _name(first):
                raise StorageError(f"the record log has {path.name} where {_name(first)} is due")
            if self._segments and len(self._segments[-1].offsets) != SEGMENT_RECORDS:
                raise StorageError(f"the record log segment before {path.name} is not full")
            self._open_segment(path, first)
        if self._segments and not self._readonly:
            self._segments[-1].settle()

    def _open_segment(self, path: Path, first: int) -> None:
        file = _ReadOnlyFile(str(path)) if self._readonly else self._files.open(str(path))
        header = file.read(0, _HEADER.size)
        sound = hmac.compare_digest(_header_check(header[:-_CHECK_BYTES]), header[-_CHECK_BYTES:])
        if not sound and file.size() <= _HEADER.size:
            # Only a crash during creation leaves this; no append into it ever returned.
            file.close()
            if not self._readonly:
                path.unlink()
            return
        segment = _Segment(file, first, header)
        self._segments.append(segment)
        magic, version, group, named, _salt, _check = _HEADER.unpack(header)
        if magic != _MAGIC or version != _VERSION or named != first or not sound:
            raise StorageError(f"{path.name} is no record log segment of this version")
        if self._group is None:
            self._group = GroupId(group)
        if group != self._group:
            raise ConfigError(
                f"{path.name} belongs to another instance",
                hint="use the state folder that was made for this instance",
            )
        segment.scan(path.name, repair=not self._readonly)

    def _create_segment(self, first: int) -> _Segment:
        if self._group is None:
            raise LocalProtocolError("a record log is created for a group")
        file = self._files.open(os.fspath(self._folder / _name(first)))
        salt, none = os.urandom(_CHECK_BYTES), bytes(_CHECK_BYTES)
        body = _HEADER.pack(_MAGIC, _VERSION, self._group, first, salt, none)[:-_CHECK_BYTES]
        header = body + _header_check(body)
        _put(file, 0, header)
        file.sync()
        file.sync_folder()
        return _Segment(file, first, header)


class _Segment:
    """One file of the log: where each of its records stands."""

    def __init__(self, file: File, first: int, header: bytes) -> None:
        self.file = file
        self.first = first
        self.offsets: list[int] = []
        self.end = _HEADER.size
        self._key = blake3(header, derive_key_context=_CONTEXT).digest()

    def append(self, sequence: int, data: bytes) -> None:
        frame = _FRAME.pack(_MARK, len(data), sequence, self._check(sequence, data)) + data
        _put(self.file, self.end, frame)
        self.file.sync()
        self.offsets.append(self.end)
        self.end += len(frame)

    def read(self, sequence: int) -> bytes | None:
        return self._read_at(self.offsets[sequence - self.first], sequence)

    def _read_at(self, offset: int, sequence: int) -> bytes | None:
        head = self.file.read(offset, _FRAME.size)
        if len(head) < _FRAME.size:
            return None
        mark, length, named, check = _FRAME.unpack(head)
        if mark != _MARK or named != sequence or length > MAX_RECORD_BYTES:
            return None
        data = self.file.read(offset + _FRAME.size, length)
        if len(data) < length or not hmac.compare_digest(self._check(sequence, data), check):
            return None
        return data

    def _check(self, sequence: int, data: bytes) -> bytes:
        hasher = blake3(len(data).to_bytes(4, "big") + sequence.to_bytes(8, "big"), key=self._key)
        hasher.update(data)
        return hasher.digest(length=_CHECK_BYTES)

    def scan(self, name: str, *, repair: bool) -> None:
        """Find every record; cut a torn tail, refuse anything worse."""
        size = self.file.size()
        while self.end < size and len(self.offsets) < SEGMENT_RECORDS:
            sequence = self.first + len(self.offsets)
            data = self._read_at(self.end, sequence)
            if data is None:
                self._require_torn_tail(name, size, sequence)
                if repair:
                    self.file.truncate(self.end)
                    self.file.sync()
                return
            self.offsets.append(self.end)
            self.end += _FRAME.size + len(data)

    def settle(self) -> None:
        """Write the last frame once more and fsync: an fsync of it may have failed (rule 6)."""
        if self.offsets:
            start = self.offsets[-1]
            _put(self.file, start, self.file.read(start, self.end - start))
        self.file.sync()

    def _require_torn_tail(self, name: str, size: int, sequence: int) -> None:
        # One append is one frame and the next begins after its fsync, so a torn frame is the last:
        # a sound frame behind it was written when this one was whole.
        rest = self.file.read(self.end, size - self.end)
        start = rest.find(_MARK)
        while start >= 0:
            if self._later_frame_at(self.end + start, sequence):
                raise StorageError(
                    f"{name} is damaged at record {sequence}, before its tail",
                    hint="the medium lost data; fetch the records from another server",
                )
            start = rest.find(_MARK, start + 1)

    def _later_frame_at(self, offset: int, sequence: int) -> bool:
        head = self.file.read(offset, _FRAME.size)
        if len(head) < _FRAME.size:
            return False
        named: int = _FRAME.unpack(head)[2]
        return named > sequence and self._read_at(offset, named) is not None


class _ReadOnlyFile:
    """A file that is only read; satisfies :class:`File` and refuses the rest."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def lock(self) -> None:
        raise OSError("a read-only file takes no lock")

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def write(self, offset: int, data: bytes) -> int:
        raise OSError(f"read-only: {len(data)} bytes at {offset} not written")

    def truncate(self, size: int) -> None:
        raise OSError(f"read-only: not cut to {size}")

    def sync(self) -> None:
        raise OSError("read-only: nothing to sync")

    def sync_folder(self) -> None:
        raise OSError("read-only: nothing to sync")

    def close(self) -> None:
        if self._fd >= 0:
            descriptor, self._fd = self._fd, -1
            os.close(descriptor)


def _name(first: int) -> str:
    return f"records-{first:012d}.log"


def _header_check(body: bytes) -> bytes:
    return blake3(body, derive_key_context=_HEADER_CONTEXT).digest(length=_CHECK_BYTES)


def _put(file: File, offset: int, data: bytes) -> None:
    while data:
        taken = file.write(offset, data)
        if taken <= 0:
            raise OSError("the file took no bytes")
        offset += taken
        data = data[taken:]

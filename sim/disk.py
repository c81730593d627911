"""A disk in memory that loses what was not synced, tears writes, runs full and fails.

Implements :class:`zipnet.storage.Files`. :meth:`Disk.crash` decides what the power cut left: some
of the unsynced operations in order, then perhaps one torn write — cut short, or with sectors that
still hold what they held before (zeros, where the file was shorter). A file whose folder was not
synced may be gone. A failed sync leaves bytes that every process sees and no power cut spares.

Rules:

1. Synced bytes never change in a crash (``lying=True`` breaks exactly this, to test the tests).
2. Handles opened before a crash are dead after it; their locks are free.
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field

__all__ = ["Disk", "PowerCut"]

_SECTOR = 512
_EVEN = 0.5
_OFTEN = 0.7


class PowerCut(BaseException):
    """The power went out in the middle of a file operation."""


@dataclass(slots=True)
class _Write:
    offset: int
    data: bytes


@dataclass(slots=True)
class _Cut:
    size: int


@dataclass(slots=True)
class _Content:
    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[_Write | _Cut] = field(default_factory=list)
    named: bool = False
    locked_by: _Handle | None = None


class Disk:
    """All files of one simulated machine.

    Args:
        rng: Decides what crashes leave behind and which writes are short.
        lying: Let ``sync`` return without making anything durable.

    Attributes:
        sync_error: Error number every ``sync`` fails with, or 0.
        write_error: Error number every ``write`` fails with after taking part of it, or 0.
        short_writes: Probability that a write takes only part of what it is given.
        operations: Operations done so far.
        torn: Writes that a power cut left half done so far.
        cut_at: Raise :class:`PowerCut` when ``operations`` reaches this number, or None.
    """

    def __init__(self, rng: random.Random, *, lying: bool = False) -> None:
        self._rng = rng
        self._lying = lying
        self._files: dict[str, _Content] = {}
        self.life = 0
        self.sync_error = 0
        self.write_error = 0
        self.short_writes = 0.0
        self.operations = 0
        self.torn = 0
        self.cut_at: int | None = None

    def open(self, path: str) -> _Handle:
        """Open a file, creating it empty if missing."""
        self.step()
        return _Handle(self, self._files.setdefault(path, _Content()))

    def kill(self) -> None:
        """End the process that used this disk: handles die, locks are free, no byte changes."""
        self.life += 1
        self.cut_at = None
        for content in self._files.values():
            content.locked_by = None

    def crash(self) -> None:
        """Cut the power: as :meth:`kill`, and lose or tear what was not synced."""
        self.kill()
        for path, content in list(self._files.items()):
            if not content.named and self._rng.random() < _EVEN:
                del self._files[path]
                continue
            self._tear(content)

    def content(self, path: str) -> bytearray:
        """The file as a process sees it now, to damage it in tests; it counts as durable."""
        content = self._files[path]
        content.durable = content.seen
        content.unsynced = []
        return content.seen

    def peek(self, path: str) -> bytes:
        """The file as a process sees it now, nothing where there is none."""
        content = self._files.get(path)
        return b"" if content is None else bytes(content.seen)

    def step(self) -> None:
        """Count one operation and cut the power when its number has come."""
        self.operations += 1
        if self.cut_at is not None and self.operations >= self.cut_at:
            self.cut_at = None
            raise PowerCut

    def short(self, length: int) -> int:
        """How many of ``length`` bytes a write takes."""
        if length > 1 and self._rng.random() < self.short_writes:
            return self._rng.randrange(1, length)
        return length

    def sync(self, content: _Content) -> None:
        """Make a file's operations durable, unless this disk lies."""
        if self._lying:
            return
        for operation in content.unsynced:
            _apply(content.durable, operation)
        content.unsynced = []

    def _tear(self, content: _Content) -> None:
        survivors = self._rng.randint(0, len(content.unsynced))
        for operation in content.unsynced[:survivors]:
            _apply(content.durable, operation)
        for operation in content.unsynced[survivors : survivors + 1]:
            if isinstance(operation, _Write) and self._rng.random() < _OFTEN:
                self.torn += 1
                _apply(content.durable, self._torn(operation, content.durable))
        content.unsynced = []
        content.seen = bytearray(content.durable)

    def _torn(self, write: _Write, before: bytearray) -> _Write:
        data = bytearray(write.data[: self._rng.randint(0, len(write.data))])
        if self._rng.random() < _EVEN:
            data = bytearray(write.data)
            # Sectors lie on the disk's own grid, not on the write's.
            first = -(write.offset % _SECTOR)
            for start in range(first, len(data), _SECTOR):
                low, high = max(start, 0), min(start + _SECTOR, len(data))
                if self._rng.random() < _EVEN:
                    old = before[write.offset + low : write.offset + high]
                    data[low:high] = old.ljust(high - low, b"\0")
        return _Write(write.offset, bytes(data))


class _Handle:
    """One open file. Implements :class:`zipnet.storage.File`."""

    def __init__(self, disk: Disk, content: _Content) -> None:
        self._disk = disk
        self._content = content
        self._life = disk.life

    def lock(self) -> None:
        self._check()
        if self._content.locked_by not in (None, self):
            raise BlockingIOError(errno.EWOULDBLOCK, "locked by another handle")
        self._content.locked_by = self

    def size(self) -> int:
        self._check()
        return len(self._content.seen)

    def read(self, offset: int, length: int) -> bytes:
        self._check()
        return bytes(self._content.seen[offset : offset + length])

    def write(self, offset: int, data: bytes) -> int:
        self._check()
        taken = self._disk.short(len(data))
        if self._disk.write_error:
            taken //= 2
        piece = _Write(offset, data[:taken])
        self._content.unsynced.append(piece)
        _apply(self._content.seen, piece)
        self._disk.step()
        if self._disk.write_error:
            raise OSError(self._disk.write_error, os.strerror(self._disk.write_error))
        return taken

    def truncate(self, size: int) -> None:
        self._check()
        cut = _Cut(size)
        self._content.unsynced.append(cut)
        _apply(self._content.seen, cut)
        self._disk.step()

    def sync(self) -> None:
        self._check()
        self._disk.step()
        if self._disk.sync_error:
            # As Linux does: the pages are clean now, and on no disk.
            self._content.unsynced = []
            raise OSError(self._disk.sync_error, os.strerror(self._disk.sync_error))
        self._disk.sync(self._content)

    def sync_folder(self) -> None:
        self._check()
        self._disk.step()
        self._content.named = True

    def close(self) -> None:
        if self._content.locked_by is self:
            self._content.locked_by = None

    def _check(self) -> None:
        if self._life != self._disk.life:
            raise OSError(errno.EBADF, "the machine was restarted since")


def _apply(target: bytearray, operation: _Write | _Cut) -> None:
    if isinstance(operation, _Cut):
        del target[operation.size :]
        return
    end = operation.offset + len(operation.data)
    if len(target) < operation.offset:
        target.extend(bytes(operation.offset - len(target)))
    target[operation.offset : end] = operation.data

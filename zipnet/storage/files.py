"""The file operations durable storage is built from, behind an object that tests can replace.

:class:`OsFiles` is the real thing. A simulator passes its own :class:`Files` and so decides which
write is torn, which fsync fails, and where the power goes out.

Rules:

1. A file is created readable and writable by its owner only, and never through a symbolic link.
2. Nothing here retries, hides or interprets an :class:`OSError`; the caller knows what it means.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol

__all__ = ["File", "Files", "OsFile", "OsFiles"]


class File(Protocol):
    """One open file. Every method may raise :class:`OSError`."""

    def lock(self) -> None:
        """Take the exclusive lock; raise :class:`BlockingIOError` when another process holds it."""
        ...

    def size(self) -> int:
        """Length of the file in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Read up to ``length`` bytes from ``offset``; fewer only at the end of the file."""
        ...

    def write(self, offset: int, data: bytes) -> int:
        """Write at ``offset`` and return how many bytes were taken (possibly fewer than given)."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        ...

    def sync(self) -> None:
        """Return once the content is on stable storage."""
        ...

    def sync_folder(self) -> None:
        """Return once the file's name is on stable storage."""
        ...

    def close(self) -> None:
        """Give the file and its lock back."""
        ...


class Files(Protocol):
    """Opens files."""

    def open(self, path: str) -> File:
        """Open ``path`` for reading and writing, creating it empty (mode 0600) if missing."""
        ...


class OsFile:
    """A file of the operating system. Implements :class:`File`."""

    def __init__(self, path: str) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)

    def lock(self) -> None:
        """Take an exclusive ``flock``; it ends with the descriptor, so a crash releases it."""
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def size(self) -> int:
        """Length of the file in bytes."""
        return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Read up to ``length`` bytes; fewer only at the end of the file."""
        pieces: list[bytes] = []
        while length > 0:
            piece = os.pread(self._fd, length, offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def write(self, offset: int, data: bytes) -> int:
        """Write at ``offset``; the count may be short, as the operating system decides."""
        return os.pwrite(self._fd, data, offset)

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        """``fsync``, since ``fdatasync`` costs the same on a file that has grown."""
        os.fsync(self._fd)

    def sync_folder(self) -> None:
        """``fsync`` the folder, without which a new file may vanish whole."""
        folder = os.open(Path(self._path).parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Close the descriptor, which also releases the lock. Idempotent."""
        if self._fd >= 0:
            descriptor, self._fd = self._fd, -1
            os.close(descriptor)


class OsFiles:
    """The real file system. Implements :class:`Files`."""

    def open(self, path: str) -> File:
        """Open ``path``, creating it with mode 0600 if missing."""
        return OsFile(path)

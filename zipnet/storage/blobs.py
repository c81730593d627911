"""Content-addressed blobs: aggregates, partials, registrations, KEM announcements.

A blob is what its digest says; it is checked when it comes in and again when it is read back from
disk (rows M8, A6). Blobs live in bounded memory; those that must survive a crash are *kept* as one
file each. Methods may be called from several threads. What may be served to whom is decided by the
caller: the store only holds.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from zipnet.errors import RemoteProtocolError, SafeMode, StorageError
from zipnet.protocol.ids import Digest, content_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BlobStore"]

_SUFFIX: Final = ".blob"


class BlobStore:
    """Blobs by digest: recent ones in memory, kept ones on disk too.

    Args:
        folder: Folder of kept blobs; must exist.
        max_bytes: Cap of memory; the least recently used blob that is not kept goes first.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._memory: OrderedDict[Digest, bytes] = OrderedDict()
        self._size = 0
        self._pinned: frozenset[Digest] = frozenset()
        self._failed = False
        self._lock = threading.Lock()  # guards the memory only, never a file operation

    def put(self, blob: bytes, *, expected: Digest | None = None) -> Digest:
        """Hold a blob in memory and return its digest.

        Raises:
            RemoteProtocolError: When its digest is not the expected one.
        """
        digest = content_digest(blob)
        if expected is not None and digest != expected:
            raise RemoteProtocolError("blob does not match the digest it was asked for by")
        self._hold(digest, blob)
        return digest

    def keep(self, digest: Digest, blob: bytes | None = None) -> None:
        """Make a blob durable: the one that is given, or else the one that is held.

        Raises:
            StorageError: When the blob is not here.
            SafeMode: When it could not be made durable, now or earlier.
        """
        if self._failed:
            raise SafeMode("the blobs take no more writes")
        if blob is None:
            with self._lock:
                blob = self._memory.get(digest)
        path = self._path(digest)
        try:
            if not path.exists():
                if blob is None:
                    raise StorageError("a blob that is not here cannot be kept")
                temporary = path.with_suffix(".tmp")
                _write_durably(temporary, blob)
                temporary.replace(path)
            # Also where the file is there: an earlier attempt may have ended before this line.
            _sync_folder(self._folder)
        except OSError as error:
            self._failed = True
            raise SafeMode(f"a blob could not be made durable: {error.strerror}") from error

    def pin(self, digests: frozenset[Digest]) -> None:
        """Let go of none of these for room, until others are named."""
        with self._lock:
            self._pinned = digests

    def get(self, digest: Digest) -> bytes | None:
        """Return a blob, or None when it is not here.

        Raises:
            StorageError: When the kept file no longer matches its digest.
        """
        with self._lock:
            held = self._memory.get(digest)
            if held is not None:
                self._memory.move_to_end(digest)
                return held
        try:
            blob = self._path(digest).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"a kept blob cannot be read: {error.strerror}") from error
        if content_digest(blob) != digest:
            raise StorageError("a kept blob no longer matches its digest")
        self._hold(digest, blob)
        return blob

    def drop(self, digests: Iterable[Digest]) -> None:
        """Forget blobs, in memory and on disk.

        Raises:
            SafeMode: When the disk refuses.
        """
        for digest in digests:
            with self._lock:
                blob = self._memory.pop(digest, None)
                self._size -= len(blob) if blob is not None else 0
            try:
                self._path(digest).unlink(missing_ok=True)
            except OSError as error:
                raise SafeMode(f"a blob could not be removed: {error.strerror}") from error

    def kept(self) -> list[Digest]:
        """Return the digests of all kept blobs."""
        return [Digest(bytes.fromhex(path.stem)) for path in self._folder.glob(f"*{_SUFFIX}")]

    def _hold(self, digest: Digest, blob: bytes) -> None:
        with self._lock:
            if digest in self._memory:
                self._memory.move_to_end(digest)
                return
            self._memory[digest] = blob
            self._size += len(blob)
            if self._size > self._max_bytes:
                self._make_room(digest)

    def _make_room(self, newest: Digest) -> None:
        for digest in [d for d in self._memory if d != newest and d not in self._pinned]:
            if self._size <= self._max_bytes:
                return
            self._size -= len(self._memory.pop(digest))

    def _path(self, digest: Digest) -> Path:
        return self._folder / (digest.hex() + _SUFFIX)


def _write_durably(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

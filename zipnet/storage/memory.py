"""Adapters that keep nothing: the amnesia profile's journal, custody files, blobs and records.

They stand behind the same ports as their durable siblings, so no machine and no effect knows which
profile runs. What they promise is less: it lasts as long as the process.

Rules:

1. Nothing here opens a file.
2. What is dropped is gone at once; what is kept is bounded or belongs to a registered client.
3. Records are kept up to a number of bytes; the oldest go first. Whoever asks for older ones is
   given those from the oldest on, and can see by their sequence that some are missing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

from zipnet.errors import LocalProtocolError, RemoteProtocolError, StorageError
from zipnet.protocol.ids import Digest, content_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MemoryBlobs", "MemoryCustody", "MemoryJournal", "MemoryRecords"]

RECORD_BYTES: Final = 256 * 1024 * 1024


class MemoryJournal:
    """A journal that remembers nothing: its owner's own memory is all there is.

    Satisfies the letter of :class:`zipnet.ports.Journal` except its survival: what was appended is
    gone, as after a crash, from the moment it was. For owners that keep their own copy.
    """

    def snapshot(self) -> bytes | None:
        """Nothing, ever: a process begins without memory."""
        return None

    def entries(self) -> Sequence[bytes]:
        """Nothing, ever: a process begins without memory."""
        return ()

    def append(self, entry: bytes) -> None:
        """Let an entry go."""

    def append_group(self, entries: Sequence[bytes]) -> None:
        """Let entries go."""

    def compact(self, snapshot: bytes, entries: Sequence[bytes]) -> None:
        """Let all of it go; the consensus engine's own memory shrinks all the same."""

    def truncate(self, count: int) -> None:
        """Refuse: there is nothing to drop.

        Raises:
            LocalProtocolError: Unless ``count`` is 0.
        """
        if count:
            raise LocalProtocolError("a journal without memory has no entries to drop")

    def close(self) -> None:
        """Do nothing."""


class MemoryCustody:
    """Custody files that are not there: the chains stand in the process's memory alone."""

    @property
    def durable(self) -> bool:
        """False."""
        return False

    def load(self) -> bytearray | None:
        """Nothing: a process begins without keys."""
        return None

    def store(self, data: bytearray) -> None:
        """Keep nothing of it."""

    def close(self) -> None:
        """Do nothing."""


class MemoryBlobs:
    """Blobs by digest, recent ones bounded, kept ones pinned. See :class:`zipnet.ports.Blobs`.

    Args:
        max_bytes: Cap of what is not kept; the least recently used goes first.
    """

    def __init__(self, *, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._recent: OrderedDict[Digest, bytes] = OrderedDict()
        self._pinned: dict[Digest, bytes] = {}
        self._in_use: frozenset[Digest] = frozenset()
        self._size = 0
        self._lock = threading.Lock()

    def put(self, blob: bytes, *, expected: Digest | None = None) -> Digest:
        """Hold a blob and return its digest.

        Raises:
            RemoteProtocolError: When its digest is not the expected one.
        """
        digest = content_digest(blob)
        if expected is not None and digest != expected:
            raise RemoteProtocolError("blob does not match the digest it was asked for by")
        with self._lock:
            if digest in self._pinned:
                return digest
            if digest not in self._recent:
                self._recent[digest] = blob
                self._size += len(blob)
            self._recent.move_to_end(digest)
            if self._size > self._max_bytes:
                self._make_room(digest)
        return digest

    def keep(self, digest: Digest, blob: bytes | None = None) -> None:
        """Keep a blob, the given one or the held one, for as long as the process lives.

        Raises:
            StorageError: When the blob is not here.
        """
        with self._lock:
            if digest in self._pinned:
                return
            held = self._recent.pop(digest, None)
            self._size -= len(held) if held is not None else 0
            blob = blob if held is None else held
            if blob is None:
                raise StorageError("a blob that is not here cannot be kept")
            self._pinned[digest] = blob

    def pin(self, digests: frozenset[Digest]) -> None:
        """Let go of none of these for room, until others are named."""
        with self._lock:
            self._in_use = digests

    def get(self, digest: Digest) -> bytes | None:
        """Return a blob, or None when it is not here."""
        with self._lock:
            pinned = self._pinned.get(digest)
            if pinned is not None:
                return pinned
            blob = self._recent.get(digest)
            if blob is not None:
                self._recent.move_to_end(digest)
            return blob

    def _make_room(self, newest: Digest) -> None:
        for old in [d for d in self._recent if d != newest and d not in self._in_use]:
            if self._size <= self._max_bytes:
                return
            self._size -= len(self._recent.pop(old))

    def drop(self, digests: Iterable[Digest]) -> None:
        """Forget blobs, kept or not."""
        with self._lock:
            for digest in digests:
                self._pinned.pop(digest, None)
                blob = self._recent.pop(digest, None)
                self._size -= len(blob) if blob is not None else 0

    def kept(self) -> list[Digest]:
        """Return the digests of all kept blobs."""
        with self._lock:
            return list(self._pinned)


class MemoryRecords:
    """The newest records, by sequence. See :class:`zipnet.ports.RecordStore`.

    Args:
        max_bytes: Cap; the oldest records go first, the newest stays.
    """

    def __init__(self, *, max_bytes: int = RECORD_BYTES) -> None:
        self._max_bytes = max_bytes
        self._records: deque[bytes] = deque()
        self._size = 0
        self._next = 0
        self._lock = threading.Lock()

    @property
    def begins_anywhere(self) -> bool:
        """True: what was before the first record is not needed to verify what follows."""
        return True

    @property
    def first_sequence(self) -> int:
        """The sequence of the oldest record held."""
        return self._next - len(self._records)

    @property
    def next_sequence(self) -> int:
        """The sequence the next record will have."""
        return self._next

    def append(self, sequence: int, data: bytes) -> None:
        """Hold one record. The very first may have any sequence: what was before it is not here.

        Raises:
            LocalProtocolError: When the sequence is not the next one.
        """
        with self._lock:
            if sequence != self._next and self._records:
                raise LocalProtocolError(f"record {sequence} is not next, {self._next} is")
            self._records.append(data)
            self._size += len(data)
            self._next = sequence + 1
            while self._size > self._max_bytes and len(self._records) > 1:
                self._size -= len(self._records.popleft())

    def read(self, from_sequence: int, limit: int, *, max_bytes: int = 1 << 63) -> list[bytes]:
        """Return up to ``limit`` records from a sequence, or the oldest held, on."""
        found: list[bytes] = []
        with self._lock:
            first = self._next - len(self._records)
            start = max(from_sequence, first) - first
            total = 0
            for position in range(start, min(len(self._records), start + limit)):
                data = self._records[position]
                total += len(data)
                if found and total > max_bytes:
                    break
                found.append(data)
        return found

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._records.clear()
            self._size = 0

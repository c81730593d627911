"""A journal that can forget its beginning: snapshots and the entries after them, in two slots.

Implements :class:`zipnet.ports.CompactingJournal`. A *generation* is a snapshot and the journal of
what came after it; generation n lives in slot ``a`` or ``b``, in turn, and the slot of generation
n - 1 is kept until generation n + 1 takes its place.

Files, for a base path ``consensus``: ``consensus.{a,b}.journal`` (see ``storage.journal``) and
``consensus.{a,b}.snapshot`` (big-endian)::

    snapshot = "ZNSNAPSH" ‖ version u16 ‖ identity 32 ‖ generation u64 ‖ length u32 ‖ bytes
               ‖ check 32
    journal's first entry = "ZNGENERA" ‖ generation u64 ‖ has snapshot u8

The check is BLAKE3 over everything before it, in derive-key mode.

Rules:

1. A generation exists from the moment the first frame of its journal is durable; that frame holds
   the generation record and everything the owner restates. Its snapshot was durable before. Nothing
   is renamed: a slot is emptied durably before it is written, and an empty slot counts for nothing.
2. Opening takes the newest generation. If its snapshot is damaged, the one before stands in: its
   snapshot, its entries, then those of the newest. Nothing that was appended is ever passed over,
   since a vote or a confirmation would be forgotten with it.
3. If there is none before, or its snapshot is damaged too, the folder is refused with
   :class:`~zipnet.errors.StorageError`.
4. After a stand-in the newest entries are copied behind the older ones, and only then the damaged
   slot is emptied: the next snapshot goes there.
5. Once a write failed, every later one raises :class:`~zipnet.errors.SafeMode`.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from zipnet.errors import LocalProtocolError, SafeMode, StorageError
from zipnet.storage.files import Files, OsFiles
from zipnet.storage.journal import MAX_GROUP_BYTES, FileJournal

__all__ = ["MAX_SNAPSHOT_BYTES", "CompactingFileJournal"]

MAX_SNAPSHOT_BYTES: Final = 64 << 20

_SLOTS: Final = ("a", "b")
_HEAD: Final = struct.Struct(">8sH32sQI")
_MAGIC: Final = b"ZNSNAPSH"
_VERSION: Final = 1
_CHECK_BYTES: Final = 32
_GENERATION: Final = struct.Struct(">8sQB")
_GENERATION_MARK: Final = b"ZNGENERA"
_COPY_BYTES: Final = MAX_GROUP_BYTES // 4


@dataclass(slots=True)
class _Slot:
    """One slot as it was found: its journal, and the generation in it (-1: empty)."""

    name: str
    journal: FileJournal
    generation: int
    has_snapshot: bool
    entries: Sequence[bytes]


class CompactingFileJournal:
    """A journal with snapshots. Implements :class:`zipnet.ports.CompactingJournal`.

    Args:
        base: Path the names of its files begin with. The folder must exist.
        identity: 32 bytes that say whose journal this is.
        files: The file operations; replaced by simulators.

    Attributes:
        stood_in: Whether the newest snapshot was damaged and the one before stood in.

    Raises:
        DuplicateIdentityError: Another process holds the files.
        ConfigError: They belong to another identity.
        StorageError: They cannot be read, or are damaged beyond what the slots make up for.
    """

    def __init__(
        self, base: str | os.PathLike[str], *, identity: bytes, files: Files | None = None
    ) -> None:
        self._base = os.fspath(base)
        self._identity = identity
        self._files = files or OsFiles()
        self._failed = False
        self.stood_in = False
        opened: list[_Slot] = []
        try:
            for name in _SLOTS:
                opened.append(self._open_slot(name))  # noqa: PERF401 - to be closed if one fails
            self._slots = {slot.name: slot for slot in opened}
            self._current = max(opened, key=lambda slot: slot.generation)
            self._snapshot, self._entries = self._recover()
        except BaseException:
            for slot in opened:
                slot.journal.close()
            raise

    def snapshot(self) -> bytes | None:
        """The snapshot found on opening, None if there was none; forgotten at the first write."""
        return self._snapshot

    def entries(self) -> Sequence[bytes]:
        """The entries after that snapshot, in order; forgotten at the first write."""
        return tuple(self._entries)

    def append_group(self, entries: Sequence[bytes]) -> None:
        """Append several entries with one fsync; after a crash all of them are there, or none.

        Raises:
            SafeMode: They could not be made durable, now or earlier.
            LocalProtocolError: An entry or the group is too large.
        """
        self._forget()
        if self._current.generation < 0:
            entries = (_GENERATION.pack(_GENERATION_MARK, 0, 0), *entries)
            self._current.generation = 0
        self._current.journal.append_group(entries)

    def compact(self, snapshot: bytes, entries: Sequence[bytes]) -> None:
        """Let ``snapshot`` and ``entries`` stand for everything so far, durably and at once.

        Args:
            snapshot: At most :data:`MAX_SNAPSHOT_BYTES`.
            entries: Everything the owner still needs that ``snapshot`` does not hold.

        Raises:
            SafeMode: It could not be made durable, now or earlier.
            LocalProtocolError: Snapshot or entries are too large.
        """
        if len(snapshot) > MAX_SNAPSHOT_BYTES:
            raise LocalProtocolError(f"a snapshot of {len(snapshot)} bytes is too large")
        if self._failed:
            raise SafeMode(f"the journal {self._base} takes no more writes")
        self._forget()
        other = self._other()
        generation = self._current.generation + 1
        # Latched first, released on success, as in the journal.
        self._failed = True
        other.journal.reset()
        self._write_snapshot(other.name, generation, snapshot)
        record = _GENERATION.pack(_GENERATION_MARK, generation, 1)
        other.journal.append_group((record, *entries))
        self._failed = False
        other.generation, other.has_snapshot = generation, True
        self._current = other

    def close(self) -> None:
        """Release the files and their locks. Idempotent."""
        for slot in self._slots.values():
            slot.journal.close()

    def _other(self) -> _Slot:
        return next(slot for slot in self._slots.values() if slot is not self._current)

    def _forget(self) -> None:
        self._snapshot, self._entries = None, ()

    def _open_slot(self, name: str) -> _Slot:
        path = f"{self._base}.{name}.journal"
        journal = FileJournal(path, identity=self._identity, files=self._files, retain=False)
        found = journal.entries()
        if not found:
            return _Slot(name, journal, -1, has_snapshot=False, entries=())
        try:
            mark, generation, has_snapshot = _GENERATION.unpack(found[0])
        except struct.error:
            mark, generation, has_snapshot = b"", 0, 0
        if mark != _GENERATION_MARK or has_snapshot > 1:
            journal.close()
            raise StorageError(f"the journal {path} does not say which generation it is")
        return _Slot(name, journal, generation, has_snapshot == 1, found[1:])

    def _recover(self) -> tuple[bytes | None, Sequence[bytes]]:
        newest = self._current
        older = self._other()
        if newest.generation < 0 or not newest.has_snapshot:
            return None, newest.entries
        snapshot = self._read_snapshot(newest)
        if snapshot is not None:
            return snapshot, newest.entries
        return self._stand_in(older, newest)

    def _stand_in(self, older: _Slot, newest: _Slot) -> tuple[bytes | None, Sequence[bytes]]:
        snapshot = self._read_snapshot(older) if older.has_snapshot else None
        follows = older.generation >= 0 and older.generation == newest.generation - 1
        if not follows or (older.has_snapshot and snapshot is None):
            raise StorageError(
                f"the snapshot beside {self._base} is damaged and nothing older can stand in",
                hint="the medium lost data; replace this server as its operator's procedure says",
            )
        for group in _groups(newest.entries):
            older.journal.append_group(group)
        newest.journal.reset()
        newest.generation = -1
        self._current = older
        self.stood_in = True
        return snapshot, (*older.entries, *newest.entries)

    def _read_snapshot(self, slot: _Slot) -> bytes | None:
        """The snapshot of a slot, None when it is damaged or of another generation."""
        path = f"{self._base}.{slot.name}.snapshot"
        try:
            file = self._files.open(path)
            try:
                raw = file.read(0, file.size())
            finally:
                file.close()
        except OSError as error:
            raise StorageError(f"cannot read the snapshot {path}: {error.strerror}") from error
        body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        if len(body) < _HEAD.size or not hmac.compare_digest(_check(body), check):
            return None
        magic, version, identity, generation, length = _HEAD.unpack_from(body)
        named = (magic, version, identity, generation, length)
        due = (_MAGIC, _VERSION, self._identity, slot.generation, len(body) - _HEAD.size)
        return body[_HEAD.size :] if named == due else None

    def _write_snapshot(self, name: str, generation: int, snapshot: bytes) -> None:
        path = f"{self._base}.{name}.snapshot"
        body = _HEAD.pack(_MAGIC, _VERSION, self._identity, generation, len(snapshot)) + snapshot
        rest = memoryview(body + _check(body))
        try:
            file = self._files.open(path)
            try:
                file.truncate(0)
                offset = 0
                while rest:
                    taken = file.write(offset, bytes(rest))
                    if taken <= 0:
                        raise OSError("the file took no bytes")
                    offset, rest = offset + taken, rest[taken:]
                file.sync()
                file.sync_folder()
            finally:
                file.close()
        except OSError as error:
            raise SafeMode(
                f"the snapshot {path} could not be made durable: {error.strerror}",
                hint="check the disk and its free space, then restart the node",
            ) from error


def _groups(entries: Sequence[bytes]) -> list[list[bytes]]:
    """Split entries into groups that one append takes."""
    groups: list[list[bytes]] = []
    size = _COPY_BYTES
    for entry in entries:
        if size + len(entry) > _COPY_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(entry)
        size += len(entry) + 16
    return groups


def _check(body: bytes) -> bytes:
    return blake3(body, derive_key_context="zipnet/v1/snapshot-file").digest()

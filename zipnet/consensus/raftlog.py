"""The engine's log, term, vote and commit hint: in memory, and in a :class:`~zipnet.ports.Journal`.

Stands where the library would put its own journal, which has no checksums, no fsync, and a pickle
beside it. The journal is a history of changes; replaying it gives the state. Changes are staged
and written as one group, which is atomic: a vote is there with its term, and the entries that
replace others are there whenever the others are gone.

Journal records (big-endian)::

    opening  = 0x01 ‖ version u8 ‖ server u8 ‖ size u8      first record, once
    entry    = 0x02 ‖ term u64 ‖ command type u8 ‖ command  at the next index
    drop     = 0x03 ‖ index u64                              entries from this index on are gone
    ballot   = 0x04 ‖ term u64 ‖ vote i8 (-1: none)
    commit   = 0x05 ‖ index u64                              a hint, never ahead of the entries

Rules:

1. Nothing that depends on a staged change may leave the process before it is written; the owner
   calls :meth:`DurableLog.take_staged`, writes, and only then sends.
2. The commit hint causes no write of its own; it rides with the next change.
3. The log is never compacted: no snapshots yet, so it grows with every command.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, overload

from pysyncobj.journal import Journal as LibraryJournal

from zipnet.consensus.messages import MAX_COMMAND_BYTES
from zipnet.errors import ConfigError, GuardError, StorageError

if TYPE_CHECKING:
    from zipnet.ports import Journal

__all__ = ["NO_OP", "REGULAR", "DurableLog", "LogEntry"]

#: The library's command types. It has two more; both unpickle, and neither can be written here.
REGULAR: Final = b"\x00"
NO_OP: Final = b"\x01"

#: The library's form of an entry: command with its type byte, index (from 1), term.
LogEntry = tuple[bytes, int, int]

_VERSION: Final = 1
_OPENING: Final = struct.Struct(">BBBB")
_ENTRY: Final = struct.Struct(">BQ")
_NUMBER: Final = struct.Struct(">BQ")
_BALLOT: Final = struct.Struct(">BQb")
_KIND_OPENING, _KIND_ENTRY, _KIND_DROP, _KIND_BALLOT, _KIND_COMMIT = 1, 2, 3, 4, 5


class DurableLog(LibraryJournal):  # type: ignore[misc]  # the library has no types
    """The library's journal interface over a durable journal.

    Args:
        journal: Where changes are written. Only this log may write to it.
        server: Index of this member; a journal written by another is refused.
        size: Number of members, likewise.

    Raises:
        ConfigError: The journal was written by another member or for another committee size.
        StorageError: A record is malformed (it was not damaged: its checksum held).
    """

    def __init__(self, journal: Journal, *, server: int, size: int) -> None:
        self._journal = journal
        self._entries: list[LogEntry] = []
        self._term = 0
        self._vote: int | None = None
        self._commit = 1
        self._written_commit = 1
        self._staged: list[bytes] = []
        self._replay(journal.entries(), _OPENING.pack(_KIND_OPENING, _VERSION, server, size))
        self._written_commit = self._commit

    def take_staged(self) -> list[bytes]:
        """Return the records not yet written (the commit hint with them) and forget them."""
        if self._staged and self._commit != self._written_commit:
            self._staged.append(_NUMBER.pack(_KIND_COMMIT, self._commit))
            self._written_commit = self._commit
        staged, self._staged = self._staged, []
        return staged

    def write(self, records: Sequence[bytes]) -> None:
        """Make ``records`` durable with one fsync. May run in another thread.

        Raises:
            SafeMode: They could not be made durable.
        """
        self._journal.append_group(records)

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry at the next index.

        Raises:
            GuardError: The entry leaves a gap, or its command type is neither of the two allowed.
        """
        if self._entries and idx != self._entries[-1][1] + 1:
            raise GuardError("a log entry that does not follow the last one")
        if command[:1] not in (REGULAR, NO_OP):
            raise GuardError("a log entry of a command type that is not allowed")
        self._entries.append((command, idx, term))
        self._staged.append(_ENTRY.pack(_KIND_ENTRY, term) + command)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - the library's name
        """Drop entries from position ``entryFrom`` (index minus one) on.

        Raises:
            GuardError: One of them is committed.
        """
        if entryFrom < self._commit:
            raise GuardError("a committed log entry was about to be dropped")
        del self._entries[entryFrom:]
        self._staged.append(_NUMBER.pack(_KIND_DROP, entryFrom + 1))

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:  # noqa: N802, N803
        """Set term and vote."""
        self._term = term
        self._vote = votedForNodeId
        vote = -1 if votedForNodeId is None else votedForNodeId
        self._staged.append(_BALLOT.pack(_KIND_BALLOT, term, vote))

    def getCurrentTerm(self) -> int:  # noqa: N802
        """The current term."""
        return self._term

    def getVotedForNodeId(self) -> int | None:  # noqa: N802
        """Whom this member voted for in the current term."""
        return self._vote

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803
        """Remember how far the log is committed."""
        self._commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        """How far the log is known to be committed; 1 (the founding no-op) at least."""
        return self._commit

    def batch(self, index: int, most: int) -> list[LogEntry]:
        """Return up to ``most`` entries from ``index`` on."""
        return self._entries[index - 1 : index - 1 + most]

    @overload
    def __getitem__(self, item: int) -> LogEntry: ...

    @overload
    def __getitem__(self, item: slice) -> list[LogEntry]: ...

    def __getitem__(self, item: int | slice) -> LogEntry | list[LogEntry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Refuse: only a snapshot would need it."""
        raise GuardError("the consensus log was about to be cleared")

    def deleteEntriesTo(self, *_: object) -> None:  # noqa: N802
        """Refuse: only compaction would need it."""
        raise GuardError("the consensus log was about to be compacted")

    def _destroy(self) -> None:
        """Do nothing: whoever opened the journal closes it."""

    def _replay(self, records: Sequence[bytes], opening: bytes) -> None:
        if not records:
            self._staged = [opening]
            self.add(NO_OP, 1, 0)
            return
        if records[0] != opening:
            raise ConfigError(
                "the consensus journal was written by another server or committee",
                hint="use the data folder that was made for this server",
            )
        for record in records[1:]:
            try:
                self._replay_one(record)
            except (struct.error, IndexError) as error:
                raise StorageError("the consensus journal holds a malformed record") from error
        if not self._entries or self._commit > len(self._entries):
            raise StorageError("the consensus journal holds fewer entries than were committed")

    def _replay_one(self, record: bytes) -> None:
        kind = record[0]
        if kind == _KIND_ENTRY:
            _, term = _ENTRY.unpack_from(record)
            command = record[_ENTRY.size :]
            if command[:1] not in (REGULAR, NO_OP) or len(command) > MAX_COMMAND_BYTES + 1:
                raise StorageError("the consensus journal holds an entry of a type not allowed")
            self._entries.append((command, len(self._entries) + 1, term))
        elif kind == _KIND_BALLOT:
            _, self._term, vote = _BALLOT.unpack(record)
            self._vote = None if vote < 0 else vote
        elif kind == _KIND_DROP:
            index = _NUMBER.unpack(record)[1]
            if not self._commit < index <= len(self._entries):
                raise StorageError("the consensus journal drops entries it should not")
            del self._entries[index - 1 :]
        elif kind == _KIND_COMMIT:
            self._commit = _NUMBER.unpack(record)[1]
        else:
            raise StorageError(f"the consensus journal holds a record of unknown kind {kind}")

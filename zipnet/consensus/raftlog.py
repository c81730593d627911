"""The engine's log, term, vote, commit hint and snapshot: in memory, and durable.

Stands where the library would put its own journal, which has no checksums, no fsync, and a pickle
beside it. The journal is a history of changes; replaying it gives the state. Changes are staged
and written as one group, which is atomic: a vote is there with its term, and the entries that
replace others are there whenever the others are gone.

Journal records (big-endian)::

    opening  = 0x01 ‖ version u8 ‖ server u8 ‖ member id u64 ‖ founding members    first record
    entry    = 0x02 ‖ term u64 ‖ command type u8 ‖ command  at the next index
    drop     = 0x03 ‖ index u64                              entries from this index on are gone
    ballot   = 0x04 ‖ term u64 ‖ vote i8 (-1: none)
    commit   = 0x05 ‖ index u64                              a hint, never ahead of the entries
    base     = 0x06 ‖ index u64 ‖ term u64                   a snapshot stands for all up to here

Rules:

1. Nothing that depends on a staged change may leave the process before it is written; the owner
   calls :meth:`DurableLog.take_staged`, writes, and only then sends.
2. The commit hint causes no write of its own; it rides with the next change.
3. A snapshot is written together with everything still alive — opening, base, ballot, the entries
   after it, commit — and so begins a new history. Reading that behind an older one, which happens
   when the newer snapshot is damaged, gives the same log.
4. In memory a number of entries from before the snapshot stay, so that a member a little behind
   is sent entries; one further behind is sent the snapshot.
5. The founding members are those given when the journal was new, whatever is given later.
6. The first entry is never handed out: it is the founding no-op, or what a snapshot ends with.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

from pysyncobj.journal import Journal as LibraryJournal

from zipnet.consensus.members import Members, Snapshot, decode_members, decode_snapshot
from zipnet.consensus.messages import MAX_COMMAND_BYTES
from zipnet.errors import ConfigError, GuardError, StorageError

if TYPE_CHECKING:
    from zipnet.ports import CompactingJournal

__all__ = ["MEMBERS", "NO_OP", "REGULAR", "DurableLog", "LogEntry", "Staged"]

#: The library's command types. Its MEMBERSHIP unpickles there and carries our members here; its
#: fourth one, which unpickles too, cannot be written here.
REGULAR: Final = b"\x00"
NO_OP: Final = b"\x01"
MEMBERS: Final = b"\x02"
_TYPES: Final = (REGULAR, NO_OP, MEMBERS)

#: The library's form of an entry: command with its type byte, index (from 1), term.
LogEntry = tuple[bytes, int, int]

_VERSION: Final = 2
_OPENING: Final = struct.Struct(">BBBQ")
_ENTRY: Final = struct.Struct(">BQ")
_NUMBER: Final = struct.Struct(">BQ")
_BALLOT: Final = struct.Struct(">BQb")
_BASE: Final = struct.Struct(">BQQ")
_KIND_OPENING, _KIND_ENTRY, _KIND_DROP, _KIND_BALLOT, _KIND_COMMIT, _KIND_BASE = range(1, 7)
#: A snapshot waits while more than this would have to be restated beside it.
_MAX_RESTATED_BYTES: Final = 8 << 20
_TRAILING: Final = 256


@dataclass(frozen=True, slots=True)
class Staged:
    """What one step has to make durable: records, and with a snapshot all records there are."""

    records: list[bytes]
    snapshot: bytes | None = None


class DurableLog(LibraryJournal):  # type: ignore[misc]  # the library has no types
    """The library's journal interface over a durable journal.

    Args:
        journal: Where changes are written. Only this log may write to it.
        server: Seat of this member; a journal written by another is refused.
        founding: The members where the log says nothing else; of effect in a new journal only.
        trailing: Entries before a snapshot that stay in memory.

    Attributes:
        snapshot: The newest snapshot, None before the first.

    Raises:
        ConfigError: The journal was written by another member or for another committee size.
        StorageError: A record is malformed (it was not damaged: its checksum held), or entries are
            missing that a damaged snapshot stood for.
    """

    def __init__(
        self,
        journal: CompactingJournal,
        *,
        server: int,
        founding: Members,
        trailing: int = _TRAILING,
    ) -> None:
        self._journal = journal
        self._size = len(founding.seats)
        self._founding = founding
        self._trailing = trailing
        self._opening = _OPENING.pack(
            _KIND_OPENING, _VERSION, server, founding.seats[server].member
        )
        self.snapshot: Snapshot | None = None
        self._entries: list[LogEntry] = []
        self._members: list[tuple[int, Members]] = []
        self._term = 0
        self._vote: int | None = None
        self._commit = 1
        self._staged: list[bytes] = []
        self._compacted = False
        self._replay(journal.snapshot(), journal.entries())
        self._written_commit = self._commit

    # ---- what the owner calls ------------------------------------------------------------------

    def take_staged(self) -> Staged | None:
        """Return what is not yet written (the commit hint with it) and forget it."""
        if self._compacted and self.snapshot is not None:
            self._compacted = False
            self._staged = []
            self._written_commit = self._commit
            return Staged(self._restated(), self.snapshot.encode())
        if self._staged and self._commit != self._written_commit:
            self._staged.append(_NUMBER.pack(_KIND_COMMIT, self._commit))
            self._written_commit = self._commit
        staged, self._staged = self._staged, []
        return Staged(staged) if staged else None

    def write(self, staged: Staged) -> None:
        """Make ``staged`` durable at once. May run in another thread.

        Raises:
            SafeMode: It could not be made durable.
        """
        if staged.snapshot is None:
            self._journal.append_group(staged.records)
        else:
            self._journal.compact(staged.snapshot, staged.records)

    def compact(self, commands: int, state: bytes) -> bool:
        """Let ``state`` stand for the first ``commands`` commands; False where that must wait.

        Raises:
            GuardError: So many commands are not committed.
        """
        known = self.snapshot
        if known is not None and commands <= known.commands:
            return True
        index = self._index_of(commands)
        if index > self._commit:
            raise GuardError("a snapshot was about to stand for commands that are not committed")
        if sum(len(entry[0]) for entry in self.batch(index + 1, len(self))) > _MAX_RESTATED_BYTES:
            return False
        term = self._entries[index - self.first][2]
        self.snapshot = Snapshot(index, term, commands, self.members_at(index), state)
        self._compacted = True
        self._forget_before(max(self.first, index - self._trailing))
        return True

    def install(self, snapshot: Snapshot) -> None:
        """Take a leader's snapshot of what this log does not have; the rest of the log goes.

        Raises:
            GuardError: The log has committed as much already.
        """
        if snapshot.index <= self._commit:
            raise GuardError("a snapshot was about to take committed entries back")
        self.snapshot = snapshot
        self._entries = [(NO_OP, snapshot.index, snapshot.term)]
        self._members = [(snapshot.index, snapshot.members)]
        self._commit = snapshot.index
        self._compacted = True

    @property
    def first(self) -> int:
        """Index of the first entry in memory."""
        return self._entries[0][1]

    def term_at(self, index: int) -> int:
        """Term of the entry at ``index``, which must be in memory."""
        return self._entries[index - self.first][2]

    def batch(self, index: int, most: int) -> list[LogEntry]:
        """Return up to ``most`` entries from ``index`` on, which must be in memory."""
        start = index - self.first
        return self._entries[start : start + most]

    def members(self) -> Members:
        """The members in force: those of the newest entry that names any."""
        return self._members[-1][1]

    def members_index(self) -> int:
        """Index of the entry that put them in force."""
        return self._members[-1][0]

    def members_at(self, index: int) -> Members:
        """The members as of ``index``, which must not be before the first entry."""
        return next(members for since, members in reversed(self._members) if since <= index)

    # ---- the library's interface ---------------------------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry at the next index.

        Raises:
            GuardError: The entry leaves a gap, or its command type is none of those allowed.
        """
        if self._entries and idx != self._entries[-1][1] + 1:
            raise GuardError("a log entry that does not follow the last one")
        if command[:1] not in _TYPES:
            raise GuardError("a log entry of a command type that is not allowed")
        self._append(command, idx, term)
        self._staged.append(_ENTRY.pack(_KIND_ENTRY, term) + command)

    def drop_from(self, index: int) -> None:
        """Drop entries from ``index`` on.

        Raises:
            GuardError: One of them is committed.
        """
        if index <= self._commit:
            raise GuardError("a committed log entry was about to be dropped")
        self._drop(index)
        self._staged.append(_NUMBER.pack(_KIND_DROP, index))

    def deleteEntriesFrom(self, *_: object) -> None:  # noqa: N802 - the library's name
        """Refuse: the library counts from the first entry it sees; see :meth:`drop_from`."""
        raise GuardError("the consensus library was about to drop log entries")

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:  # noqa: N802, N803
        """Set term and vote."""
        self._term = term
        self._vote = votedForNodeId
        self._staged.append(self._ballot())

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

    @overload
    def __getitem__(self, item: int) -> LogEntry: ...

    @overload
    def __getitem__(self, item: slice) -> list[LogEntry]: ...

    def __getitem__(self, item: int | slice) -> LogEntry | list[LogEntry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Refuse: snapshots are installed by :meth:`install`."""
        raise GuardError("the consensus log was about to be cleared")

    def deleteEntriesTo(self, *_: object) -> None:  # noqa: N802
        """Refuse: the log is compacted by :meth:`compact`."""
        raise GuardError("the consensus log was about to be compacted by the library")

    def _destroy(self) -> None:
        """Do nothing: whoever opened the journal closes it."""

    # ---- inside --------------------------------------------------------------------------------

    def _append(self, command: bytes, index: int, term: int) -> None:
        self._entries.append((command, index, term))
        if command[:1] == MEMBERS:
            self._members.append((index, decode_members(command[1:], size=self._size)))

    def _drop(self, index: int) -> None:
        del self._entries[index - self.first :]
        while self._members[-1][0] >= index:
            self._members.pop()

    def _forget_before(self, index: int) -> None:
        members = self.members_at(index)
        del self._entries[: index - self.first]
        later = [item for item in self._members if item[0] > index]
        self._members = [(index, members), *later]

    def _index_of(self, commands: int) -> int:
        """Index of the command with this number; numbers begin after the newest snapshot."""
        known = self.snapshot
        count, start = (0, 1) if known is None else (known.commands, known.index)
        for command, index, _ in self.batch(start + 1, len(self)):
            count += command[:1] == REGULAR
            if count == commands and command[:1] == REGULAR:
                return index
        raise GuardError("a snapshot was about to stand for commands that are not in the log")

    def _ballot(self) -> bytes:
        return _BALLOT.pack(_KIND_BALLOT, self._term, -1 if self._vote is None else self._vote)

    def _restated(self) -> list[bytes]:
        assert self.snapshot is not None
        base = self.snapshot.index
        entries = self.batch(base + 1, len(self))
        return [
            self._opening + self._founding.encode(),
            _BASE.pack(_KIND_BASE, base, self.snapshot.term),
            self._ballot(),
            *(_ENTRY.pack(_KIND_ENTRY, term) + command for command, _, term in entries),
            _NUMBER.pack(_KIND_COMMIT, self._commit),
        ]

    def _replay(self, snapshot: bytes | None, records: Sequence[bytes]) -> None:
        self._members = [(1, self._founding)]
        if snapshot is not None:
            found = decode_snapshot(snapshot, size=self._size)
            self.snapshot = found
            self._entries = [(NO_OP, found.index, found.term)]
            self._members = [(found.index, found.members)]
            self._commit = found.index
        elif not records:
            self._staged = [self._opening + self._founding.encode()]
            self.add(NO_OP, 1, 0)
            return
        self._open(records)
        for record in records[1:]:
            try:
                self._replay_one(record)
            except (struct.error, IndexError) as error:
                raise StorageError("the consensus journal holds a malformed record") from error
        if not self._entries or self._commit > self._entries[-1][1]:
            raise StorageError("the consensus journal holds fewer entries than were committed")

    def _open(self, records: Sequence[bytes]) -> None:
        if records and records[0].startswith(self._opening):
            try:
                members = decode_members(records[0][len(self._opening) :], size=self._size)
            except StorageError:
                members = None
            if members is not None:
                self._founding = members
                if self.snapshot is None:
                    self._members = [(1, members)]
                return
        raise ConfigError(
            "the consensus journal was written by another server or committee",
            hint="use the data folder that was made for this server",
        )

    def _replay_one(self, record: bytes) -> None:
        kind = record[0]
        if kind == _KIND_ENTRY:
            _, term = _ENTRY.unpack_from(record)
            command = record[_ENTRY.size :]
            if command[:1] not in _TYPES or len(command) > MAX_COMMAND_BYTES + 1:
                raise StorageError("the consensus journal holds an entry of a type not allowed")
            self._append(command, self._entries[-1][1] + 1 if self._entries else 1, term)
        elif kind == _KIND_BALLOT:
            _, self._term, vote = _BALLOT.unpack(record)
            self._vote = None if vote < 0 else vote
        elif kind == _KIND_DROP:
            index = _NUMBER.unpack(record)[1]
            if not self._commit < index <= self._entries[-1][1]:
                raise StorageError("the consensus journal drops entries it should not")
            self._drop(index)
        elif kind == _KIND_COMMIT:
            self._commit = _NUMBER.unpack(record)[1]
        elif kind == _KIND_BASE:
            self._rebase(*_BASE.unpack(record)[1:])
        elif not record.startswith(self._opening):
            raise StorageError(f"the consensus journal holds a record of unknown kind {kind}")

    def _rebase(self, index: int, term: int) -> None:
        """Begin the newer history at ``index``: what it restates takes the place of what is there.

        Everything up to there is committed, so this log has it, unless it came as a snapshot.
        """
        there = self._entries and self.first <= index <= self._entries[-1][1]
        if not there or self.term_at(index) != term:
            raise StorageError(
                "the newest consensus snapshot is damaged, and this server never had what it held",
                hint="the medium lost data; replace this server as its operator's procedure says",
            )
        self._drop(index + 1)
        self._commit = index

"""The engines the consensus suite is run against, and broken ones it must catch.

An engine joins the suite by a class with ``name`` and ``build``; everything else is the port's.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from zipnet.consensus import EmbeddedConsensus, Timing
from zipnet.consensus.raft import RaftMember
from zipnet.consensus.raftlog import NO_OP, REGULAR, DurableLog, Staged
from zipnet.storage import CompactingFileJournal

if TYPE_CHECKING:
    from sim.disk import Disk
    from zipnet.consensus.messages import AppendEntries, Message, Vote
    from zipnet.ports import Consensus, ConsensusMesh
    from zipnet.storage.compacting import _Slot

IDENTITY = bytes(range(32))
ENTRY_RECORD = 2


@dataclass(frozen=True)
class Place:
    """What one life of one member is given."""

    server: int
    size: int
    disk: Disk
    mesh: ConsensusMesh
    rng: random.Random
    run_blocking: Callable[[Callable[[], None]], Awaitable[None]]
    rivalry: bool = False
    members: tuple[int, ...] = ()
    joining: bool = False
    trailing: int = 64


class EngineUnderTest(Protocol):
    name: str
    lying_disks: bool

    def build(self, place: Place) -> Consensus: ...

    def want(self, engine: Consensus, members: tuple[int, ...]) -> None:
        """Ask for these members, seat by seat."""
        ...

    def settled(self, engine: Consensus, members: tuple[int, ...]) -> bool:
        """Whether this engine leads a committee of exactly these members, all of them voting."""
        ...

    def damage(self, disk: Disk, rng: random.Random) -> bool:
        """Spoil the newest snapshot on a disk nobody uses; False where there is none."""
        ...


class Embedded:
    name = "embedded"
    lying_disks = False
    member: type[RaftMember] = RaftMember
    log: type[DurableLog] = DurableLog
    journal: type[CompactingFileJournal] = CompactingFileJournal

    def build(self, place: Place) -> Consensus:
        log = functools.partial(self.log, trailing=place.trailing)
        journal = self.journal("raft", identity=IDENTITY, files=place.disk)
        parts = {"_member_type": self.member, "_log_type": staticmethod(log)}
        engine: type[EmbeddedConsensus] = type("UnderTest", (EmbeddedConsensus,), parts)
        return engine(
            server=place.server,
            size=place.size,
            journal=journal,
            mesh=place.mesh,
            rng=place.rng,
            timing=Timing(0.05, 0.2, 0.26) if place.rivalry else None,
            run_blocking=place.run_blocking,
            members=place.members,
            joining=place.joining,
        )

    def want(self, engine: Consensus, members: tuple[int, ...]) -> None:
        assert isinstance(engine, EmbeddedConsensus)
        engine.want_members(members)

    def settled(self, engine: Consensus, members: tuple[int, ...]) -> bool:
        assert isinstance(engine, EmbeddedConsensus)
        log = engine._member.log
        sound = log.members_index() <= log.getRaftCommitIndex()
        seats = log.members().seats
        inside = tuple(seat.member for seat in seats if seat.votes) == members
        return sound and inside and engine._member._isLeader() and engine.caught_up()

    def damage(self, disk: Disk, rng: random.Random) -> bool:
        names = [f"raft.{slot}.snapshot" for slot in "ab"]
        newest = max(names, key=lambda name: disk.peek(name)[42:50])
        if len(disk.peek(newest)) == 0:
            return False
        content = disk.content(newest)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return True


class OnLyingDisks(Embedded):
    """The engine as it is, on disks whose fsync does nothing."""

    name = "fsync does nothing"
    lying_disks = True


class _HastyLog(DurableLog):
    """Writes what was staged one step late, so messages leave before it is durable."""

    late: Staged | None = None

    def take_staged(self) -> Staged | None:
        previous, self.late = self.late, super().take_staged()
        return previous


class AnswersBeforeWriting(Embedded):
    name = "messages leave before the write"
    log = _HastyLog


class _CountsTwice(RaftMember):
    def _on_vote(self, node: object, message: Vote) -> None:
        self._SyncObj__onMessageReceived(node, {"type": "response_vote", "term": message.term})


class CountsVotesTwice(Embedded):
    name = "a repeated vote counts twice"
    member = _CountsTwice


class _Shrinks(RaftMember):
    def _store(self, message: AppendEntries) -> bool:
        index = message.prev_index + 1
        if self._last()[1] >= index:
            self.log._commit = min(self.log._commit, message.prev_index)
            self.log.drop_from(index)
        for number, entry in enumerate(message.entries, start=index):
            command = NO_OP if entry.command is None else REGULAR + entry.command
            self.log.add(command, number, entry.term)
        self._SyncObj__raftCommitIndex = min(self._SyncObj__raftCommitIndex, self._last()[1])
        return True


class DropsWhatItConfirmed(Embedded):
    """The library's own handling of entries: cut after ``prev_index``, then append."""

    name = "the library's way with entries"
    member = _Shrinks


class _CommitsUnconfirmed(RaftMember):
    def _on_append(self, leader: object, message: AppendEntries) -> None:
        super()._on_append(leader, message)
        commit = min(message.commit_index, self._last()[1])
        if message.term >= self._term() and commit > self._SyncObj__raftCommitIndex:
            self._SyncObj__raftCommitIndex = commit


class CommitsUnconfirmed(Embedded):
    """Keeps its tail, but believes it is what the leader has committed."""

    name = "the commit index outruns what was confirmed"
    member = _CommitsUnconfirmed


class _CountsAnyMajority(RaftMember):
    def receive(self, server: int, sender: int, message: Message) -> None:
        super().receive(server, sender, message)
        if self._isLeader():
            self._SyncObj__raftMatchIndex[self._members[server]] = self._last()[1]


class ConfirmsForOthers(Embedded):
    """Takes any message of a follower for a confirmation of everything."""

    name = "an answer confirms more than it says"
    member = _CountsAnyMajority


class _RestatesNothing(DurableLog):
    def _restated(self) -> list[bytes]:
        return [record for record in super()._restated() if record[0] != ENTRY_RECORD]


class SnapshotsForgetTheTail(Embedded):
    """Writes a snapshot without the entries that follow it."""

    name = "entries behind a snapshot are not restated"
    log = _RestatesNothing


class _HearsAnybody(RaftMember):
    def receive(self, server: int, sender: int, message: Message) -> None:
        super().receive(server, self.log.members().seats[server].member, message)


class HearsThoseReplaced(Embedded):
    """Lets the word of a replaced member count for the one in its seat."""

    name = "a replaced member still counts"
    member = _HearsAnybody


class _ActsTooSoon(RaftMember):
    def _is_voter(self) -> bool:
        return True


class NewcomersVoteAtOnce(Embedded):
    """Lets a newcomer take itself for a founder with an empty log."""

    name = "a newcomer founds a committee of its own"
    member = _ActsTooSoon

    def build(self, place: Place) -> Consensus:
        return super().build(replace(place, joining=False))


class _PassesOver(CompactingFileJournal):
    def _stand_in(self, older: _Slot, newest: _Slot) -> tuple[bytes | None, Sequence[bytes]]:
        snapshot, _ = super()._stand_in(older, newest)
        return snapshot, older.entries


class StandInForgets(Embedded):
    """After a damaged snapshot goes on from the one before, without what came after."""

    name = "what came after a damaged snapshot is passed over"
    journal = _PassesOver


ENGINES: tuple[EngineUnderTest, ...] = (Embedded(),)
BROKEN: tuple[EngineUnderTest, ...] = (
    OnLyingDisks(),
    AnswersBeforeWriting(),
    CountsVotesTwice(),
    DropsWhatItConfirmed(),
    CommitsUnconfirmed(),
    ConfirmsForOthers(),
    SnapshotsForgetTheTail(),
    HearsThoseReplaced(),
    NewcomersVoteAtOnce(),
    StandInForgets(),
)

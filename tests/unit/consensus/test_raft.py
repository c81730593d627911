"""What the member does differently from the library it is built on, one difference at a time."""

from __future__ import annotations

import random

import pytest

from sim.disk import Disk
from zipnet.consensus.members import Members
from zipnet.consensus.messages import (
    AppendEntries,
    AppendReply,
    Entry,
    Message,
    RequestVote,
    Submit,
    SubmitReply,
    Vote,
)
from zipnet.consensus.raft import MAX_UNCOMMITTED, RaftMember
from zipnet.consensus.raftlog import DurableLog
from zipnet.consensus.timing import Timing
from zipnet.storage import CompactingFileJournal

IDENTITY = bytes(32)


class Bench:
    """One member with a hand-turned clock; everything it stages is written at once."""

    def __init__(self, size: int = 3, log: type[DurableLog] = DurableLog) -> None:
        self.size = size
        self.log = log
        self.disk = Disk(random.Random(1))
        self.now = 0.0
        self.restart()

    def restart(self) -> None:
        self.disk.crash()
        journal = CompactingFileJournal("raft", identity=IDENTITY, files=self.disk)
        self.member = RaftMember(
            server=0,
            member=0,
            size=self.size,
            log=self.log(journal, server=0, founding=Members.founding(tuple(range(self.size)))),
            timing=Timing(),
            clock=lambda: self.now,
            rng=random.Random(1),
        )
        for server in range(1, self.size):
            self.member.link(server, up=True)
        self.settle()

    def settle(self) -> list[tuple[int, Message]]:
        staged = self.member.log.take_staged()
        if staged is not None:
            self.member.log.write(staged)
        sent, self.member.outbox = self.member.outbox, []
        return sent

    def hear(self, server: int, *messages: Message) -> list[tuple[int, Message]]:
        for message in messages:
            self.member.receive(server, server, message)
        self.member.tick()
        return self.settle()

    def campaign(self) -> int:
        self.now += 2.0
        self.member.tick()
        asked = [message for _, message in self.settle() if isinstance(message, RequestVote)]
        assert len(asked) == self.size - 1
        return asked[0].term

    def lead(self) -> int:
        term = self.campaign()
        for server in range(1, self.size // 2 + 1):
            self.hear(server, Vote(term))
        assert self.member.leader() == 0
        return term

    def entries(self) -> list[tuple[int, bytes]]:
        return [(term, command) for command, _, term in self.member.log[1:]]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def follow(term: int, previous: tuple[int, int], *bodies: str, commit: int = 1) -> AppendEntries:
    index, previous_term = previous
    return AppendEntries(
        term, index, previous_term, commit, [Entry(term, body.encode()) for body in bodies]
    )


class _Forgetful(DurableLog):
    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:  # noqa: N802, N803
        self._term, self._vote = term, votedForNodeId


@pytest.mark.parametrize("log", [DurableLog, _Forgetful], ids=["as built", "vote not written"])
def test_one_vote_in_a_term_across_a_restart(log: type[DurableLog]) -> None:
    bench = Bench(log=log)
    assert bench.hear(1, RequestVote(5, 1, 0)) == [(1, Vote(5))]
    assert bench.hear(2, RequestVote(5, 1, 0)) == []
    bench.restart()
    second = bench.hear(2, RequestVote(5, 1, 0))
    assert second == ([] if log is DurableLog else [(2, Vote(5))])


def test_a_member_counts_once_however_often_its_vote_arrives() -> None:
    bench = Bench(size=5)
    term = bench.campaign()
    # An older vote between two copies must not make the second copy look new.
    bench.hear(1, Vote(term), Vote(term - 1), Vote(term), Vote(term + 1), Vote(term))
    assert bench.member.leader() is None
    bench.hear(2, Vote(term))
    assert bench.member.leader() == 0


def test_entries_heard_again_are_not_dropped_and_written_anew(bench: Bench) -> None:
    both = follow(1, (1, 0), "a", "b")
    bench.hear(1, both)
    held = bench.entries()
    for again in (both, follow(1, (1, 0), "a"), follow(1, (1, 0))):
        bench.member.receive(1, 1, again)
        assert bench.member.log.take_staged() is None
        assert bench.entries() == held


def test_only_what_was_confirmed_is_committed(bench: Bench) -> None:
    bench.hear(1, follow(1, (1, 0), "a", "stale", "stale"))
    bench.hear(2, AppendEntries(2, 2, 1, 4, []))
    assert bench.member.raftCommitIndex == 2
    assert bench.member.applied == [b"a"]


def test_a_conflict_replaces_the_tail_in_one_write(bench: Bench) -> None:
    bench.hear(1, follow(1, (1, 0), "a", "old", "old"))
    operations = bench.disk.operations
    assert bench.hear(2, follow(2, (2, 1), "new")) == [(2, AppendReply(2, 4, success=True))]
    assert bench.entries() == [(1, b"\0a"), (2, b"\0new")]
    assert bench.disk.operations - operations == 2, "one write, one sync"
    bench.restart()
    assert bench.entries() == [(1, b"\0a"), (2, b"\0new")]


def test_a_committed_entry_is_never_dropped(bench: Bench) -> None:
    bench.hear(1, follow(1, (1, 0), "a", "b", commit=3))
    assert bench.hear(2, follow(2, (1, 0), "other")) == []
    assert bench.hear(2, follow(2, (2, 2), "other")) == []
    assert bench.entries() == [(1, b"\0a"), (1, b"\0b")]
    assert bench.member.refused == 2


def test_a_diverged_follower_says_where_it_agrees(bench: Bench) -> None:
    bench.hear(1, follow(1, (1, 0), "a", "b", "c", commit=2))
    answers = bench.hear(2, AppendEntries(3, 4, 2, 2, []))
    assert answers == [(2, AppendReply(3, 3, success=False))]
    answers = bench.hear(2, AppendEntries(3, 9, 2, 2, []))
    assert answers == [(2, AppendReply(3, 5, success=False))]


def test_an_old_leader_is_told_the_term(bench: Bench) -> None:
    bench.hear(1, follow(7, (1, 0), "a"))
    (answer,) = bench.hear(2, follow(3, (1, 0), "b"))
    assert answer[0] == 2
    assert isinstance(answer[1], AppendReply)
    assert answer[1].term == 7
    assert not answer[1].success


def test_a_leader_steps_down_before_a_newer_term(bench: Bench) -> None:
    term = bench.lead()
    bench.member.receive(1, 1, AppendReply(term + 5, 2, success=False))
    assert bench.member.leader() is None
    assert bench.member.raftCurrentTerm == term + 5


def test_confirmations_of_an_earlier_leadership_do_not_count(bench: Bench) -> None:
    term = bench.lead()
    index = len(bench.member.log)
    bench.hear(1, AppendReply(term - 1, index + 1, success=True))
    assert bench.member.raftCommitIndex == 1
    bench.hear(1, AppendReply(term, index + 2, success=True))
    assert bench.member.raftCommitIndex == 1, "confirms more than there is"
    bench.hear(1, AppendReply(term, index + 1, success=True))
    assert bench.member.raftCommitIndex == index


def test_a_request_enters_the_log_once_and_only_in_its_term(bench: Bench) -> None:
    term = bench.lead()
    first = bench.hear(1, Submit(9, term, b"command"), Submit(9, term, b"command"))
    replies = [message for _, message in first if isinstance(message, SubmitReply)]
    assert replies == [SubmitReply(9, 0, 3, term)]
    assert [m for _, m in bench.hear(1, Submit(8, term - 1, b"old"))] == []
    assert [command for _, command in bench.entries()] == [b"\x01", b"\0command"]


def test_few_entries_are_in_flight_and_the_rest_waits(bench: Bench) -> None:
    term = bench.lead()
    outcomes: list[int] = []
    for number in range(20):
        bench.member.submit(bytes([number]), outcomes.append)
    bench.member.tick()
    assert len(bench.member.log) == 1 + MAX_UNCOMMITTED
    while len(bench.member.applied) < 20:
        before = len(bench.member.applied)
        bench.hear(1, AppendReply(term, len(bench.member.log) + 1, success=True))
        assert len(bench.member.log) - bench.member.raftCommitIndex <= MAX_UNCOMMITTED
        assert len(bench.member.applied) > before or before == 0
    assert bench.member.applied == [bytes([number]) for number in range(20)]

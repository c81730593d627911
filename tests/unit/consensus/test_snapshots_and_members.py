"""Snapshots and changes of members, one rule at a time, on a member with a hand-turned clock."""

from __future__ import annotations

import pytest
from blake3 import blake3

from tests.unit.consensus.test_raft import Bench, follow
from zipnet.consensus.members import (
    MAX_STATE_BYTES,
    Members,
    Seat,
    Snapshot,
    decode_members,
    decode_snapshot,
)
from zipnet.consensus.messages import (
    MAX_CHUNK_BYTES,
    AppendEntries,
    AppendReply,
    Entry,
    InstallReply,
    InstallSnapshot,
    Message,
    Vote,
)
from zipnet.consensus.raftlog import MEMBERS
from zipnet.errors import GuardError, StorageError

FOUNDERS = Members.founding((0, 1, 2))


def pieces(snapshot: Snapshot, term: int) -> list[InstallSnapshot]:
    data = snapshot.encode()
    digest = blake3(data).digest()
    return [
        InstallSnapshot(
            term, snapshot.index, digest, len(data), at, data[at : at + MAX_CHUNK_BYTES]
        )
        for at in range(0, len(data), MAX_CHUNK_BYTES)
    ]


def snapshot(index: int, *, term: int = 1, state: bytes = b"state") -> Snapshot:
    return Snapshot(index, term, index - 1, FOUNDERS, state)


def naming(term: int, previous: tuple[int, int], members: Members, commit: int) -> AppendEntries:
    return AppendEntries(term, *previous, commit, [Entry(term, None, members.encode())])


def committed(*bodies: str) -> Bench:
    """A follower that has committed these commands."""
    bench = Bench()
    bench.hear(1, follow(1, (1, 0), *bodies, commit=1 + len(bodies)))
    return bench


# -- snapshots -------------------------------------------------------------------------------------


def test_a_snapshot_replaces_the_log_and_comes_first_after_a_restart() -> None:
    bench = committed("a", "b", "c")
    assert bench.member.compact(2, b"state of two")
    bench.settle()
    bench.restart()
    (found,) = bench.member.applied
    assert isinstance(found, Snapshot)
    assert (found.index, found.commands, found.state) == (3, 2, b"state of two")
    bench.hear(1, AppendEntries(1, 4, 1, 4, []))
    assert bench.member.applied[1:] == [b"c"]


def test_only_what_is_committed_goes_into_a_snapshot() -> None:
    bench = committed("a")
    bench.hear(1, follow(1, (2, 1), "b"))
    with pytest.raises(GuardError):
        bench.member.compact(2, b"state")
    with pytest.raises(GuardError):
        bench.member.compact(3, b"state")
    assert bench.member.compact(1, b"state")
    assert bench.member.compact(1, b"another"), "an older or equal one changes nothing"
    assert bench.member.log.snapshot is not None
    assert bench.member.log.snapshot.state == b"state"


def test_a_snapshot_in_pieces_is_taken_in_order_and_answered() -> None:
    bench = Bench()
    made = snapshot(9, state=bytes(2 * MAX_CHUNK_BYTES))
    first, second, third = pieces(made, term=3)
    assert bench.hear(1, first) == [(1, InstallReply(3, 9, MAX_CHUNK_BYTES))]
    assert bench.hear(1, third) == [(1, InstallReply(3, 9, MAX_CHUNK_BYTES))]
    assert bench.hear(1, first) == [(1, InstallReply(3, 9, MAX_CHUNK_BYTES))]
    assert bench.hear(1, second) == [(1, InstallReply(3, 9, 2 * MAX_CHUNK_BYTES))]
    assert bench.hear(1, third) == [(1, AppendReply(3, 10, success=True))]
    assert bench.member.applied == [made]
    assert bench.hear(1, third) == [(1, AppendReply(3, 10, success=True))], "repeated"
    assert bench.member.applied == [made]
    bench.restart()
    assert bench.member.applied == [made]
    bench.hear(1, follow(3, (9, 1), "next", commit=10))
    assert bench.member.applied == [made, b"next"]


def test_a_snapshot_does_not_drop_what_was_confirmed_after_it() -> None:
    """The confirmed entries may be committed by that confirmation (Raft, section 7)."""
    bench = Bench()
    bench.hear(1, follow(1, (1, 0), "a", "b", "c", "d"))
    for piece in pieces(snapshot(3), term=2):
        bench.hear(2, piece)
    assert bench.entries() == [(1, b"\0" + body) for body in (b"a", b"b", b"c", b"d")]
    assert bench.member.raftCommitIndex == 3


def test_a_snapshot_that_contradicts_the_tail_replaces_it() -> None:
    bench = Bench()
    bench.hear(1, follow(1, (1, 0), "a", "b", "c", "d"))
    for piece in pieces(snapshot(3, term=2), term=2):
        bench.hear(2, piece)
    assert bench.entries() == []
    assert bench.member.raftCommitIndex == 3


def test_a_snapshot_behind_the_commit_index_changes_nothing() -> None:
    bench = committed("a", "b", "c")
    (piece,) = pieces(snapshot(3), term=2)
    assert bench.hear(2, piece) == [(2, AppendReply(2, 4, success=True))]
    assert bench.member.applied == [b"a", b"b", b"c"]
    with pytest.raises(GuardError):
        bench.member.log.install(snapshot(3))


def test_an_old_leaders_snapshot_is_refused() -> None:
    bench = committed("a")
    bench.hear(2, AppendEntries(5, 2, 1, 2, []))
    (piece,) = pieces(snapshot(9), term=3)
    ((_, answer),) = bench.hear(1, piece)
    assert isinstance(answer, AppendReply)
    assert (answer.term, answer.success) == (5, False)


@pytest.mark.parametrize("damage", ["digest", "content", "index"])
def test_a_snapshot_that_is_not_what_it_says_is_not_taken(damage: str) -> None:
    bench = Bench()
    made = snapshot(9)
    data = made.encode()
    digest = blake3(data).digest()
    index = 9
    if damage == "digest":
        digest = bytes(32)
    elif damage == "content":
        data = b"X" + data[1:]
        digest = blake3(data).digest()
    else:
        index = 8
    bench.hear(1, InstallSnapshot(2, index, digest, len(data), 0, data))
    assert bench.member.applied == []
    assert bench.member.raftCommitIndex == 1


def test_a_follower_too_far_behind_is_sent_the_snapshot_and_then_entries() -> None:
    bench = Bench()
    bench.member.log._trailing = 0
    term = bench.lead()
    for number in range(6):
        bench.member.submit(bytes([number]), lambda _failure: None)
        bench.member.tick()
        bench.settle()
        last = bench.member.log[-1][1]
        bench.hear(1, AppendReply(term, last + 1, success=True))
    assert bench.member.compact(6, b"state")
    bench.settle()
    bench.now += 1
    answers = bench.hear(2, AppendReply(term, 2, success=False))
    shipped = [m for to, m in answers if to == 2 and isinstance(m, InstallSnapshot)]
    assert [m.offset for m in shipped] == [0]
    assert decode_snapshot(shipped[0].chunk, size=3).state == b"state"
    # Not again within a heartbeat; the answer to it brings the entries.
    again = bench.hear(2, AppendReply(term, 2, success=False))
    assert not [m for _, m in again if isinstance(m, InstallSnapshot)]
    bench.member.submit(b"later", lambda _failure: None)
    bench.member.tick()
    bench.settle()
    after = bench.hear(2, AppendReply(term, shipped[0].index + 1, success=True))
    entries = [m for to, m in after if to == 2 and isinstance(m, AppendEntries) and m.entries]
    assert [entry.command for entry in entries[0].entries] == [b"later"]


MALFORMED = {
    "nothing": b"",
    "another kind": b"ZNXX" + snapshot(9).encode()[4:],
    "another version": b"ZNSN\x02" + snapshot(9).encode()[5:],
    "more commands than entries": Snapshot(3, 1, 3, FOUNDERS, b"").encode(),
    "another size": Snapshot(9, 1, 8, Members.founding((0, 1, 2, 3, 4)), b"").encode()[:80],
    "a vote that is no bit": snapshot(9).encode()[:38] + b"\x02" + snapshot(9).encode()[39:],
}


@pytest.mark.parametrize("title", MALFORMED)
def test_malformed_snapshots_are_refused(title: str) -> None:
    with pytest.raises(StorageError):
        decode_snapshot(MALFORMED[title], size=3)


def test_a_state_beyond_the_bound_is_refused() -> None:
    with pytest.raises(StorageError):
        decode_snapshot(snapshot(9, state=bytes(MAX_STATE_BYTES + 1)).encode(), size=3)


# -- members ---------------------------------------------------------------------------------------


def test_a_seat_is_emptied_and_then_filled_one_at_a_time() -> None:
    wanted = (0, 7, 8)
    first = FOUNDERS.next_towards(wanted, keep=0)
    assert first is not None
    assert first.seats == (Seat(0), Seat(7, votes=False, previous=1), Seat(2))
    second = first.next_towards(wanted, keep=0)
    assert second is not None
    assert second.voters() == {0, 1, 2}
    third = second.next_towards(wanted, keep=0)
    assert third is not None
    assert third.voters() == {0, 1}
    fourth = third.next_towards(wanted, keep=0)
    assert fourth is not None
    assert fourth.next_towards(wanted, keep=0) is None
    assert tuple(seat.member for seat in fourth.seats) == wanted
    assert decode_members(fourth.encode(), size=3) == fourth


def test_a_leader_never_empties_its_own_seat() -> None:
    assert FOUNDERS.next_towards((9, 1, 2), keep=0) is None


def members_in(bench: Bench) -> list[Members]:
    commands = [command for command, _, _ in bench.member.log[1:] if command[:1] == MEMBERS]
    return [decode_members(command[1:], size=3) for command in commands]


def test_the_next_change_waits_for_the_one_before() -> None:
    bench = Bench()
    term = bench.lead()
    bench.member.want_members((0, 1, 9))
    bench.member.tick()
    assert members_in(bench) == [], "not before the leader has committed in its own term"
    bench.hear(1, AppendReply(term, 3, success=True))
    assert [m.voters() for m in members_in(bench)] == [{0, 1}]
    bench.member.tick()
    bench.member.tick()
    assert len(members_in(bench)) == 1, "not before the first change is committed"
    bench.hear(1, AppendReply(term, 4, success=True))
    assert [m.voters() for m in members_in(bench)] == [{0, 1}, {0, 1, 2}]
    # The newcomer counts, once it speaks for itself, and its predecessor no longer does.
    bench.member.receive(2, 2, AppendReply(term, 5, success=True))
    bench.member.tick()
    assert bench.member.raftCommitIndex == 3
    bench.member.receive(2, 9, AppendReply(term, 5, success=True))
    bench.member.tick()
    assert bench.member.raftCommitIndex == 4


@pytest.mark.parametrize("sender", [2, 9])
def test_votes_count_only_for_who_sits_in_the_seat(sender: int) -> None:
    bench = Bench()
    emptied = FOUNDERS.next_towards((0, 1, 9), keep=0)
    assert emptied is not None
    filled = emptied.next_towards((0, 1, 9), keep=0)
    assert filled is not None
    bench.hear(1, naming(1, (1, 0), emptied, 1), naming(1, (2, 1), filled, 2))
    term = bench.campaign()
    bench.member.receive(2, sender, Vote(term))
    bench.member.tick()
    assert (bench.member.leader() == 0) is (sender == 9)


def test_a_change_that_does_not_prevail_is_taken_back() -> None:
    bench = Bench()
    emptied = FOUNDERS.next_towards((0, 1, 9), keep=0)
    assert emptied is not None
    bench.hear(1, naming(1, (1, 0), emptied, 1))
    assert bench.member.log.members() == emptied
    bench.hear(2, follow(2, (1, 0), "other"))
    assert bench.member.log.members() == FOUNDERS
    bench.restart()
    assert bench.member.log.members() == FOUNDERS


def test_members_survive_a_snapshot_and_a_restart() -> None:
    bench = Bench()
    emptied = FOUNDERS.next_towards((0, 1, 9), keep=0)
    assert emptied is not None
    bench.hear(1, naming(1, (1, 0), emptied, 2), follow(1, (2, 1), "a", commit=3))
    assert bench.member.compact(1, b"state")
    bench.settle()
    bench.restart()
    assert bench.member.log.members() == emptied


def test_members_that_do_not_parse_are_refused_whole() -> None:
    bench = Bench()
    broken: list[Message] = [
        AppendEntries(1, 1, 0, 1, [Entry(1, b"a"), Entry(1, None, body)])
        for body in (b"", b"\x03", Members.founding((0, 1, 2, 3, 4)).encode())
    ]
    bench.hear(1, *broken)
    assert bench.entries() == []
    assert bench.member.refused == 3

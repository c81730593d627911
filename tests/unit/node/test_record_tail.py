"""The tail takes what extends it, and nothing else."""

from __future__ import annotations

import pytest

from tests.harness.committee import HarnessCommittee
from tests.harness.publishers import HarnessPublisher, play_round
from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.node.record_tail import RecordTail


def played(rounds: int, label: str = "p") -> HarnessCommittee:
    committee = HarnessCommittee()
    publishers = [HarnessPublisher(committee, f"{label}{i}") for i in range(2)]
    for publisher in publishers:
        publisher.register()
    for _ in range(rounds):
        play_round(committee, publishers)
    return committee


COMMITTEE = played(5)


def tail_from(first: int) -> RecordTail:
    tail = RecordTail(COMMITTEE.descriptor)
    assert append(tail, first)
    return tail


def append(tail: RecordTail, sequence: int, committee: HarnessCommittee = COMMITTEE) -> bool:
    data = committee.records[sequence]
    return tail.append(tail.verify(data), data)


def read(tail: RecordTail, start: int, limit: int = 10, max_bytes: int = 1 << 30) -> list[bytes]:
    return tail.read(start, limit, max_bytes=max_bytes)


def test_it_begins_anywhere_and_goes_on_without_gaps() -> None:
    tail = tail_from(1)
    assert all(append(tail, sequence) for sequence in (2, 3))
    assert (tail.next_sequence, tail.last_bytes) == (4, COMMITTEE.records[3])
    assert read(tail, 1) == COMMITTEE.records[1:4]
    assert read(tail, 2, limit=1) == COMMITTEE.records[2:3]
    assert read(tail, 0) == read(tail, 4) == read(tail, 99) == []


def test_one_record_is_given_even_when_it_is_above_the_byte_limit() -> None:
    tail = tail_from(0)
    append(tail, 1)
    assert read(tail, 0, max_bytes=1) == COMMITTEE.records[:1]


def test_a_record_it_is_past_changes_nothing() -> None:
    tail = tail_from(1)
    append(tail, 2)
    assert not append(tail, 1)
    assert not append(tail, 2)
    assert tail.next_sequence == 3


def test_a_gap_is_refused() -> None:
    tail = tail_from(1)
    with pytest.raises(VerificationError, match="2 was due"):
        append(tail, 3)
    assert tail.next_sequence == 2


def test_a_fork_is_refused_at_its_tip_and_behind_it() -> None:
    other = played(5, "q")  # the same committee keys, another history
    tail = tail_from(1)
    with pytest.raises(VerificationError, match="two records"):
        append(tail, 1, other)
    with pytest.raises(VerificationError, match="does not extend"):
        append(tail, 2, other)
    assert append(tail, 2)


def test_junk_and_altered_records_do_not_verify() -> None:
    tail = RecordTail(COMMITTEE.descriptor)
    data = COMMITTEE.records[0]
    with pytest.raises(RemoteProtocolError):
        tail.verify(data[:-1])
    with pytest.raises(VerificationError):
        tail.verify(data[:-1] + bytes([data[-1] ^ 1]))

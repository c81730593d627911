from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import SMALL, HarnessCommittee
from tests.harness.publishers import HarnessPublisher, play_round
from zipnet.errors import ConfigError
from zipnet.machines import reader as reader_module
from zipnet.machines.bookmark import Bookmark
from zipnet.machines.reader import (
    Advanced,
    FetchFrom,
    Message,
    MessageLost,
    ReaderEffect,
    ReaderMachine,
    RecordArrived,
    RefuseRecord,
    RoundsSkipped,
    VoidSlot,
)
from zipnet.protocol.ids import SlotIndex
from zipnet.protocol.slots import Fragment, Reassembler, encode_slot, fragment_message

if TYPE_CHECKING:
    from zipnet.protocol.record import VerifiedRecord

SHORT = b"short"
LONG = b"long " * (SMALL.fragment_bytes + 1)


@pytest.fixture(scope="module")
def log() -> HarnessCommittee:
    """Eight records: a short and a long message, spread over rounds, one void slot."""
    committee = HarnessCommittee()
    crowd = [HarnessPublisher(committee, f"client-{i}") for i in range(3)]
    for publisher in crowd:
        publisher.register()
    crowd[0].queue(LONG)
    crowd[1].queue(SHORT)
    for number in range(8):
        committee.open_round()
        for publisher in crowd:
            for envelope in publisher.show_header():
                committee.submit(envelope)
        committee.seal(tamper=_jam if number == 7 else None)
        for publisher in crowd:
            publisher.show_record()
    return committee


def _jam(body: bytearray) -> None:
    body[SMALL.slot_bytes * 3 + 5] ^= 0xFF


def _read(machine: ReaderMachine, records: list[VerifiedRecord]) -> list[ReaderEffect]:
    return [effect for record in records for effect in machine.step(RecordArrived(record))]


def test_every_message_is_told_once_with_where_it_stands(log: HarnessCommittee) -> None:
    effects = _read(ReaderMachine(), log.verified)
    messages = {e.payload: e for e in effects if isinstance(e, Message)}
    assert set(messages) == {SHORT, LONG}
    assert sum(isinstance(e, Message) for e in effects) == 2
    for message in messages.values():
        record = log.verified[message.sequence]
        assert record.round == message.round
        assert record.fragments[message.slots[-1]].message_id == message.message_id
    assert len(messages[LONG].slots) == -(-(len(LONG) + 8) // SMALL.fragment_bytes)
    assert [e.record for e in effects if isinstance(e, Advanced)] == log.verified


def test_void_slots_are_told(log: HarnessCommittee) -> None:
    voids = [e for e in _read(ReaderMachine(), log.verified) if isinstance(e, VoidSlot)]
    assert voids == [VoidSlot(log.verified[7].round, 7, SlotIndex(3))]


def test_gaps_are_asked_for_and_nothing_is_told_from_beyond(log: HarnessCommittee) -> None:
    machine = ReaderMachine()
    assert machine.step(RecordArrived(log.verified[1])) == [FetchFrom(0)]
    _read(machine, log.verified[:2])
    assert machine.step(RecordArrived(log.verified[5])) == [FetchFrom(2)]
    assert machine.next_sequence == 2


def test_records_told_before_are_not_told_again(log: HarnessCommittee) -> None:
    machine = ReaderMachine()
    _read(machine, log.verified)
    assert _read(machine, log.verified) == []


def test_reading_may_start_anywhere_and_is_chained_from_there(log: HarnessCommittee) -> None:
    machine = ReaderMachine(6)
    assert machine.step(RecordArrived(log.verified[7])) == [FetchFrom(6)]
    effects = _read(machine, log.verified[6:])
    assert [e.record.sequence for e in effects if isinstance(e, Advanced)] == [6, 7]


def test_without_a_number_the_first_record_that_comes_is_the_start(log: HarnessCommittee) -> None:
    machine = ReaderMachine(None)
    assert machine.next_sequence is None
    _read(machine, [log.verified[4]])
    assert machine.next_sequence == 5


def _fork() -> HarnessCommittee:
    """The same committee keys and another history."""
    committee = HarnessCommittee()
    crowd = [HarnessPublisher(committee, f"other-{i}") for i in range(3)]
    for publisher in crowd:
        publisher.register()
    for _ in range(3):
        play_round(committee, crowd)
    return committee


@pytest.mark.spec("8.7")
def test_a_fork_is_refused_and_changes_nothing(
    log: HarnessCommittee, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = _fork()
    machine = ReaderMachine()
    _read(machine, log.verified[:1])
    (refused,) = machine.step(RecordArrived(fork.verified[1]))
    assert isinstance(refused, RefuseRecord)
    (twice,) = machine.step(RecordArrived(fork.verified[0]))
    assert isinstance(twice, RefuseRecord)
    assert machine.next_sequence == 1
    assert any(isinstance(e, Advanced) for e in machine.step(RecordArrived(log.verified[1])))
    # Mutant: without the chain check the fork would be read.
    monkeypatch.setattr(reader_module, "require_extends", lambda *_: None)
    mutant = ReaderMachine()
    _read(mutant, log.verified[:1])
    assert any(isinstance(e, Advanced) for e in mutant.step(RecordArrived(fork.verified[1])))


def test_a_first_record_that_claims_a_past_is_refused(log: HarnessCommittee) -> None:
    from dataclasses import replace

    from zipnet.protocol.ids import ServerIndex
    from zipnet.protocol.record import Record, verify_record

    content = replace(log.verified[3].record.content, sequence=0)
    signatures = tuple(
        (ServerIndex(i), identity.sign("record", content.hash))
        for i, identity in enumerate(log.identities)
    )
    odd = verify_record(Record(content, signatures), log.descriptor)
    (refused,) = ReaderMachine().step(RecordArrived(odd))
    assert isinstance(refused, RefuseRecord)


def _write(committee: HarnessCommittee, fragments: list[Fragment]) -> VerifiedRecord:
    """Seal a round whose slots hold exactly these fragments."""

    def write(body: bytearray) -> None:
        header = committee.open_header
        assert header is not None
        for slot, fragment in enumerate(fragments):
            start = slot * SMALL.slot_bytes
            body[start : start + SMALL.slot_bytes] = encode_slot(
                fragment, SMALL, header.header.hash, SlotIndex(slot)
            )

    committee.open_round()
    crowd = [HarnessPublisher(committee, f"w-{i}-{committee.last_opened}") for i in range(2)]
    for publisher in crowd:
        publisher.register()
    committee.abort()
    committee.open_round()
    for publisher in crowd:
        for envelope in publisher.show_header():
            committee.submit(envelope)
    committee.seal(tamper=write)
    return committee.verified[-1]


def test_messages_given_up_are_told_and_memory_stays_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    committee = HarnessCommittee()
    draws = itertools.count()

    def draw(size: int) -> bytes:
        return next(draws).to_bytes(size, "big")

    firsts = [fragment_message(b"y" * 200, SMALL, draw)[0] for _ in range(6)]
    machine = ReaderMachine(reassembler=Reassembler(max_messages=2))
    monkeypatch.setattr(reader_module, "_MAX_TRACKED", 3)
    effects = machine.step(RecordArrived(_write(committee, firsts)))
    lost = [e for e in effects if isinstance(e, MessageLost)]
    assert [(e.received, e.count, e.reason) for e in lost] == [(1, 3, "messages")] * 4
    assert [e.message_id for e in lost] == [f.message_id for f in firsts[:4]]
    assert sum(len(places.slots) for places in machine._places.values()) == machine._tracked <= 3


def test_repeated_fragments_give_one_message() -> None:
    committee = HarnessCommittee()
    fragments = fragment_message(b"again", SMALL, bytes)
    machine = ReaderMachine()
    effects = [
        effect
        for _ in range(2)
        for effect in machine.step(RecordArrived(_write(committee, fragments * 2)))
    ]
    assert sum(isinstance(e, Message) for e in effects) == 1


def _told(effects: list[ReaderEffect]) -> list[ReaderEffect]:
    return [e for e in effects if not isinstance(e, Advanced)]


@pytest.mark.parametrize("stop", range(1, 8))
def test_from_a_bookmark_nothing_is_lost_and_nothing_told_twice(
    log: HarnessCommittee, stop: int
) -> None:
    whole = _told(_read(ReaderMachine(), log.verified))
    first = ReaderMachine()
    before = _told(_read(first, log.verified[:stop]))
    assert first.bookmark is not None
    bookmark = Bookmark.from_text(first.bookmark.to_text())
    assert bookmark == first.bookmark
    second = ReaderMachine(resume=bookmark)
    assert second.next_sequence is not None
    assert second.next_sequence <= stop
    after = _told(_read(second, log.verified[second.next_sequence :]))
    assert before + after == whole


def test_a_bookmark_of_another_log_is_refused(log: HarnessCommittee) -> None:
    bookmark = Bookmark(3, log.verified[5].hash, 3)
    (effect,) = ReaderMachine(resume=bookmark).step(RecordArrived(log.verified[3]))
    assert isinstance(effect, RefuseRecord)
    assert effect.reason == "bookmark"


def test_nothing_of_an_older_version_goes_on_from_a_bookmark(log: HarnessCommittee) -> None:
    for version, told in ((0, True), (1, True), (2, False)):
        text = Bookmark(3, log.verified[2].hash, 3, version).to_text()
        machine = ReaderMachine(resume=Bookmark.from_text(text))
        effects = machine.step(RecordArrived(log.verified[3]))
        assert isinstance(effects[-1], Advanced) is told
        assert isinstance(effects[0], RefuseRecord) is not told
        made = machine.bookmark
        assert made is not None
        assert made.version == (1 if told else version)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zb1:1:0",
        "zb1:0:1:" + "00" * 32,
        "zb1:1:0:00",
        "x:1:0:00",
        "zb1:1:0:" + "00" * 32 + ":x",
        "zb1:1:0:" + "00" * 32 + ":-1",
        "zb1:1:0:" + "00" * 32 + ":1:2",
    ],
)
def test_what_is_no_bookmark_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="no bookmark"):
        Bookmark.from_text(text)


def test_rounds_without_a_record_are_told() -> None:
    committee = HarnessCommittee()
    crowd = [HarnessPublisher(committee, f"client-{i}") for i in range(2)]
    for publisher in crowd:
        publisher.register()
    for seal in (True, False, False, True, True):
        play_round(committee, crowd, seal=seal)
    skipped = [
        e for e in _read(ReaderMachine(), committee.verified) if isinstance(e, RoundsSkipped)
    ]
    assert skipped == [RoundsSkipped(committee.verified[0].round + 1, 3, 1)]  # type: ignore[arg-type]

"""The engine's durable log: what it refuses to do, and to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from zipnet.consensus.members import Members
from zipnet.consensus.raftlog import NO_OP, REGULAR, DurableLog, Staged
from zipnet.errors import ConfigError, GuardError, StorageError
from zipnet.storage import CompactingFileJournal

FOUNDERS = Members.founding((0, 1, 2))
HEAD = b"\x01\x02\x00" + bytes(8)
OPENING = HEAD + FOUNDERS.encode()
FOUNDING = b"\x02" + bytes(8) + NO_OP
ENTRY = b"\x02" + (1).to_bytes(8, "big") + REGULAR + b"command"


def number(kind: int, value: int) -> bytes:
    return bytes([kind]) + value.to_bytes(8, "big")


def open_log(folder: Path, *records: bytes) -> DurableLog:
    journal = CompactingFileJournal(folder / "raft", identity=bytes(32))
    journal.append_group(records)
    journal.close()
    journal = CompactingFileJournal(folder / "raft", identity=bytes(32))
    try:
        return DurableLog(journal, server=0, founding=FOUNDERS)
    finally:
        journal.close()


MALFORMED: dict[str, tuple[bytes, ...]] = {
    "an unknown kind": (OPENING, FOUNDING, b"\x09"),
    "an empty record": (OPENING, FOUNDING, b""),
    "a cut entry": (OPENING, FOUNDING, ENTRY[:5]),
    "an entry without a type": (OPENING, FOUNDING, ENTRY[:9]),
    "a cut ballot": (OPENING, FOUNDING, b"\x04" + bytes(8)),
    "a ballot with more": (OPENING, FOUNDING, b"\x04" + bytes(10)),
    "a drop beyond the end": (OPENING, FOUNDING, ENTRY, number(3, 3)),
    "a drop of the founding entry": (OPENING, FOUNDING, ENTRY, number(3, 1)),
    "a drop of a committed entry": (OPENING, FOUNDING, ENTRY, number(5, 2), number(3, 2)),
    "more committed than written": (OPENING, FOUNDING, ENTRY, number(5, 3)),
    "no founding entry": (OPENING,),
}


def test_replay_gives_the_state_back(tmp_path: Path) -> None:
    ballot = b"\x04" + (7).to_bytes(8, "big") + b"\x02"
    log = open_log(tmp_path, OPENING, FOUNDING, ENTRY, ENTRY, number(3, 3), ballot, number(5, 2))
    assert log[:] == [(NO_OP, 1, 0), (REGULAR + b"command", 2, 1)]
    state = log.getCurrentTerm(), log.getVotedForNodeId(), log.getRaftCommitIndex()
    assert state == (7, 2, 2)


@pytest.mark.parametrize("title", MALFORMED)
def test_malformed_records_are_refused(tmp_path: Path, title: str) -> None:
    with pytest.raises(StorageError):
        open_log(tmp_path, *MALFORMED[title])


@pytest.mark.parametrize(
    "opening",
    [
        b"\x01\x01" + OPENING[2:],
        b"\x01\x02\x01" + OPENING[3:],
        HEAD + Members.founding(tuple(range(5))).encode(),
        HEAD[:-1] + b"\x07" + FOUNDERS.encode(),
    ],
)
def test_another_format_member_or_size_is_refused(tmp_path: Path, opening: bytes) -> None:
    with pytest.raises(ConfigError):
        open_log(tmp_path, opening, FOUNDING)


def test_gaps_compaction_and_lost_commits_are_refused(tmp_path: Path) -> None:
    log = open_log(tmp_path, OPENING, FOUNDING, ENTRY, number(5, 2))
    with pytest.raises(GuardError):
        log.add(REGULAR, 4, 1)
    with pytest.raises(GuardError):
        log.drop_from(2)
    with pytest.raises(GuardError):
        log.deleteEntriesFrom(1)
    with pytest.raises(GuardError):
        log.clear()
    with pytest.raises(GuardError):
        log.deleteEntriesTo(1)
    assert len(log) == 2
    assert log.take_staged() is None


def test_the_commit_hint_rides_with_the_next_change_only(tmp_path: Path) -> None:
    log = open_log(tmp_path, OPENING, FOUNDING, ENTRY)
    log.setRaftCommitIndex(2)
    assert log.take_staged() is None
    log.setCurrentTerm(3, None)
    assert log.take_staged() == Staged([b"\x04" + (3).to_bytes(8, "big") + b"\xff", number(5, 2)])

"""The record log: what was appended is there, whole and in sequence, or the log says it is not."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from tests.unit.storage.failing_files import FailingFiles
from zipnet.errors import ConfigError, LocalProtocolError, SafeMode, StorageError
from zipnet.protocol.ids import GroupId
from zipnet.storage import records
from zipnet.storage.records import MAX_RECORD_BYTES, RecordLog

GROUP = GroupId(b"g" * 32)
FIRST = "records-000000000000.log"
HEADER_BYTES = 82
HEAD_BYTES = 32


def made(sequence: int) -> bytes:
    return f"record {sequence} ".encode() * (sequence + 1)


def fill(folder: Path, count: int, files: FailingFiles | None = None) -> RecordLog:
    log = RecordLog(folder, group=GROUP, files=files)
    for sequence in range(log.next_sequence, log.next_sequence + count):
        log.append(sequence, made(sequence))
    return log


def reopened(folder: Path) -> list[bytes]:
    log = RecordLog(folder, group=GROUP)
    try:
        found = log.read(0, 1000)
        assert len(found) == log.next_sequence
        return found
    finally:
        log.close()


def test_records_come_back_in_sequence_after_reopening(tmp_path: Path) -> None:
    fill(tmp_path, 5).close()
    assert reopened(tmp_path) == [made(i) for i in range(5)]
    fill(tmp_path, 2).close()
    assert reopened(tmp_path) == [made(i) for i in range(7)]


def test_reading_is_bounded_by_count_and_bytes_but_gives_at_least_one(tmp_path: Path) -> None:
    log = fill(tmp_path, 6)
    assert log.read(2, 2) == [made(2), made(3)]
    assert log.read(2, 10, max_bytes=1) == [made(2)]
    assert log.read(0, 10, max_bytes=len(made(0)) + len(made(1))) == [made(0), made(1)]
    assert log.read(6, 10) == []
    assert log.read(99, 10) == []
    log.close()
    log.close()


def test_sequences_have_no_gaps_and_records_a_bound(tmp_path: Path) -> None:
    log = fill(tmp_path, 1)
    for sequence in (0, 2):
        with pytest.raises(LocalProtocolError):
            log.append(sequence, b"x")
    with pytest.raises(LocalProtocolError):
        log.append(1, bytes(MAX_RECORD_BYTES + 1))
    log.append(1, made(1))
    log.close()
    assert reopened(tmp_path) == [made(0), made(1)]


def test_a_tail_torn_at_any_byte_is_cut_and_the_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / FIRST
    fill(tmp_path, 2).close()
    before = path.stat().st_size
    fill(tmp_path, 1).close()
    whole = path.read_bytes()
    for size in range(before, len(whole)):
        path.write_bytes(whole[:size])
        assert reopened(tmp_path) == [made(0), made(1)], size
        assert path.stat().st_size == before
    fill(tmp_path, 1).close()
    assert reopened(tmp_path) == [made(0), made(1), made(2)]


def test_a_tail_whose_sectors_never_arrived_is_cut(tmp_path: Path) -> None:
    """The file had grown already, but its head or its middle still reads as zeros."""
    path = tmp_path / FIRST
    fill(tmp_path, 2).close()
    start = path.stat().st_size
    fill(tmp_path, 1).close()
    whole = path.read_bytes()
    for low, high in ((0, 8), (0, HEAD_BYTES), (4, 8), (16, 40), (0, len(whole) - start)):
        torn = bytearray(whole)
        torn[start + low : start + high] = bytes(high - low)
        path.write_bytes(torn)
        assert reopened(tmp_path) == [made(0), made(1)], (low, high)


@pytest.mark.requirement("M8")
def test_damage_before_the_tail_is_refused_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / FIRST
    fill(tmp_path, 2).close()
    tail = path.stat().st_size
    fill(tmp_path, 1).close()
    sound = path.read_bytes()
    for at in range(tail):
        for bit in (0x01, 0x80):
            damaged = bytearray(sound)
            damaged[at] ^= bit
            path.write_bytes(damaged)
            with pytest.raises((StorageError, ConfigError)):
                RecordLog(tmp_path, group=GROUP)
    path.write_bytes(sound)
    assert len(reopened(tmp_path)) == 3


def test_a_record_shaped_like_a_frame_is_no_frame(tmp_path: Path) -> None:
    """What a stranger wrote into a torn record is not taken for a later record."""
    folder, other = tmp_path / "log", tmp_path / "other"
    for each in (folder, other):
        each.mkdir()
    fill(other, 9).close()
    bait = (other / FIRST).read_bytes()[HEADER_BYTES:]
    log = fill(folder, 1)
    log.append(1, bait)
    log.close()
    path = folder / FIRST
    os.truncate(path, path.stat().st_size - 1)
    assert reopened(folder) == [made(0)]


@pytest.mark.requirement("M8")
def test_a_record_that_changed_on_disk_is_not_served(tmp_path: Path) -> None:
    log = fill(tmp_path, 3)
    path = tmp_path / FIRST
    sound = path.read_bytes()
    at = sound.index(made(1))
    for offset in (at, at + len(made(1)) - 1, at - 1, at - HEAD_BYTES, at - HEAD_BYTES + 5):
        damaged = bytearray(sound)
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        assert log.read(0, 1) == [made(0)]
        assert log.read(2, 1) == [made(2)]
        with pytest.raises(StorageError, match="record 1"):
            log.read(0, 3)
    log.close()


def test_the_check_of_reads_is_what_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: a log whose check never fails serves the damage the test above looks for."""
    monkeypatch.setattr(records._Segment, "_check", lambda *_: bytes(16))
    log = fill(tmp_path, 1)
    path = tmp_path / FIRST
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert log.read(0, 1) != [made(0)]
    log.close()


def test_another_group_is_refused_and_a_reader_takes_the_one_that_is_there(tmp_path: Path) -> None:
    fill(tmp_path, 1).close()
    with pytest.raises(ConfigError, match="another instance"):
        RecordLog(tmp_path, group=GroupId(bytes(32)))
    reader = RecordLog.open_readonly(tmp_path)
    assert reader.read(0, 1) == [made(0)]
    reader.close()


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "SEGMENT_RECORDS", 3)


@pytest.mark.usefixtures("small_segments")
def test_segments_roll_over_and_read_as_one_log(tmp_path: Path) -> None:
    log = fill(tmp_path, 8)
    assert log.read(1, 6) == [made(i) for i in range(1, 7)]
    log.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [FIRST, "records-000000000003.log", "records-000000000006.log"]
    assert reopened(tmp_path) == [made(i) for i in range(8)]


@pytest.mark.usefixtures("small_segments")
def test_a_missing_or_short_segment_before_the_last_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, 8).close()
    middle = tmp_path / "records-000000000003.log"
    content = middle.read_bytes()
    middle.unlink()
    with pytest.raises(StorageError, match="is due"):
        RecordLog(tmp_path, group=GROUP)
    middle.write_bytes(content[:-1])
    with pytest.raises(StorageError, match="not full"):
        RecordLog(tmp_path, group=GROUP)
    middle.rename(tmp_path / "records-000000000004.log")
    with pytest.raises(StorageError):
        RecordLog(tmp_path, group=GROUP)


@pytest.mark.usefixtures("small_segments")
def test_a_segment_that_was_only_being_created_is_made_again(tmp_path: Path) -> None:
    fill(tmp_path, 3).close()
    torn = tmp_path / "records-000000000003.log"
    for content in (b"", b"ZNREC", bytes(HEADER_BYTES)):
        torn.write_bytes(content)
        assert reopened(tmp_path) == [made(0), made(1), made(2)]
        assert not torn.exists()
    fill(tmp_path, 1).close()
    assert reopened(tmp_path)[-1] == made(3)


def test_reading_goes_on_while_the_server_writes(tmp_path: Path) -> None:
    log = fill(tmp_path, 2)
    with (tmp_path / FIRST).open("ab") as half_written:
        half_written.write(b"ZNRF" + struct.pack(">IQ", 9, 2))
    size = (tmp_path / FIRST).stat().st_size
    reader = RecordLog.open_readonly(tmp_path, group=GROUP)
    assert reader.read(0, 10) == [made(0), made(1)]
    assert (tmp_path / FIRST).stat().st_size == size, "a reader leaves the tail where it is"
    with pytest.raises(SafeMode):
        reader.append(2, b"x")
    reader.close()
    log.close()


@pytest.mark.parametrize("operation", ["write", "sync", "sync_folder", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_after_a_failure_the_log_takes_no_more_but_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, number: int
) -> None:
    monkeypatch.setattr(records, "SEGMENT_RECORDS", 2)
    files = FailingFiles()
    log = fill(tmp_path, 2, files)  # the next append makes a segment, so every operation is met
    files.failures = {operation: number}
    with pytest.raises(SafeMode, match="durable"):
        log.append(2, made(2))
    files.failures = {}
    writes = files.calls.get("write", 0)
    for sequence in (2, 3):
        with pytest.raises(SafeMode):
            log.append(sequence, made(sequence))
    assert files.calls.get("write", 0) == writes, "nothing is written after a failure"
    assert log.read(0, 10) == [made(0), made(1)]
    log.close()
    assert reopened(tmp_path)[:2] == [made(0), made(1)]


def test_short_writes_are_continued(tmp_path: Path) -> None:
    fill(tmp_path, 3, FailingFiles(short=7)).close()
    assert reopened(tmp_path) == [made(i) for i in range(3)]


def test_an_append_returns_after_its_own_fsync(tmp_path: Path) -> None:
    files = FailingFiles()
    log = fill(tmp_path, 1, files)
    before = files.calls["sync"]
    log.append(1, made(1))
    assert files.calls["sync"] == before + 1
    log.close()


def test_a_failing_disk_at_opening_is_a_storage_error(tmp_path: Path) -> None:
    fill(tmp_path, 1).close()
    with pytest.raises(StorageError, match="cannot read"):
        RecordLog(tmp_path, group=GROUP, files=FailingFiles({"read": errno.EIO}))


def test_segments_are_the_owners_alone(tmp_path: Path) -> None:
    fill(tmp_path, 1).close()
    assert (tmp_path / FIRST).stat().st_mode & 0o777 == 0o600

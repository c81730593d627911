"""The journal port's promises, on real files and on a disk that tears, fills and fails."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sim.disk import Disk, PowerCut
from zipnet.errors import (
    ConfigError,
    DuplicateIdentityError,
    LocalProtocolError,
    SafeMode,
    StorageError,
)
from zipnet.storage import FileJournal, Files, OsFiles
from zipnet.storage.journal import MAX_ENTRY_BYTES

if TYPE_CHECKING:
    from zipnet.ports import Journal

IDENTITY = bytes(range(32))
HEADER_BYTES = 74


@pytest.fixture(params=["operating system", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Files]:
    files: Files = OsFiles() if request.param == "operating system" else Disk(random.Random(1))
    return str(tmp_path / "journal"), files


def reopen(place: tuple[str, Files], *, retain: bool = True) -> FileJournal:
    return FileJournal(place[0], identity=IDENTITY, files=place[1], retain=retain)


def test_entries_come_back_in_order(place: tuple[str, Files]) -> None:
    journal: Journal = reopen(place)
    journal.append(b"one")
    journal.append_group([b"", b"three"])
    journal.append_group([])
    assert journal.entries() == (b"one", b"", b"three")
    journal.close()
    assert reopen(place).entries() == (b"one", b"", b"three")


def test_truncation_is_durable_and_appending_goes_on(place: tuple[str, Files]) -> None:
    journal = reopen(place)
    journal.append_group([b"a", b"b", b"c"])
    journal.truncate(1)
    journal.append(b"d")
    journal.close()
    journal = reopen(place)
    assert journal.entries() == (b"a", b"d")
    with pytest.raises(LocalProtocolError):
        journal.truncate(3)


def test_a_journal_that_does_not_retain_hands_out_once(place: tuple[str, Files]) -> None:
    reopen(place).append(b"a") if not isinstance(place[1], OsFiles) else None
    if isinstance(place[1], OsFiles):
        first = reopen(place)
        first.append(b"a")
        first.close()
    else:
        assert isinstance(place[1], Disk)
        place[1].kill()
    journal = reopen(place, retain=False)
    assert journal.entries() == (b"a",)
    journal.append(b"b")
    assert journal.entries() == ()
    with pytest.raises(LocalProtocolError):
        journal.truncate(0)
    journal.close()
    assert reopen(place).entries() == (b"a", b"b")


def test_another_identity_is_refused(place: tuple[str, Files]) -> None:
    reopen(place).close()
    with pytest.raises(ConfigError):
        FileJournal(place[0], identity=bytes(32), files=place[1])
    with pytest.raises(ConfigError):
        FileJournal(place[0], identity=b"short", files=place[1])


def test_too_large_an_entry_is_refused_and_nothing_is_written(place: tuple[str, Files]) -> None:
    journal = reopen(place)
    with pytest.raises(LocalProtocolError):
        journal.append(bytes(MAX_ENTRY_BYTES + 1))
    journal.append(b"fits")
    assert journal.entries() == (b"fits",)


def test_a_second_opener_is_refused(place: tuple[str, Files]) -> None:
    journal = reopen(place)
    with pytest.raises(DuplicateIdentityError):
        reopen(place)
    journal.close()
    reopen(place).close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(path, identity=IDENTITY)
    program = (
        "import sys; from zipnet.storage import FileJournal; from zipnet.errors import *\n"
        "try: FileJournal(sys.argv[1], identity=bytes(range(32)))\n"
        "except DuplicateIdentityError as error: sys.exit(error.exit_code)\n"
    )
    second = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert second.returncode == DuplicateIdentityError.exit_code
    journal.close()


def test_the_file_is_the_owners_alone_and_no_link_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    FileJournal(path, identity=IDENTITY).close()
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(StorageError):
        FileJournal(tmp_path / "link", identity=IDENTITY)


@pytest.mark.parametrize("cut", [1, 20, 40, 60])
def test_a_torn_tail_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(path, identity=IDENTITY)
    journal.append(b"whole")
    journal.append(bytes(30))
    journal.close()
    os.truncate(path, path.stat().st_size - cut)
    journal = FileJournal(path, identity=IDENTITY)
    assert journal.entries() == (b"whole",)
    journal.append(b"next")
    journal.close()
    assert FileJournal(path, identity=IDENTITY).entries() == (b"whole", b"next")


def test_damage_before_the_tail_is_refused_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(path, identity=IDENTITY)
    journal.append(b"first")
    tail = path.stat().st_size
    journal.append(b"second")
    journal.close()
    sound = path.read_bytes()
    for at in range(tail):
        damaged = bytearray(sound)
        damaged[at] ^= 0x20
        path.write_bytes(damaged)
        with pytest.raises(StorageError):
            FileJournal(path, identity=IDENTITY)


def test_an_entry_shaped_like_a_frame_is_no_frame(tmp_path: Path) -> None:
    """A torn entry that holds another journal's sound frames is still only torn."""
    other = tmp_path / "other"
    journal = FileJournal(other, identity=IDENTITY)
    for _ in range(5):
        journal.append(b"bait")
    journal.close()
    bait = other.read_bytes()[HEADER_BYTES:]
    path = tmp_path / "journal"
    journal = FileJournal(path, identity=IDENTITY)
    journal.append(bait)
    journal.close()
    os.truncate(path, path.stat().st_size - 3)
    journal = FileJournal(path, identity=IDENTITY)
    assert journal.entries() == ()
    journal.close()


@pytest.mark.parametrize("fault", ["sync_error", "write_error"])
def test_after_a_failure_nothing_is_written_any_more(fault: str) -> None:
    disk = Disk(random.Random(2))
    journal = FileJournal("j", identity=IDENTITY, files=disk)
    journal.append(b"kept")
    setattr(disk, fault, errno.ENOSPC)
    with pytest.raises(SafeMode):
        journal.append(b"lost")
    setattr(disk, fault, 0)
    for _ in range(2):
        with pytest.raises(SafeMode):
            journal.append(b"late")
    assert journal.entries() == (b"kept",)
    disk.crash()
    assert FileJournal("j", identity=IDENTITY, files=disk).entries()[:1] == (b"kept",)


def test_what_a_failed_sync_left_in_the_cache_is_not_trusted() -> None:
    """The bytes of a failed sync are seen but on no disk; opening must make them durable or go."""
    disk = Disk(random.Random(3))
    journal = FileJournal("j", identity=IDENTITY, files=disk)
    disk.sync_error = errno.EIO
    with pytest.raises(SafeMode):
        journal.append(b"in the cache")
    disk.sync_error = 0
    disk.kill()
    journal = FileJournal("j", identity=IDENTITY, files=disk)
    seen = journal.entries()
    journal.append(b"after")
    disk.crash()
    assert FileJournal("j", identity=IDENTITY, files=disk).entries() == (*seen, b"after")


def test_a_closed_journal_takes_nothing(place: tuple[str, Files]) -> None:
    journal = reopen(place)
    journal.close()
    journal.close()
    with pytest.raises(SafeMode):
        journal.append(b"late")


def _exercise(disk: Disk, rng: random.Random, certain: list[bytes], doubtful: list[bytes]) -> None:
    journal = FileJournal("j", identity=IDENTITY, files=disk)
    found = list(journal.entries())
    assert found in (certain, doubtful), f"{len(found)} entries after a crash"
    certain[:] = found
    while True:
        if certain and rng.random() < 0.15:
            count = rng.randrange(len(certain))
            doubtful[:] = certain[:count]
            journal.truncate(count)
        else:
            group = [rng.randbytes(rng.choice((0, 5, 700, 3000))) for _ in range(rng.randint(1, 4))]
            doubtful[:] = certain + group
            journal.append_group(group)
        certain[:] = doubtful


@pytest.mark.parametrize("lying", [False, True], ids=["sound disk", "lying disk"])
def test_no_append_that_returned_is_lost_wherever_the_power_goes(*, lying: bool) -> None:
    """Each life ends in a power cut between, or inside, file operations; a lying disk is caught."""
    caught = 0
    for seed in range(60):
        rng = random.Random(seed)
        disk = Disk(random.Random(rng.random()), lying=lying)
        certain: list[bytes] = []
        doubtful: list[bytes] = []
        for _ in range(12):
            disk.short_writes = rng.choice((0.0, 0.5))
            disk.cut_at = disk.operations + rng.randint(1, 25)
            try:
                _exercise(disk, rng, certain, doubtful)
            except PowerCut:
                disk.crash()
            except (AssertionError, StorageError):
                assert lying, f"seed {seed}"
                caught += 1
                break
    assert bool(caught) == lying

"""The compacting journal's promises, on real files and on a disk that tears, fills and fails."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sim.disk import Disk, PowerCut
from zipnet.errors import ConfigError, DuplicateIdentityError, LocalProtocolError, SafeMode
from zipnet.errors import StorageError as Damaged
from zipnet.storage import CompactingFileJournal, Files, OsFiles
from zipnet.storage.compacting import MAX_SNAPSHOT_BYTES

if TYPE_CHECKING:
    from zipnet.ports import CompactingJournal

IDENTITY = bytes(range(32))
Found = tuple[bytes | None, tuple[bytes, ...]]


class Place:
    """Where one journal lives; ``reopen`` ends the process before."""

    def __init__(self, base: str, files: Files) -> None:
        self.base, self.files = base, files
        self.journal: CompactingFileJournal | None = None

    def reopen(self, *, power: bool = False) -> CompactingFileJournal:
        if isinstance(self.files, Disk):
            self.files.crash() if power else self.files.kill()
        elif self.journal is not None:
            self.journal.close()
        self.journal = CompactingFileJournal(self.base, identity=IDENTITY, files=self.files)
        return self.journal

    def spoil(self, slot: str, at: int = 70) -> None:
        name = f"{self.base}.{slot}.snapshot"
        if isinstance(self.files, Disk):
            self.files.content(name)[at] ^= 1
            return
        data = bytearray(Path(name).read_bytes())
        data[at] ^= 1
        Path(name).write_bytes(data)


@pytest.fixture(params=["operating system", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    files: Files = OsFiles() if request.param == "operating system" else Disk(random.Random(1))
    return Place(str(tmp_path / "log"), files)


def found(journal: CompactingJournal) -> Found:
    return journal.snapshot(), tuple(journal.entries())


def test_entries_and_snapshots_come_back(place: Place) -> None:
    journal = place.reopen()
    assert found(journal) == (None, ())
    journal.append_group([b"one", b"two"])
    assert found(place.reopen()) == (None, (b"one", b"two"))
    journal = place.reopen()
    journal.compact(b"first", [b"left"])
    journal.append_group([b"three"])
    assert found(place.reopen()) == (b"first", (b"left", b"three"))
    journal = place.reopen()
    for number in range(5):
        journal.compact(b"later %d" % number, [])
        journal.append_group([b"after"])
    assert found(place.reopen()) == (b"later 4", (b"after",))


def test_the_log_on_disk_shrinks(tmp_path: Path) -> None:
    journal = Place(str(tmp_path / "log"), OsFiles()).reopen()
    for _ in range(12):
        journal.append_group([bytes(1000)] * 100)
        journal.compact(b"state", [])
    journal.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * 110_000


def test_a_damaged_snapshot_is_made_up_for_by_the_one_before(place: Place) -> None:
    journal = place.reopen()
    journal.append_group([b"one"])
    journal.compact(b"first", [b"kept"])
    journal.append_group([b"two"])
    journal.compact(b"second", [b"restated"])
    journal.append_group([b"three"])
    journal.close()
    place.spoil("a")
    for _ in range(2):  # the copy behind the older entries is durable
        journal = place.reopen()
        assert found(journal) == (b"first", (b"kept", b"two", b"restated", b"three"))
    journal.append_group([b"four"])
    journal.compact(b"third", [])
    assert found(place.reopen()) == (b"third", ())


def test_the_first_snapshot_is_made_up_for_by_the_whole_log(place: Place) -> None:
    journal = place.reopen()
    journal.append_group([b"one"])
    journal.compact(b"first", [b"restated"])
    journal.close()
    place.spoil("b", at=3)
    journal = place.reopen()
    assert journal.stood_in
    assert found(journal) == (None, (b"one", b"restated"))


def test_two_damaged_snapshots_are_a_clear_error(place: Place) -> None:
    journal = place.reopen()
    journal.append_group([b"one"])
    journal.compact(b"first", [])
    journal.compact(b"second", [])
    journal.close()
    place.spoil("a")
    place.spoil("b")
    with pytest.raises(Damaged, match="damaged"):
        place.reopen()


def test_another_identity_and_a_second_process_are_refused(place: Place) -> None:
    journal = place.reopen()
    journal.append_group([b"one"])
    with pytest.raises(DuplicateIdentityError):
        CompactingFileJournal(place.base, identity=IDENTITY, files=place.files)
    journal.close()
    with pytest.raises(ConfigError):
        CompactingFileJournal(place.base, identity=bytes(32), files=place.files)


def test_a_snapshot_too_large_changes_nothing(place: Place) -> None:
    journal = place.reopen()
    journal.append_group([b"one"])
    with pytest.raises(LocalProtocolError):
        journal.compact(bytes(MAX_SNAPSHOT_BYTES + 1), [])
    journal.append_group([b"two"])
    assert found(place.reopen()) == (None, (b"one", b"two"))


@pytest.mark.parametrize("fault", ["sync_error", "write_error"])
def test_a_failed_compaction_ends_in_safe_mode_and_loses_nothing(fault: str) -> None:
    disk = Disk(random.Random(3))
    place = Place("log", disk)
    journal = place.reopen()
    journal.append_group([b"one"])
    setattr(disk, fault, errno.EIO)
    with pytest.raises(SafeMode):
        journal.compact(b"first", [])
    setattr(disk, fault, 0)
    with pytest.raises(SafeMode):
        journal.compact(b"first", [])
    assert found(place.reopen(power=True)) == (None, (b"one",))


@pytest.mark.parametrize("seed", range(60))
def test_a_power_cut_at_any_operation_leaves_before_or_after(seed: int) -> None:
    """Appends and compactions at random, the power cut at every operation in turn."""
    rng = random.Random(seed)
    disk = Disk(random.Random(seed))
    disk.short_writes = 0.2
    place = Place("log", disk)
    held: Found = (None, ())
    journal = place.reopen()
    for number in range(25):
        if rng.random() < 0.5:
            snapshot = b"s%d" % number * rng.randint(1, 400)
            after: Found = (snapshot, (b"left",) * rng.randint(0, 2))
        else:
            after = (held[0], (*held[1], b"e%d" % number))
        if rng.random() < 0.5:
            disk.cut_at = disk.operations + rng.randint(1, 14)
        try:
            if after[0] != held[0]:
                assert after[0] is not None
                journal.compact(after[0], after[1])
            else:
                journal.append_group(after[1][-1:])
            disk.cut_at = None
            held = after
            continue
        except PowerCut:
            pass
        journal = place.reopen(power=True)
        assert found(journal) in (held, after)
        held = found(journal)
    assert found(place.reopen(power=True)) == held

"""The audit trail survives crashes and notices whatever else happened to its file."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from sim.disk import Disk
from tests.harness.committee import make_identity
from zipnet.errors import ConfigError, SafeMode, StorageError, VerificationError
from zipnet.storage.audit import CHECKPOINT_EVERY, AuditLog, read_trail

NODE = make_identity("node")


def opened(path: Path) -> AuditLog:
    return AuditLog(path, identity=NODE, wall=lambda: 1_800_000_000.5)


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


class FullDisk(Disk):
    """A disk on which nothing can be made durable for a while."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.full = False

    def step(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().step()


def filled(path: Path, count: int = 3) -> None:
    log = opened(path)
    for number in range(count):
        log.record("secret_read", key_id=f"k{number}")
    log.checkpoint()
    log.close()


@pytest.mark.requirement("A8")
def test_a_trail_goes_on_where_it_ended(path: Path) -> None:
    filled(path)
    filled(path)
    verifier, entries = read_trail(path, NODE.public)
    assert [entry.event for entry in entries] == (["secret_read"] * 3 + ["checkpoint"]) * 2
    assert verifier.checkpoints == 2
    assert entries[0].at == "2027-01-15T08:00:00.500Z"


def test_a_checkpoint_comes_by_itself_and_not_twice(path: Path) -> None:
    log = opened(path)
    for _ in range(CHECKPOINT_EVERY):
        log.record("admission_refused", reason="quota")
    log.checkpoint()
    log.close()
    verifier, _ = read_trail(path, NODE.public)
    assert verifier.checkpoints == 1


def test_a_trail_that_is_not_there_is_the_callers_mistake(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_trail(path, NODE.public)


def test_a_torn_last_line_is_cut_off_and_told(path: Path) -> None:
    filled(path)
    with path.open("ab") as file:
        file.write(b"0123 {half")
    opened(path).close()
    _, entries = read_trail(path, NODE.public)
    assert entries[-1].event == "tail_discarded"
    assert entries[-1].fields == {"lost_bytes": 10}


def test_a_flipped_byte_keeps_the_node_from_starting_and_is_named(path: Path) -> None:
    filled(path)
    data = bytearray(path.read_bytes())
    second = data.index(b"\n") + 80
    data[second] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="line 2 "):
        opened(path)
    with pytest.raises(VerificationError, match="line 2 "):
        read_trail(path, NODE.public)
    assert path.read_bytes() == bytes(data)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_trail_that_was_cut_is_noticed(path: Path, kept: int) -> None:
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:kept]))
    with pytest.raises(StorageError, match="was cut: it had 4 entries"):
        opened(path)


def test_a_trail_of_another_node_is_refused(path: Path) -> None:
    filled(path)
    with pytest.raises(StorageError, match="line 4 "):
        AuditLog(path, identity=make_identity("other"), wall=lambda: 0.0)


def test_two_processes_do_not_write_one_trail(path: Path) -> None:
    log = opened(path)
    with pytest.raises(StorageError, match="in use"):
        opened(path)
    log.close()


def test_an_entry_that_was_acknowledged_survives_power_loss() -> None:
    disk = Disk(random.Random(7))
    path = Path("audit.log")
    log = AuditLog(path, identity=NODE, wall=lambda: 0.0, files=disk)
    written = [log.record("secret_read", count=n).body for n in range(5)]
    disk.crash()
    again = AuditLog(path, identity=NODE, wall=lambda: 0.0, files=disk)
    assert again.entries >= len(written)


def test_a_failed_write_is_told_as_safe_mode() -> None:
    files = FullDisk()
    log = AuditLog(Path("audit.log"), identity=NODE, wall=lambda: 0.0, files=files)
    log.record("node_started")
    files.full = True
    with pytest.raises(SafeMode):
        log.record("node_stopped")
    files.full = False
    with pytest.raises(SafeMode):
        log.record("node_stopped")

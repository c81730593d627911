"""Promises of `zipnet safe-mode`: it tells why, tries the disk first, and repairs nothing."""

from __future__ import annotations

from pathlib import Path

from tests.harness.command import zipnet
from zipnet.storage.decommission import wipe_secrets
from zipnet.storage.marker import SafeModeMarker, SafeModeNote


def mark(folder: Path) -> None:
    marker = SafeModeMarker(folder)
    assert marker.set(SafeModeNote("disk_full", "a journal could not be made durable", 0))
    marker.close()


def test_what_is_not_in_safe_mode_says_so(tmp_path: Path) -> None:
    for verb in ("show", "leave"):
        done = zipnet("safe-mode", verb, "--state", ".", cwd=tmp_path)
        assert (done.code, done.out) == (0, "not in safe mode\n")


def test_show_tells_since_when_and_why_and_changes_nothing(tmp_path: Path) -> None:
    mark(tmp_path)
    for _ in range(2):
        done = zipnet("safe-mode", "show", "--state", ".", cwd=tmp_path)
        assert done.code == 1
        assert done.out == (
            "in safe mode since 1970-01-01T00:00:00Z: disk_full: "
            "a journal could not be made durable\n"
        )


def test_leave_takes_the_mark_away_and_touches_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "releases.journal").write_bytes(b"memory of what was released")
    mark(tmp_path)
    done = zipnet("safe-mode", "leave", "--state", ".", cwd=tmp_path)
    assert done.code == 0, done.everything
    assert "disk_full" in done.err
    assert zipnet("safe-mode", "show", "--state", ".", cwd=tmp_path).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["releases.journal", "safe-mode"]
    assert (tmp_path / "releases.journal").read_bytes() == b"memory of what was released"


def test_a_decommissioned_folder_stays_so(tmp_path: Path) -> None:
    (tmp_path / "releases.journal").touch()
    wipe_secrets(tmp_path, now_ms=0)
    done = zipnet("safe-mode", "leave", "--state", ".", cwd=tmp_path)
    assert done.code == 2, done.everything
    assert "decommissioned for good" in done.err
    assert zipnet("safe-mode", "show", "--state", ".", cwd=tmp_path).code == 1


def test_a_running_server_is_not_pulled_out_of_it(tmp_path: Path) -> None:
    mark(tmp_path)
    held = SafeModeMarker(tmp_path)
    done = zipnet("safe-mode", "leave", "--state", ".", cwd=tmp_path)
    held.close()
    assert done.code == 2
    assert "in use by another process" in done.err
    assert zipnet("safe-mode", "show", "--state", ".", cwd=tmp_path).code == 1


def test_a_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    done = zipnet("safe-mode", "leave", "--state", "nowhere", cwd=tmp_path)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

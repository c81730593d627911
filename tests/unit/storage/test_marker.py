"""The mark of safe mode: durable, torn means set, and only an operator takes it away."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.unit.storage.failing_files import FailingFiles
from zipnet.errors import DuplicateIdentityError, StorageError
from zipnet.storage.marker import MARKER_NAME, SafeModeMarker, SafeModeNote, require_writable

NOTE = SafeModeNote("disk_full", "the journal x could not be made durable", 1_900_000_000_000)


def reread(folder: Path) -> SafeModeNote | None:
    marker = SafeModeMarker(folder)
    try:
        return marker.read()
    finally:
        marker.close()


def test_the_mark_outlives_the_process_and_the_first_reason_stands(tmp_path: Path) -> None:
    marker = SafeModeMarker(tmp_path)
    assert marker.read() is None
    assert marker.set(NOTE)
    assert marker.set(SafeModeNote("io_error", "later", 1))
    marker.close()
    assert reread(tmp_path) == NOTE
    marker = SafeModeMarker(tmp_path)
    marker.clear()
    marker.close()
    assert reread(tmp_path) is None


def test_setting_the_mark_needs_no_new_block(tmp_path: Path) -> None:
    marker = SafeModeMarker(tmp_path)
    before = (tmp_path / MARKER_NAME).stat()
    marker.set(NOTE)
    after = (tmp_path / MARKER_NAME).stat()
    marker.close()
    assert (before.st_size, before.st_blocks) == (after.st_size, after.st_blocks)
    assert before.st_size == 512


@pytest.mark.parametrize("cut", [0, 1, 8, 9, 57, 300, 466, 497])
def test_a_mark_torn_while_it_was_set_or_taken_away_reads_as_set(tmp_path: Path, cut: int) -> None:
    marker = SafeModeMarker(tmp_path)
    clear = (tmp_path / MARKER_NAME).read_bytes()
    marker.set(NOTE)
    marker.close()
    path = tmp_path / MARKER_NAME
    done = path.read_bytes()
    for first, second in ((done, clear), (clear, done)):
        torn = first[:cut] + second[cut:]
        path.write_bytes(torn)
        if torn == clear:
            assert reread(tmp_path) is None
        else:
            assert reread(tmp_path) is not None


def test_a_second_holder_is_refused(tmp_path: Path) -> None:
    marker = SafeModeMarker(tmp_path)
    with pytest.raises(DuplicateIdentityError, match="in use by another process"):
        SafeModeMarker(tmp_path)
    marker.close()
    assert reread(tmp_path) is None


def test_a_disk_that_takes_not_even_the_mark_is_told(tmp_path: Path) -> None:
    files = FailingFiles()
    marker = SafeModeMarker(tmp_path, files=files)
    files.failures["sync"] = errno.EIO
    assert not marker.set(NOTE)
    with pytest.raises(StorageError, match="could not be taken away"):
        marker.clear()
    marker.close()


def test_the_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match="still refuses writes"):
        require_writable(tmp_path / "nowhere")

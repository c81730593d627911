"""`zipnet logs`: sealed by day, deleted after thirty, opened with the key alone."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

TEXT = b'{"event": "one"}\n' * 9000


def _logs(*words: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "zipnet", "logs", *map(str, words)],
        input=given,
        capture_output=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for sealed logs, and a key beside it."""
    assert _logs("keygen", "--out", tmp_path / "k").returncode == 0
    (tmp_path / "cold").mkdir()
    return tmp_path / "cold"


def _seal(folder: Path, *words: object) -> subprocess.CompletedProcess[bytes]:
    key = folder.parent / "k.pub"
    return _logs("seal", "--key", key, "--dir", folder, *words, given=TEXT)


@pytest.mark.requirement("L15")
def test_what_is_sealed_opens_with_the_key_and_goes_after_thirty_days(folder: Path) -> None:
    today = datetime.now(UTC).date()
    (folder / f"{today - timedelta(days=32)}.part").touch()  # what a killed run left
    for days in (31, 29, 29):
        done = _seal(folder, "--day", today - timedelta(days=days))
        assert done.returncode == 0, done.stderr
    names = {path.name for path in folder.iterdir()}
    kept = str(today - timedelta(days=29))
    assert names == {f"{kept}.znlog", f"{kept}-2.znlog"}
    (folder / "not-ours").touch()
    assert _seal(folder).returncode == 0
    assert (folder / "not-ours").exists()
    sealed = folder / f"{today - timedelta(days=1)}.znlog"
    assert b"event" not in sealed.read_bytes()
    opened = _logs("open", "--key", folder.parent / "k", sealed)
    assert (opened.returncode, opened.stdout) == (0, TEXT)


def test_the_key_is_two_files_and_only_one_of_them_secret(folder: Path) -> None:
    secret, public = folder.parent / "k", folder.parent / "k.pub"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert public.read_text().startswith("zipnet-log-key-1 ")
    again = _logs("keygen", "--out", secret)
    assert again.returncode == 2
    assert b"exists" in again.stderr


def test_a_file_that_was_cut_off_is_exit_1(folder: Path) -> None:
    assert _seal(folder, "--day", "2999-01-01").returncode == 0
    (sealed,) = folder.iterdir()
    sealed.write_bytes(sealed.read_bytes()[:-1])
    done = _logs("open", "--key", folder.parent / "k", sealed)
    assert done.returncode == 1
    assert b"cut off" in done.stderr


# A suite in the background of a shell has interrupts ignored, and hands that down.
HEEDING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from zipnet.cli import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_run_that_is_interrupted_leaves_nothing_and_a_reader_may_leave_early(
    folder: Path,
) -> None:
    words = (sys.executable, "-m", "zipnet", "logs")
    to = ("seal", "--key", folder.parent / "k.pub", "--dir", folder)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        (sys.executable, "-c", HEEDING, "logs", *to), stdin=pipe, stdout=pipe, stderr=pipe
    ) as sealing:
        deadline = time.monotonic() + 30
        while not list(folder.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        sealing.send_signal(signal.SIGINT)
        assert sealing.wait(30) == 130
    assert list(folder.iterdir()) == []
    assert _logs(*to, given=TEXT * 4096).returncode == 0
    (sealed,) = folder.iterdir()
    opening = (*words, "open", "--key", folder.parent / "k", sealed)
    with subprocess.Popen(opening, stdout=pipe, stderr=pipe) as opened:
        assert opened.stdout is not None
        assert opened.stderr is not None
        assert opened.stdout.readline()
        opened.stdout.close()
        assert b"cannot be read" not in opened.stderr.read()


def test_what_cannot_be_used_is_one_line_and_exit_2(folder: Path) -> None:
    secret, public = folder.parent / "k", folder.parent / "k.pub"
    for words in (
        ("seal", "--key", secret, "--dir", folder),
        ("seal", "--key", folder / "nothing", "--dir", folder),
        ("seal", "--key", public, "--dir", folder / "nothing"),
        ("seal", "--key", public, "--dir", folder, "--day", "soon"),
        ("open", "--key", secret, folder / "nothing"),
        ("open", "--key", public, folder / "nothing"),
    ):
        done = _logs(*words, given=b"x")
        assert (done.returncode, done.stdout) == (2, b""), words
        assert len(done.stderr.splitlines()) == 1
    assert list(folder.iterdir()) == []

"""Promises of key files on disk: what was written is read back, and damage is noticed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from zipnet.errors import ConfigError
from zipnet.settings.keyfiles import create_identity_files, public_path, write_new, write_over
from zipnet.settings.publicfile import format_public_file, read_public_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("kind", ["node", "operator"])
def test_a_public_file_round_trips(tmp_path: Path, kind: str) -> None:
    public = create_identity_files(tmp_path / "k", kind, os.urandom)
    assert read_public_file(public_path(tmp_path / "k"), kind=kind) == public


DAMAGE: dict[str, Callable[[str, str], str]] = {
    "unknown key": lambda mine, _: mine + "colour = 1\n",
    "missing key": lambda mine, _: "\n".join(mine.splitlines()[:-1]),
    "another's peer id": lambda mine, other: _swap("peer_id", mine, other),
    "another's keys": lambda mine, other: _swap("identity", mine, other),
    "another's certificate": lambda mine, other: _swap("certificate", mine, other),
    "a broken certificate": lambda mine, _: mine.replace('certificate = "', 'certificate = "AAAA'),
    "a number for text": lambda mine, _: "\n".join(
        "identity = 1" if line.startswith("identity") else line for line in mine.splitlines()
    ),
    "another kind": lambda mine, _: mine.replace('kind = "node"', 'kind = "operator"'),
    "no TOML": lambda mine, _: mine + "?\n",
    "far too large": lambda mine, _: mine + "#" * 20_000,
}


def _swap(key: str, mine: str, other: str) -> str:
    theirs = next(line for line in other.splitlines() if line.startswith(f"{key} = "))
    return "\n".join(theirs if line.startswith(f"{key} = ") else line for line in mine.splitlines())


@pytest.mark.parametrize("case", DAMAGE.keys())
def test_a_damaged_public_file_is_refused_by_name(tmp_path: Path, case: str) -> None:
    mine = format_public_file(create_identity_files(tmp_path / "a", "node", os.urandom))
    other = format_public_file(create_identity_files(tmp_path / "b", "node", os.urandom))
    path = tmp_path / "x.pub"
    path.write_text(DAMAGE[case](mine, other))
    assert path.read_text() != mine
    with pytest.raises(ConfigError, match=r"x\.pub"):
        read_public_file(path, kind="node")


def test_a_file_is_replaced_whole_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    write_new(path, "old", mode=0o644)
    write_over(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["d.toml"]


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_text("old")
    path.with_name(f".checkpoint.{os.getpid()}.new").write_text("half of")
    write_over(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_secret_goes_when_its_public_half_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write_new

    def fails_second(path: Path, text: str, *, mode: int) -> None:
        if path.suffix == ".pub":
            raise ConfigError("disk is full")
        real(path, text, mode=mode)

    monkeypatch.setattr("zipnet.settings.keyfiles.write_new", fails_second)
    with pytest.raises(ConfigError, match="disk is full"):
        create_identity_files(tmp_path / "k", "node", os.urandom)
    assert list(tmp_path.iterdir()) == []

"""What every verb refuses before it does anything: one line, exit code 2, nothing written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.harness.command import Done, zipnet
from tests.harness.instance_files import InstanceFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVER = (
    *("server", "--instance", "acme.test", "--descriptor", "d.toml", "--state", "state"),
    *("--secret-file", "server-0.secret", "--committee-secret-file", "committee.secret"),
)
AGGREGATOR = (
    *("aggregator", "--instance", "acme.test", "--descriptor", "d.toml"),
    *("--secret-file", "leaf.secret"),
)
PUBLISH = ("publish", "--descriptor", "d.toml", "--message", "hello")
READ = ("read", "--descriptor", "d.toml", "--json")


@dataclass(frozen=True)
class Case:
    """A mistake: what is spoiled, how the command is called, what its one line must say."""

    words: tuple[str, ...]
    expected: tuple[str, ...]
    spoil: Callable[[InstanceFiles], object] = lambda _: None
    env: dict[str, str] = field(default_factory=dict)


def _alter(files: InstanceFiles) -> None:
    text = files.descriptor.read_text()
    files.descriptor.write_text(text.replace("max_absent = 0", "max_absent = 1"))


def _expire(files: InstanceFiles) -> None:
    long_ago = datetime.now(UTC).replace(microsecond=0) - timedelta(days=9)
    InstanceFiles(files.folder, not_before=long_ago, not_after=long_ago + timedelta(days=1))


def _open_to_others(files: InstanceFiles) -> None:
    files.secret_file("server-0").chmod(0o644)


def _swap_committee(files: InstanceFiles) -> None:
    files.write_secret("committee")


CASES = {
    "server: wrong instance": Case(
        (*SERVER, "--instance", "acme.prod"), ("acme.prod", "acme.test")
    ),
    "server: no instance": Case((*SERVER[:1], *SERVER[3:]), ("INSTANCE is required",)),
    "server: wrong committee secret": Case(SERVER, ("COMMITTEE_SECRET is not",), _swap_committee),
    "server: altered descriptor": Case(SERVER, ("d.toml", "altered"), _alter),
    "server: expired descriptor": Case(SERVER, ("d.toml", "expired"), _expire),
    "server: secret open to others in production": Case(
        (*SERVER, "--profile", "production"), ("mode 0644", "chmod 600"), _open_to_others
    ),
    "server: an aggregator's secret": Case(
        (*SERVER, "--secret-file", "leaf.secret"), ("registers no server",)
    ),
    "server: bad value in the environment": Case(
        SERVER, ("ROUND_PERIOD", "text of 6 characters"), env={"ZIPNET_ROUND_PERIOD": "canary"}
    ),
    "aggregator: committee secret in the environment": Case(
        AGGREGATOR,
        ("an aggregator was given a committee secret", "ZIPNET_COMMITTEE_SECRET_FILE"),
        env={"ZIPNET_COMMITTEE_SECRET_FILE": "committee.secret"},
    ),
    "aggregator: the committee secret as its own": Case(
        (*AGGREGATOR, "--secret-file", "committee.secret"), ("holds the committee secret",)
    ),
    "aggregator: wrong instance": Case((*AGGREGATOR, "--instance", "acme.prod"), ("acme.prod",)),
    "aggregator: altered descriptor": Case(AGGREGATOR, ("altered",), _alter),
    "publish: altered descriptor": Case(PUBLISH, ("d.toml", "altered"), _alter),
    "publish: expired descriptor": Case(PUBLISH, ("d.toml", "expired"), _expire),
    "publish: committee secret in the environment": Case(
        PUBLISH, ("a client was given",), env={"ZIPNET_COMMITTEE_SECRET_FILE": "committee.secret"}
    ),
    "read: altered descriptor": Case(READ, ("d.toml", "altered"), _alter),
    "read: another operator's descriptor": Case(
        (*READ, "--operator", "zp1" + "0" * 64), ("another operator",)
    ),
}


@pytest.fixture
def files(tmp_path: Path) -> InstanceFiles:
    now = datetime.now(UTC).replace(microsecond=0)
    return InstanceFiles(
        tmp_path, not_before=now - timedelta(days=1), not_after=now + timedelta(days=1)
    )


@pytest.mark.requirement("Z1")
@pytest.mark.requirement("Z3")
@pytest.mark.requirement("Z13")
@pytest.mark.parametrize("name", CASES.keys())
def test_a_mistake_is_one_line_exit_2_and_nothing_written(files: InstanceFiles, name: str) -> None:
    case = CASES[name]
    case.spoil(files)
    before = sorted(files.folder.iterdir())
    done: Done = zipnet(*case.words, cwd=files.folder, env=case.env)
    assert (done.code, done.out) == (2, ""), done.everything
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1, done.err
    for text in case.expected:
        assert text in done.err
    assert "canary" not in done.err
    assert not any(text in done.everything for text in files.secret_texts)
    assert sorted(files.folder.iterdir()) == before

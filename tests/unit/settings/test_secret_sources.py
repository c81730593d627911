"""Sources of secrets: each gives the same secret, says what is unsafe, and stays in its bounds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.instance_files import NOW, InstanceFiles
from zipnet.errors import ConfigError
from zipnet.settings import ServerSettings, load_aggregator, load_server
from zipnet.settings.secretsources import (
    EnvironmentSource,
    FileSource,
    ProgramSource,
    SecretSource,
)

WHAT = "setting SECRET"


@pytest.fixture
def files(tmp_path: Path) -> InstanceFiles:
    return InstanceFiles(tmp_path)


def program(folder: Path, body: str) -> Path:
    path = folder / "vault"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return path


SOURCES: dict[str, Callable[[InstanceFiles], SecretSource]] = {
    "file": lambda files: FileSource(files.secret_file("server-1")),
    "credential": lambda files: FileSource(files.secret_file("server-1"), credential=True),
    "environment": lambda files: EnvironmentSource(
        "ZIPNET_SECRET", files.secret_file("server-1").read_text()
    ),
    "program": lambda files: ProgramSource(
        (str(program(files.folder, 'cat "$1"')), str(files.secret_file("server-1")))
    ),
}


@pytest.mark.requirement("Z4")
@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_secret_again_and_again_and_shows_nothing_of_it(
    name: str, files: InstanceFiles
) -> None:
    source = SOURCES[name](files)
    first, second = source.read(WHAT), source.read(WHAT)
    assert first.secret == second.secret
    assert first.secret == FileSource(files.secret_file("server-1")).read(WHAT).secret
    assert bool(first.unsafe) is (name == "environment")
    shown = repr(source) + repr(first)
    assert not any(text in shown for text in files.secret_texts)


def _with(files: InstanceFiles, **environ: str) -> ServerSettings:
    base = {
        "ZIPNET_INSTANCE": files.name,
        "ZIPNET_DESCRIPTOR": str(files.descriptor),
        "ZIPNET_COMMITTEE_SECRET_FILE": str(files.secret_file("committee")),
        "ZIPNET_MIN_PARTICIPANTS": "8",
    }
    return load_server({}, base | environ, now=NOW)


@pytest.mark.requirement("Z4")
def test_a_program_gives_a_node_its_secret_in_production_too(files: InstanceFiles) -> None:
    command = f"{program(files.folder, 'cat $1')} {files.secret_file('server-1')}"
    settings = _with(files, ZIPNET_SECRET_PROGRAM=command, ZIPNET_PROFILE="production")
    assert settings.index == 1
    (shown,) = (item for item in settings.effective if item.name == "SECRET")
    assert (shown.value, shown.origin) == (
        "set (program)", "environment ZIPNET_SECRET_PROGRAM",
    )  # fmt: skip
    config = files.folder / "c.toml"
    words = ", ".join(f'"{word}"' for word in command.split())
    config.write_text(
        f'instance = "{files.name}"\ndescriptor = "d.toml"\nsecret_program = [{words}]\n'
        'committee_secret_file = "committee.secret"\n'
    )
    assert load_server({}, {}, config, now=NOW).index == 1


def test_a_program_sees_no_environment_but_the_credentials_folder(
    files: InstanceFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "canary")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(files.folder))
    (files.folder / "x.secret").symlink_to(files.secret_file("server-1"))
    body = 'test -z "$SOME_TOKEN" && cat "$CREDENTIALS_DIRECTORY/x.secret"'
    assert not ProgramSource((str(program(files.folder, body)),)).read(WHAT).unsafe


BAD_PROGRAMS = {
    "fails": ("exit 3", "failed with status 3"),
    "prints a secret and fails": ("cat server-1.secret; exit 1", "failed with status 1"),
    "prints nothing": ("true", "0 characters"),
    "prints something else": ("echo canary-5d1c", "characters and does not start with"),
    "prints no text": (r"printf '\377\376'", "does not print text"),
    "prints without end": ("while :; do echo canary-5d1c; done", "prints too much"),
    "prints what was typed in": (
        f"echo zipnet-secret-1:{'ab' * 32}", "is not 32 random bytes",
    ),
    "does not end": ("sleep 60", "does not end"),
    "closes its output and stays": ("exec >&-; sleep 60", "does not end"),
    "leaves a child behind": ("sleep 60 & cat server-1.secret", "does not end"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PROGRAMS)
def test_a_program_that_misbehaves_is_refused_in_time_and_not_quoted(
    case: str, files: InstanceFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files.folder)
    body, says = BAD_PROGRAMS[case]
    # Those that end have the time a busy machine takes; the others need not be waited for.
    deadline_s = 0.3 if says == "does not end" else 10.0
    source = ProgramSource((str(program(files.folder, body)),), deadline_s=deadline_s)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=says) as caught:
        source.read(WHAT)
    assert time.monotonic() - began < deadline_s + 5
    line = caught.value.message_line
    assert "canary" not in line
    assert not any(text in line for text in files.secret_texts)


def test_what_a_program_leaves_behind_is_killed(files: InstanceFiles) -> None:
    mark = files.folder / "child"
    body = f"(echo $$ > {mark}; exec sleep 60) & sleep 60"
    with pytest.raises(ConfigError):
        ProgramSource((str(program(files.folder, body)),), deadline_s=1.0).read(WHAT)
    sleeping = [
        folder for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and str(mark) in _command(folder)
    ]  # fmt: skip
    assert mark.exists()
    assert sleeping == []


def _command(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_text()
    except OSError:
        return ""


def _spoilt(files: InstanceFiles, spoil: Callable[[Path], None]) -> ProgramSource:
    folder = files.folder / "bin"
    folder.mkdir(mode=0o700)
    path = program(folder, f"cat {files.secret_file('server-1')}")
    spoil(path)
    return ProgramSource((str(path),))


def _loose_folder(files: InstanceFiles) -> FileSource:
    files.folder.chmod(0o777)
    return FileSource(files.secret_file("server-1"))


UNSAFE: dict[str, tuple[Callable[[InstanceFiles], SecretSource], str]] = {
    "a program others may write": (
        lambda files: _spoilt(files, lambda path: path.chmod(0o722)), "can be replaced",
    ),
    "a program in a folder others may write": (
        lambda files: _spoilt(files, lambda path: path.parent.chmod(0o777)), "can be replaced",
    ),
    "a file in a folder others may write": (
        _loose_folder, "can be replaced by others",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSAFE)
def test_what_others_can_replace_is_unsafe(case: str, files: InstanceFiles) -> None:
    make, says = UNSAFE[case]
    (unsafe,) = make(files).read(WHAT).unsafe
    assert says in unsafe.problem
    assert "chmod" in unsafe.fix


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts of an orchestrator belong to root")
def test_a_secret_mounted_for_our_own_group_is_safe_and_no_wider_one(files: InstanceFiles) -> None:
    path = files.secret_file("server-1")
    for mode, safe in ((0o440, True), (0o400, True), (0o444, False), (0o640, False)):
        path.chmod(mode)
        assert (not FileSource(path).read(WHAT).unsafe) is safe, oct(mode)


COMMANDS: dict[str, tuple[dict[str, str], str]] = {
    "both a program and a file": (
        {"ZIPNET_SECRET_PROGRAM": "/x", "ZIPNET_SECRET_FILE": "/y"}, "both ZIPNET_SECRET_FILE and",
    ),
    "an unclosed quote": ({"ZIPNET_SECRET_PROGRAM": "/x 'y"}, "not a command"),
    "no full path": ({"ZIPNET_SECRET_PROGRAM": "sh -c true"}, "cannot be run"),
    "no such program": ({"ZIPNET_SECRET_PROGRAM": "/nowhere/vault"}, "cannot be run"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_of_another_shape_is_refused(case: str, files: InstanceFiles) -> None:
    environ, says = COMMANDS[case]
    with pytest.raises(ConfigError, match=says):
        _with(files, **environ)


@pytest.mark.requirement("Z13")
def test_an_aggregator_refuses_a_committee_secret_by_program_unrun(files: InstanceFiles) -> None:
    mark = files.folder / "ran"
    flags = {
        "instance": files.name,
        "descriptor": files.descriptor,
        "secret_file": files.secret_file("leaf"),
    }
    command = {"ZIPNET_COMMITTEE_SECRET_PROGRAM": str(program(files.folder, f"touch {mark}"))}
    with pytest.raises(ConfigError, match="was given a committee secret"):
        load_aggregator(flags, command, now=NOW)
    assert not mark.exists()

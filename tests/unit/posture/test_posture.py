"""What a posture is judged by: facts of the host that break a promise, and what starts anyway."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness.strict_files import StrictFiles
from zipnet.errors import ConfigError
from zipnet.posture import (
    BuildAge,
    HostFacts,
    Keeping,
    Subject,
    examine,
    probe_host,
    require_posture,
)
from zipnet.posture.host_checks import MAX_BUILD_DAYS, MAX_INPUTS_DAYS
from zipnet.posture.subject import State
from zipnet.settings import ServerSettings, load_server

GOOD = HostFacts(
    uid=1000,
    capabilities=1 << 14,
    no_filter="",
    system_writable=(),
    memory_locks=True,
    swap=True,
    build=BuildAge(3, 10),
    now_s=0.0,
)


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    files = StrictFiles(tmp_path)
    config = files.template("server")
    environ = {
        "ZIPNET_SECRET_FILE": str(config.with_suffix(".secret")),
        "ZIPNET_COMMITTEE_SECRET_FILE": str(config.with_suffix(".committee-secret")),
        "ZIPNET_CONFIG_KEY": str(files.key_file),
    }
    return load_server({}, environ, config)


def kept(**facts: object) -> Callable[[ServerSettings], HostFacts]:
    def make(settings: ServerSettings) -> HostFacts:
        assert settings.state is not None
        keeping = replace(Keeping(0o700, 1000), **facts)  # type: ignore[arg-type]
        return replace(GOOD, kept={settings.state: keeping})

    return make


HOSTS: dict[str, tuple[Callable[[ServerSettings], HostFacts], str, str]] = {
    "root": (lambda _: replace(GOOD, uid=0), "no_privileges", "runs as root"),
    "capabilities": (lambda _: replace(GOOD, capabilities=1 << 21), "no_privileges", "0x200000"),
    "unknown capabilities": (lambda _: replace(GOOD, capabilities=-1), "no_privileges", "holds"),
    "no filter": (lambda _: replace(GOOD, no_filter="no library"), "sandbox", "no library"),
    "writable": (lambda _: replace(GOOD, system_writable=("/usr",)), "read_only_system", "/usr"),
    "old build": (
        lambda _: replace(GOOD, build=BuildAge(MAX_BUILD_DAYS + 1, 1)), "build_age", "46 days",
    ),
    "old inputs": (
        lambda _: replace(GOOD, build=BuildAge(1, MAX_INPUTS_DAYS + 1)), "build_age", "91 days",
    ),
    "build of no known age": (lambda _: replace(GOOD, build=BuildAge()), "build_age", "nobody"),
    "state open to others": (kept(mode=0o750), "state_kept", "0750"),
    "state in memory": (kept(in_memory=True), "state_kept", "forgets"),
    "state in a checkout": (kept(in_checkout=True), "state_kept", "git"),
    "a shared secret": (
        lambda _: replace(GOOD, reused=(("secret", Path("o.toml")),)), "secrets_apart", "o.toml",
    ),
}  # fmt: skip


@pytest.mark.requirement("L13")
@pytest.mark.requirement("Z14")
@pytest.mark.requirement("Z18")
@pytest.mark.parametrize("case", HOSTS)
def test_a_host_that_breaks_a_promise_is_not_started_on(
    case: str, settings: ServerSettings
) -> None:
    make, name, says = HOSTS[case]
    require_posture(examine(Subject(settings, GOOD, starting=True), "production"))
    findings = examine(Subject(settings, make(settings), starting=True), "production")
    (violated,) = (finding for finding in findings if finding.state is State.VIOLATED)
    assert violated.check == name
    assert says in violated.text
    with pytest.raises(ConfigError, match=violated.key.upper()) as caught:
        require_posture(findings)
    assert caught.value.hint


@pytest.mark.requirement("L13")
def test_a_server_without_memory_needs_memory_that_stays_there(settings: ServerSettings) -> None:
    amnesia = replace(settings, state=None)
    for locks, swap, fine in ((True, True, True), (False, False, True), (False, True, False)):
        host = replace(GOOD, memory_locks=locks, swap=swap)
        states = {
            finding.check: finding.state
            for finding in examine(Subject(amnesia, host, starting=True), "production")
        }
        assert (states["state_kept"] is State.OK) is fine


def test_what_is_allowed_by_name_lets_start_and_is_said(settings: ServerSettings) -> None:
    host = replace(GOOD, uid=0, system_writable=("/",))
    lax = replace(settings, allowed=("privileges", "writable_system"))
    findings = examine(Subject(lax, host, starting=True), "production")
    require_posture(findings)
    assert {f.key for f in findings if f.state is State.ALLOWED} == {
        "allow_privileges", "allow_writable_system",
    }  # fmt: skip
    assert lax.posture == "non-production"
    assert settings.posture == "production"


def test_several_violations_are_counted(settings: ServerSettings) -> None:
    host = replace(GOOD, uid=0, no_filter="none")
    findings = examine(Subject(settings, host, starting=True), "production")
    with pytest.raises(ConfigError, match=r"and 1 more: zipnet check"):
        require_posture(findings)


def test_the_probe_tells_the_truth_about_this_host(
    settings: ServerSettings, tmp_path: Path
) -> None:
    assert settings.state is not None
    settings.state.mkdir(mode=0o700)
    day = 86_400
    environ = {
        "ZIPNET_BUILD_TIME": str(int(time.time()) - 3 * day),
        "ZIPNET_INPUTS_TIME": str(int(time.time()) - 7 * day),
    }
    facts = probe_host(settings, environ)
    assert facts.uid == os.geteuid()
    assert facts.build.build_days == pytest.approx(3, abs=0.1)
    assert facts.build.inputs_days == pytest.approx(7, abs=0.1)
    assert facts.kept[settings.state].mode == 0o700
    assert not facts.kept[settings.state].in_checkout
    assert facts.reused == ()
    (tmp_path / ".git").mkdir()
    assert probe_host(settings, {}).kept[settings.state].in_checkout
    # Outside an image, the day of the installation.
    assert probe_host(settings, {}).build.build_days is not None


def test_a_filesystem_in_memory_is_told_from_a_disk(settings: ServerSettings) -> None:
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        pytest.skip("no /dev/shm to write to")
    folder = shm / f"zipnet-test-{os.getpid()}"
    folder.mkdir()
    try:
        assert probe_host(replace(settings, state=folder)).kept[folder].in_memory
    finally:
        folder.rmdir()


HOLD = """
import sys
from pathlib import Path
from zipnet.errors import ConfigError
from zipnet.node.sole_use import hold_secrets
from zipnet.settings import load_server
environ = dict(line.split("=", 1) for line in sys.argv[2:])
try:
    hold_secrets(load_server({}, environ, Path(sys.argv[1])))
except ConfigError as error:
    print(error.message_line, flush=True)
else:
    print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], str]]]:
    files = StrictFiles(tmp_path)
    config = files.template("server")
    environ = [
        f"ZIPNET_SECRET_FILE={config.with_suffix('.secret')}",
        f"ZIPNET_COMMITTEE_SECRET_FILE={config.with_suffix('.committee-secret')}",
        f"ZIPNET_CONFIG_KEY={files.key_file}",
    ]
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(config), *environ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline()

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.requirement("Z5")
@pytest.mark.requirement("Z10")
def test_a_secret_is_held_by_one_process_of_a_host_until_it_ends(
    holder: Callable[[], tuple[subprocess.Popen[str], str]],
) -> None:
    first, said = holder()
    assert said == "held\n"
    _, said = holder()
    assert "setting SECRET: another process of this host uses the same secret" in said
    first.kill()
    first.communicate()
    _, said = holder()
    assert said == "held\n"

"""The README's commands, run as they stand there, and both transports after them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.network import clean_environment, run_zipnet
from zipnet.host.loopback import free_ports

pytestmark = pytest.mark.timeout(300)
README = Path(__file__).parents[2] / "README.md"


@dataclass
class Walk:
    """What came of the README's commands."""

    folder: Path
    said: str


def readme_commands() -> str:
    text = README.read_text()
    found = re.search(r"<!-- by-hand: begin -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert found, "the README has no by-hand section"
    return found[1]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """Run the commands in one shell, which stays until the tests are over."""
    folder = tmp_path_factory.mktemp("by-hand")
    script = readme_commands()
    named = re.findall(r"127\.0\.0\.1:(\d+)", script)
    for old, new in zip(named, free_ports(len(named)), strict=True):
        script = script.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    # Nothing else is changed: the program is this environment's, faults end the script at once.
    binary = Path(sys.executable).parent
    shell = f"set -eu\nexport PATH={binary}:$PATH\n{script}\ntouch done\nwait\n"
    with (folder / "shell.out").open("wb") as out, (folder / "shell.err").open("wb") as err:
        process = subprocess.Popen(
            ["bash", "-c", shell],
            cwd=folder,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 150
        while not (folder / "done").exists():
            said = (folder / "shell.err").read_text()
            assert process.poll() is None, f"the README's commands failed: {said}"
            assert time.monotonic() < end, f"the README's commands did not end: {said}"
            time.sleep(0.1)
        yield Walk(folder, (folder / "shell.out").read_text())
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.requirement("D2")
def test_the_readmes_commands_end_in_a_receipt_and_a_verified_message(walk: Walk) -> None:
    assert re.search(r"published round=\d+ slot=\d+", walk.said)
    lines = [json.loads(line) for line in walk.said.splitlines() if line.startswith("{")]
    (hello,) = [line for line in lines if line["message"] == "hello"]
    assert hello["verified"] is True
    assert isinstance(hello["round"], int)
    assert isinstance(hello["slot"], int)


@pytest.mark.requirement("Z21")
@pytest.mark.parametrize("transport", ["quic", "tls"])
def test_publish_and_read_over_each_transport(walk: Walk, transport: str) -> None:
    text = f"over {transport}"
    done = run_zipnet(
        *("publish", "--descriptor", "d.toml", "--transport", transport, "--json"),
        cwd=walk.folder,
        stdin=f"{text}\n",
        timeout_s=120,
    )
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    assert receipt["participants"] >= 3
    read = run_zipnet(
        *("read", "--descriptor", "d.toml", "--from", "0", "--json", "--transport", transport),
        cwd=walk.folder,
    )
    assert read.returncode == 0, read.stderr
    found = [json.loads(line) for line in read.stdout.splitlines()]
    (message,) = [item for item in found if item["message"] == text]
    assert (message["round"], message["slot"]) == (receipt["round"], receipt["slot"])
    assert message["verified"] is True


@pytest.mark.requirement("L1")
def test_an_archive_holds_every_servers_checkpoint_against_the_records(walk: Walk) -> None:
    for _ in range(2):
        pulled = run_zipnet("archive", "pull", "kept", "-d", "d.toml", cwd=walk.folder)
        assert pulled.returncode == 0, pulled.stderr
    verified = run_zipnet("archive", "verify", "kept", "-d", "d.toml", cwd=walk.folder)
    assert verified.returncode == 0, verified.stderr
    # Whoever had sealed the newest record a moment earlier signs alone at that length.
    assert re.search(r"archive ok: \d+:[0-9a-f]{64} .* signed by [0-2]", verified.stdout)
    read = run_zipnet("read", "-d", "d.toml", "--records-dir", "kept", "--json", cwd=walk.folder)
    assert '"message":"hello"' in read.stdout


def test_a_message_that_is_too_long_is_one_line_exit_code_2_and_not_sent(walk: Walk) -> None:
    done = run_zipnet("publish", "--descriptor", "d.toml", cwd=walk.folder, stdin="x" * (2 << 20))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "long" in done.stderr
    assert done.stdout == ""


@pytest.mark.requirement("Z3")
def test_an_altered_descriptor_stops_publisher_and_reader(walk: Walk) -> None:
    data = (walk.folder / "d.toml").read_bytes()
    (walk.folder / "altered.toml").write_bytes(data.replace(b"max_absent = 0", b"max_absent = 1"))
    for verb in ("publish", "read"):
        done = run_zipnet(verb, "--descriptor", "altered.toml", cwd=walk.folder, stdin="hello")
        assert done.returncode == 2
        assert "altered" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

"""Row M15: all roles in one process with one command, and nothing of it left behind (row M1)."""

from __future__ import annotations

import json
import socket
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import Node, run_zipnet, wait_for
from zipnet.host.loopback import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)


class MicroRun:
    """A running ``zipnet micro``."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.folder = folder
        self.node = Node("micro", ["micro", "--gateway", f"127.0.0.1:{self.port}"], folder)

    def wait_up(self) -> None:
        wait_for(lambda: "the network is up" in self.said, "the micro network")

    @property
    def said(self) -> str:
        return self.node.err.read_text()


@pytest.fixture
def micro(tmp_path: Path) -> Iterator[MicroRun]:
    made = MicroRun(tmp_path)
    made.node.start()
    try:
        yield made
    finally:
        if made.node.is_running():
            made.node.stop()


@pytest.mark.requirement("M15")
def test_one_command_is_a_network_and_nothing_of_it_is_left(micro: MicroRun) -> None:
    micro.wait_up()
    assert "nobody is anonymous" in micro.said
    done = run_zipnet(
        *("publish", "-d", "micro.toml", "--transport", "tls", "--json", "-m", "from outside"),
        cwd=micro.folder,
    )
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout.splitlines()[-1])
    assert receipt["participants"] >= 3, "the minimum: on a busy machine a cover may come too late"
    request = urllib.request.Request(
        f"http://127.0.0.1:{micro.port}/v1/publish",
        data=json.dumps({"text": "through the gateway"}).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        assert answer.status == 200
    done = run_zipnet("read", "-d", "micro.toml", "--transport", "tls", cwd=micro.folder)
    assert "from outside" in done.stdout
    assert "through the gateway" in done.stdout
    assert micro.node.stop() == 0
    kept = {path.name for path in micro.folder.iterdir()}
    assert kept == {micro.node.out.name, micro.node.err.name}, "only what the test redirected"


def test_a_descriptor_that_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "micro.toml").write_text("mine")
    done = run_zipnet("micro", "--gateway", "127.0.0.1:0", cwd=tmp_path)
    assert done.returncode == 2
    assert "micro.toml exists" in done.stderr
    assert "--descriptor" in done.stderr
    assert (tmp_path / "micro.toml").read_text() == "mine"


def test_a_committee_of_four_is_refused(tmp_path: Path) -> None:
    done = run_zipnet("micro", "--servers", "4", cwd=tmp_path)
    assert done.returncode == 2
    assert "3, 5 or 7" in done.stderr


def test_a_gateway_port_that_is_taken_ends_all_of_it_with_one_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_zipnet("micro", "--gateway", f"127.0.0.1:{port}", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"error: setting GATEWAY: 127.0.0.1:{port} cannot be bound" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing of it is left"

"""Row L5: from inside a running node, what a node never does can no longer be done."""

from __future__ import annotations

import ctypes.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.intruder import ATTEMPTS
from tests.harness.network import LiveNetwork, Node, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        ctypes.util.find_library("seccomp") is None, reason="this system has no libseccomp"
    ),
]
HARMLESS = {"plain socket", "thread"}


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path)
    try:
        yield made
    finally:
        made.close()


def tried(node: Node) -> dict[str, str]:
    node.start()
    node.wait_ready()
    wait_for(lambda: len(node.events("tried")) == len(ATTEMPTS), "every attempt to be made")
    return {str(line["what"]): str(line["outcome"]) for line in node.events("tried")}


@pytest.mark.requirement("L5")
@pytest.mark.parametrize("name", ["s0", "root"])
def test_an_intruder_in_a_running_node_is_told_no(network: LiveNetwork, name: str) -> None:
    node = network.nodes[name]
    node.program = ("tests.harness.intruder",)
    found = tried(node)
    assert {what for what, outcome in found.items() if outcome == "allowed"} == HARMLESS
    assert {found[what] for what in set(found) - HARMLESS} == {"EPERM"}
    assert not node.events("sandbox_incomplete")
    if name == "s0":
        assert json.loads(node.http("/version")[1])["sandbox"] == "seccomp"


@pytest.mark.skipif(os.geteuid() != 0, reason="without root most of it is refused anyway")
def test_without_the_sandbox_the_same_intruder_gets_somewhere(network: LiveNetwork) -> None:
    node = network.nodes["s0"]
    node.program = ("tests.harness.intruder", "--free")
    found = tried(node)
    assert found["execve"] == "allowed"
    assert found["ptrace"] == "ESRCH"
    assert found["kernel module"] != "EPERM" or found["raw socket"] == "allowed"


def test_a_system_without_the_library_is_told_and_the_node_runs(network: LiveNetwork) -> None:
    node = network.nodes["s0"]
    hidden = network.folder / "hidden"
    hidden.mkdir()
    (hidden / "pyseccomp.py").write_text("raise RuntimeError('Unable to find libseccomp')\n")
    node.environment["PYTHONPATH"] = f"{hidden}{os.pathsep}{Path.cwd()}"
    node.start()
    node.wait_ready()
    (line,) = node.events("sandbox_incomplete")
    assert "no libseccomp" in str(line["warning"])
    assert json.loads(node.http("/version")[1])["sandbox"] == "no_new_privs"

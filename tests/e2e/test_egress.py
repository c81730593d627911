"""From inside a running node, nobody connects to what neither descriptor nor settings name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork, clean_environment, wait_for
from tests.harness.smuggler import WAYS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.requirement("L5")
@pytest.mark.requirement("L17")
@pytest.mark.parametrize("name", ["s0", "root"])
def test_a_smuggler_in_a_running_node_gets_nothing_out(network: LiveNetwork, name: str) -> None:
    node = network.nodes[name]
    node.program = ("tests.harness.smuggler",)
    node.start()
    node.wait_ready()
    wait_for(lambda: len(node.events("tried")) == len(WAYS), "every way to be tried")
    found = {str(line["what"]): line["outcome"] for line in node.events("tried")}
    assert found.pop("loopback") == "allowed"
    assert set(found.values()) == {"egress_refused"}, found
    assert json.loads(node.http("/version")[1])["egress"] == "restricted"


LIST = """
import asyncio, socket
from zipnet.errors import EgressError
from zipnet.transport.egress import allow_egress, dialling, egress_in_force, restrict_egress

def way(host):
    # A datagram socket that connects sends nothing.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        try:
            link.connect((host, 9))
        except EgressError:
            return "refused"
        except OSError:
            return "no route"
        return "allowed"

def dial(host, port):
    try:
        with dialling(host, port):
            return way("192.0.2.1")
    except EgressError:
        return "refused"

allow_egress([("b.example", 2)])          # without a list there is nothing to add to
print(egress_in_force(), way("192.0.2.1"), dial("b.example", 2))
restrict_egress([("a.example", 1)])
print(egress_in_force(), way("192.0.2.1"), way("127.0.0.1"))
print(dial("a.example", 1), dial("a.example", 2), dial("b.example", 2), way("192.0.2.1"))
allow_egress([("b.example", 2)])
print(dial("b.example", 2), dial("localhost", 7))
"""


def test_a_list_is_for_good_and_names_are_dialled_by_entry() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIST],
        env=clean_environment({"PYTHONPATH": str(ROOT)}), capture_output=True, text=True,
        check=True, timeout=30,
    )  # fmt: skip
    free, closed, entries, added = (line.split() for line in done.stdout.splitlines())
    reached = free[1]
    assert reached in {"allowed", "no"}
    assert free[0] == "open"
    assert closed == ["restricted", "refused", "allowed"]
    assert entries[-3:] == ["refused", "refused", "refused"]
    assert entries[0] == reached
    assert added[0] == reached
    assert "refused" not in added

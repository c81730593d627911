"""A production node starts only where its posture holds, or where keys name what does not."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.boxed import command
from tests.harness.network import LiveNetwork
from zipnet import Publisher
from zipnet.protocol.ids import format_peer_id
from zipnet.settings import read_descriptor
from zipnet.settings.allowances import ALLOWANCES

if TYPE_CHECKING:
    from collections.abc import Iterator

# Nothing of this suite's network is attested, and it runs as whoever runs the tests.
NEEDED = ("unattested", "shared_fault_domain", "no_sandbox", "privileges", "writable_system",
          "old_build")  # fmt: skip


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path)
    try:
        yield made
    finally:
        made.close()


def production(network: LiveNetwork, *allowed: str) -> dict[str, str]:
    operator = read_descriptor(network.descriptor_file).descriptor.operator
    keys = {f"allow_{what}": ALLOWANCES[f"allow_{what}"].sentence for what in allowed}
    return {
        "ZIPNET_PROFILE": "production",
        "ZIPNET_MIN_PARTICIPANTS": "8",
        "ZIPNET_OPERATOR": format_peer_id(operator.peer_id),
        **{f"ZIPNET_{key.upper()}": sentence for key, sentence in keys.items()},
    }


@pytest.mark.requirement("L13")
@pytest.mark.requirement("H6")
@pytest.mark.requirement("Z20")
def test_production_starts_as_its_posture_holds_and_says_what_was_allowed(
    network: LiveNetwork,
) -> None:
    node = network.nodes["s0"]
    node.environment |= production(network, *NEEDED[1:])
    node.start()
    assert node.process is not None
    assert node.process.wait(30) == 2
    line = node.err.read_text()
    assert "setting DESCRIPTOR: the descriptor's tdx.mode is off" in line
    assert "allow_unattested" in line
    assert not (network.folder / "s0.state").exists(), "nothing is written before the check"

    node.environment |= production(network, *NEEDED)
    node.start()
    node.wait_ready()
    version = json.loads(node.http("/version")[1])
    assert version["posture"] == "non-production"
    assert set(version["allowed"].split(",")) == set(NEEDED)
    read = {str(line["setting"]): str(line["text"]) for line in node.events("secret_read")}
    assert set(read) == {"SECRET", "COMMITTEE_SECRET"}
    assert read["SECRET"].startswith("set (file, 0600) by flag")
    weakened = {str(line["setting"]) for line in node.events("posture_weakened")}
    assert "ALLOW_UNATTESTED" in weakened


@pytest.mark.requirement("Z10")
def test_a_second_production_process_with_the_same_secrets_is_refused(
    network: LiveNetwork,
) -> None:
    for name in ("s0", "s1"):
        network.nodes[name].environment |= production(network, *NEEDED)
    first, second = network.nodes["s0"], network.nodes["s1"]
    first.start()
    first.wait_ready()
    second.start()
    assert second.process is not None
    assert second.process.wait(30) == 2
    assert "COMMITTEE_SECRET: another process of this host" in second.err.read_text()


def boxes() -> bool:
    """Whether this system makes boxes."""
    if shutil.which("bwrap") is None:
        return False
    tried = command(["-c", "pass"], Path.cwd())
    return subprocess.run(tried, capture_output=True, check=False, timeout=30).returncode == 0


@pytest.mark.requirement("Z14")
@pytest.mark.skipif(not boxes(), reason="no bubblewrap here, or it may not (make ops-tools)")
async def test_boxed_production_nodes_need_nothing_allowed_of_the_host_and_carry_rounds(
    network: LiveNetwork,
) -> None:
    """A server and the aggregator on a read-only system, without root and without capabilities."""
    of_the_group = ("unattested", "shared_fault_domain", "few_participants", "old_build")
    for name in ("s0", "root"):
        node = network.nodes[name]
        node.program = ("tests.harness.boxed",)
        node.environment |= production(network, *of_the_group)
    del network.nodes["s0"].environment["ZIPNET_MIN_PARTICIPANTS"]
    network.start()
    for name in ("s0", "root"):
        version = json.loads(network.nodes[name].http("/version")[1])
        assert version["sandbox"] == "seccomp"
        assert version["egress"] == "restricted"
        assert {"privileges", "writable_system"}.isdisjoint(version["allowed"].split(","))
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Publisher(network.descriptor, transport="tls"))
            for _ in range(3)
        ]
        async with asyncio.timeout(60):
            receipt = await clients[0].publish(b"from a box")
    assert receipt.participants == 3

"""A server that is taken out of service leaves no key behind, and what it proved stays."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork, run_zipnet, wait_for
from zipnet.sdk import Publisher
from zipnet.storage.custody import CUSTODY_NAMES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)


@pytest.mark.requirement("Z12")
async def test_a_decommissioned_folder_holds_no_key_and_never_becomes_a_server_again(
    tmp_path: Path,
) -> None:
    network = LiveNetwork(tmp_path)
    node, state = network.nodes["s0"], tmp_path / "s0.state"
    try:
        network.start()
        async with AsyncExitStack() as stack:
            publishers = [
                await stack.enter_async_context(Publisher(network.descriptor, transport="tls"))
                for _ in range(3)
            ]
            await publishers[0].publish(b"before it went", timeout=90)
        refused = run_zipnet("decommission", "--state", state, "--yes", cwd=tmp_path)
        assert refused.returncode != 0
        assert "in use by another process" in refused.stderr
        await asyncio.to_thread(node.stop)
        keys = b"".join((state / name).read_bytes() for name in CUSTODY_NAMES)
        assert keys.strip(b"\0"), "there was something to wipe"

        asked = run_zipnet("decommission", "--state", state, cwd=tmp_path)
        assert asked.returncode == 2
        assert "--yes" in asked.stderr
        done = run_zipnet("decommission", "--state", state, "--yes", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "decommissioned: 2 files wiped\n"
        again = run_zipnet("decommission", "--state", state, "--yes", cwd=tmp_path)
        assert again.stdout == "decommissioned: 0 files wiped\n"
        assert not any((state / name).exists() for name in CUSTODY_NAMES)
        assert run_zipnet("audit", "verify", state / "audit.log", cwd=tmp_path).returncode == 0
        assert network.records("s0"), "its records still verify"

        node.start()
        await asyncio.to_thread(
            wait_for, lambda: node.events("safe_mode_entered"), "the folder to serve readers only"
        )
        assert "decommissioned" in node.http("/readyz")[1]
        assert not any((state / name).exists() for name in CUSTODY_NAMES)
    finally:
        network.close()


def test_a_folder_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    done = run_zipnet("decommission", "--state", tmp_path, "--yes", cwd=tmp_path)
    assert done.returncode == 2
    assert "no server's state folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]

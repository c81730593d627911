"""Live servers whose log three real etcd members carry; skipped where there is no etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.consensus.etcd_members import EtcdMembers, require_etcd
from tests.e2e.test_snapshots import CADENCE, cover, more_records
from tests.harness.network import LiveNetwork, wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[EtcdMembers]:
    made = EtcdMembers(tmp_path, require_etcd())
    try:
        for member in range(3):
            made.start(member)
        await made.ready()
        yield made
    finally:
        made.stop()


def server_environment(members: EtcdMembers, index: int) -> dict[str, str]:
    return {
        "ZIPNET_ETCD": f"127.0.0.1:{members.clients[index]}",
        "ZIPNET_SNAPSHOT_EVERY": "20",
    }


async def test_rounds_are_sealed_and_survive_kills_with_etcd_below(
    members: EtcdMembers, tmp_path: Path
) -> None:
    network = LiveNetwork(tmp_path, cadence=CADENCE)
    for index, node in enumerate(network.server_nodes):
        node.environment = server_environment(members, index)
    s0, s1, s2 = network.server_nodes
    try:
        await asyncio.to_thread(network.start)
        async with cover(network):
            await more_records(network, s0, 4)
            s1.kill()
            members.kill(2)
            members.start(2)
            await members.ready()
            s1.start()
            await more_records(network, s1, 3)
            for node in (s0, s1, s2):
                node.kill()
            for node in (s0, s1, s2):
                node.start()
            await more_records(network, s0, 3)
        # The other engine does not take the folder over.
        s0.stop()
        s0.environment = {}
        s0.start()
        await asyncio.to_thread(wait_for, lambda: not s0.is_running(), "the server to refuse")
        assert "etcd carries" in s0.err.read_text()
    finally:
        await asyncio.to_thread(network.close)
    records = [[record.hash for record in network.records(f"s{i}")] for i in (1, 2)]
    shortest = min(map(len, records))
    assert shortest >= 10
    assert records[0][:shortest] == records[1][:shortest]

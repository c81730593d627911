"""Live servers whose log three real etcd members carry; skipped where there is no etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.consensus.etcd_members import EtcdMembers, require_etcd
from tests.e2e.test_revocation import ISSUER, Guarded
from tests.e2e.test_snapshots import CADENCE, cover, more_records
from tests.harness.network import LiveNetwork, wait_for
from zipnet.access.capability import CapabilityRole
from zipnet.access.minting import issuer_key
from zipnet.protocol.revocation import RevokedKind
from zipnet.protocol.secret import Secret

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


@pytest.mark.requirement("Z26")
async def test_a_revoked_leader_gives_its_lease_up_and_rounds_go_on_without_it(
    members: EtcdMembers, tmp_path: Path
) -> None:
    network = Guarded(tmp_path, cadence=CADENCE, max_absent=1)
    with Secret(bytearray(ISSUER)) as secret:
        key = "issuer1" + issuer_key(secret).hex()
    for index, node in enumerate(network.server_nodes):
        node.environment = {**server_environment(members, index), "ZIPNET_TOKEN_ISSUERS": key}
    for number in (1, 2):
        network.mint(f"op{number}", CapabilityRole.ADMIN_WRITE)
    try:
        await asyncio.to_thread(network.start)
        async with cover(network):
            await more_records(network, network.nodes["s0"], 2)
            leader = await asyncio.to_thread(network.leader)
            assert leader is not None
            index = network.server_nodes.index(leader)
            other = next(node for node in network.server_nodes if node is not leader)
            peer = network.descriptor.committee[index].peer_id
            await asyncio.to_thread(network.revoke, other.name, RevokedKind.PEER, peer)
            await more_records(network, other, 3)
        assert leader.events("server_revoked")
        network.close()
        assert index not in network.records(other.name)[-1].record.content.header.roster
    finally:
        network.close()

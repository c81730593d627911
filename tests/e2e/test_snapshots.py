"""Live servers replace their log by snapshots, and come back from them without losing a record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.network import LiveNetwork, Node, wait_for
from zipnet.protocol.params import Cadence
from zipnet.sdk import Publisher

pytestmark = pytest.mark.timeout(300)
CADENCE = Cadence(round_period_ms=200, fold_deadline_ms=1500, round_deadline_ms=5000)
EVERY = "20"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(
        tmp_path, cadence=CADENCE, platform={"server": {"ZIPNET_SNAPSHOT_EVERY": EVERY}}
    )
    try:
        made.start()
        yield made
    finally:
        made.close()


@asynccontextmanager
async def cover(network: LiveNetwork) -> AsyncIterator[None]:
    """Three publishers that take part in every round."""
    async with AsyncExitStack() as stack:
        made = [Publisher(network.descriptor, transport="tls") for _ in range(3)]
        for publisher in made:
            await stack.enter_async_context(publisher)
        for publisher in made:
            await publisher.when.registered()
        yield


def log_bytes(node: Node) -> int:
    folder = node.folder / f"{node.name}.state"
    return sum(path.stat().st_size for path in folder.glob("consensus.*.journal"))


async def more_records(network: LiveNetwork, witness: Node, count: int) -> None:
    due = len(network.records(witness.name)) + count
    await asyncio.to_thread(
        wait_for, lambda: len(network.records(witness.name)) >= due, f"{count} more records"
    )


@pytest.mark.requirement("A12")
async def test_servers_come_back_from_snapshots_and_the_log_stays_short(
    network: LiveNetwork,
) -> None:
    s0, s1, s2 = network.server_nodes
    async with cover(network):
        await more_records(network, s0, 8)
        for node in (s0, s1, s2):
            found = {path.name for path in (node.folder / f"{node.name}.state").iterdir()}
            assert {"consensus.a.snapshot", "consensus.b.snapshot"} <= found
        # One that restarts, one whose newest snapshot is damaged, and all at once.
        s1.kill()
        s1.start()
        await more_records(network, s1, 4)
        s2.kill()
        newest = max(
            (s2.folder / "s2.state").glob("consensus.*.snapshot"),
            key=lambda path: path.read_bytes()[42:50],
        )
        data = bytearray(newest.read_bytes())
        data[-40] ^= 1
        newest.write_bytes(data)
        s2.start()
        await more_records(network, s2, 4)
        for node in (s0, s1, s2):
            node.kill()
        for node in (s0, s1, s2):
            node.start()
        await more_records(network, s0, 8)
    assert max(log_bytes(node) for node in (s0, s1, s2)) < 200_000
    records = [[record.hash for record in network.records(f"s{i}")] for i in range(3)]
    shortest = min(map(len, records))
    assert shortest >= 24
    assert records[0][:shortest] == records[1][:shortest] == records[2][:shortest]

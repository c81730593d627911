"""Row A13: a network moves to the next release one process at a time, under load."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork, Node, wait_for
from zipnet.sdk import Publisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


def become(node: Node, versions: str) -> float:
    """Stop a node in an orderly way and start it as another release; returns the time it took."""
    began = time.monotonic()
    assert node.stop() == 0
    node.program = ("tests.harness.next_version", versions)
    node.start()
    node.wait_ready()
    wait_for(lambda: node.http("/readyz")[0] == 200, f"{node.name} to be ready as {versions}")
    return time.monotonic() - began


@pytest.mark.requirement("A13")
async def test_nodes_are_upgraded_and_rolled_back_one_at_a_time_and_nothing_is_lost(
    network: LiveNetwork,
) -> None:
    receipts: list[tuple[int, int]] = []

    async def keep_publishing(publisher: Publisher, label: str, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            receipt = await publisher.publish(f"{label} {number}".encode(), timeout=120)
            receipts.extend((p.sequence, p.slot) for p in receipt.placements)

    async with AsyncExitStack() as stack:
        publishers = [
            await stack.enter_async_context(Publisher(network.descriptor, transport="tls"))
            for _ in range(3)
        ]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number, publisher in enumerate(publishers):
                group.create_task(keep_publishing(publisher, f"p{number}", stop))
            for name in ("s0", "root", "s1", "s2"):
                took = await asyncio.to_thread(become, network.nodes[name], "2,1")
                print(f"{name} upgraded in {took:.2f} s")
            await asyncio.to_thread(become, network.nodes["s0"], "1")
            await publishers[0].publish(b"all of it and one rolled back", timeout=120)
            stop.set()
    network.close()
    records = max((network.records(f"s{i}") for i in range(3)), key=len)
    lost = [at for at in receipts if at[1] not in records[at[0]].fragments]
    print(f"acknowledged={len(receipts)} recovered={len(receipts) - len(lost)}")
    assert receipts
    assert not lost


@pytest.mark.requirement("A13")
def test_a_release_without_a_common_version_is_refused_by_name(network: LiveNetwork) -> None:
    node, other = network.nodes["s0"], network.nodes["s1"]
    node.stop()
    node.program = ("tests.harness.next_version", "2")
    node.start()

    def refusals() -> float:
        _, text = other.http("/metrics")
        lines = [x for x in text.splitlines() if x.startswith("zipnet_rejected_total{")]
        return sum(float(x.rsplit(" ", 1)[1]) for x in lines if 'reason="version"' in x)

    wait_for(lambda: refusals() > 0, "a refusal by version")
    wait_for(
        lambda: any(line["reason"] == "version" for line in node.events("link_refused")),
        "the newer release to say why it has no link",
    )

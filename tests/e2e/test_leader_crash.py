"""SIGKILL of the leading server in the middle of a round: nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.harness.network import LiveNetwork, Node, wait_for
from zipnet.sdk import Publisher

pytestmark = pytest.mark.timeout(300)
CRASHES = 3


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


def leader_of(network: LiveNetwork) -> Node:
    found: list[Node] = []

    def look() -> bool:
        leader = network.leader()
        if leader is not None:
            found.append(leader)
        return bool(found)

    wait_for(look, "a leader")
    return found[-1]


def crash_in_mid_round(node: Node) -> float:
    """Kill a server right after it opened a round; returns when."""
    before = node.metric("zipnet_rounds_opened_total")
    wait_for(lambda: node.metric("zipnet_rounds_opened_total") > before, "a round to open")
    node.kill()
    return time.monotonic()


def wait_for_rounds(node: Node) -> None:
    before = node.metric("zipnet_rounds_finalized_total")
    wait_for(
        lambda: node.metric("zipnet_rounds_finalized_total") > before + 1,
        f"{node.name} to finalise rounds again",
    )


def require_sound(network: LiveNetwork, names: list[str]) -> None:
    logs = [network.records(name) for name in names]
    longest = max(logs, key=len)
    for log in logs:
        hashes = [record.hash for record in log]
        assert hashes == [record.hash for record in longest[: len(log)]], "records fork"
    for name in names:
        per_round = Counter(int(released.round) for released in network.releases(name))
        assert not [r for r, count in per_round.items() if count > 1], "two partials in a round"


@pytest.mark.requirement("D3")
async def test_rounds_go_on_after_the_leader_is_killed_in_mid_round(network: LiveNetwork) -> None:
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
        for publisher in publishers:
            await publisher.when.registered()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number, publisher in enumerate(publishers):
                group.create_task(keep_publishing(publisher, f"p{number}", stop))
            for _ in range(CRASHES):
                victim = await asyncio.to_thread(leader_of, network)
                killed_at = await asyncio.to_thread(crash_in_mid_round, victim)
                victim.start()
                await asyncio.to_thread(victim.wait_ready)
                await asyncio.to_thread(wait_for_rounds, victim)
                print(f"finalising again {time.monotonic() - killed_at:.2f} s after SIGKILL")
            stop.set()
    network.close()
    require_sound(network, ["s0", "s1", "s2"])
    records = max((network.records(f"s{i}") for i in range(3)), key=len)
    acknowledged = len(receipts)
    recovered = sum(1 for sequence, slot in receipts if slot in records[sequence].fragments)
    print(f"acknowledged={acknowledged} recovered={recovered} records={len(records)}")
    assert acknowledged
    assert acknowledged == recovered

"""A committee server goes away for good: the others go on where they may, and it comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.harness.long_runs import long_fault
from tests.harness.network import LiveNetwork, Node, wait_for
from zipnet.protocol.params import Cadence
from zipnet.sdk import Publisher

pytestmark = pytest.mark.timeout(300)
CADENCE = Cadence(round_period_ms=500, fold_deadline_ms=1500, round_deadline_ms=5000)
BOUND_S = 2 * (CADENCE.round_deadline_ms + CADENCE.round_period_ms) / 1000


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


@pytest.fixture
def five(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path, servers=5, max_absent=1, cadence=CADENCE)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path, cadence=CADENCE)
    try:
        made.start()
        yield made
    finally:
        made.close()


def last_roster(network: LiveNetwork, name: str) -> list[int]:
    records = network.records(name)
    return [int(i) for i in records[-1].record.content.header.roster] if records else []


def is_ready(node: Node) -> bool:
    return node.http("/readyz")[0] == 200


def waits_for(node: Node, reason: str) -> bool:
    return reason in node.http("/readyz")[1]


def wait_for_roster(network: LiveNetwork, name: str, size: int) -> None:
    wait_for(lambda: len(last_roster(network, name)) == size, f"a record by {size} servers")


def another_record_s(network: LiveNetwork, witness: Node) -> float:
    before, began = len(network.records(witness.name)), time.monotonic()
    wait_for(lambda: len(network.records(witness.name)) > before, "the next record")
    return time.monotonic() - began


@pytest.mark.requirement("A12")
async def test_rounds_go_on_without_a_server_that_is_gone_and_it_returns(
    five: LiveNetwork,
) -> None:
    async with cover(five):
        await asyncio.to_thread(wait_for_roster, five, "s0", 5)
        leader = await asyncio.to_thread(five.leader)
        follower = next(n for n in five.server_nodes if n is not leader)
        for victim in (follower, leader):
            assert victim is not None
            witness = next(n for n in five.server_nodes if n is not victim)
            victim.kill()
            took = await asyncio.to_thread(another_record_s, five, witness)
            print(f"next record {took:.2f} s after SIGKILL of {victim.name}; bound {BOUND_S:g} s")
            assert took < BOUND_S
            await asyncio.to_thread(wait_for_roster, five, witness.name, 4)
            assert int(victim.name[1:]) not in last_roster(five, witness.name)
            ready = [n for n in five.server_nodes if n is not victim]
            for node in ready:
                await asyncio.to_thread(wait_for, partial(is_ready, node), "readiness")
            began = time.monotonic()
            victim.start()
            await asyncio.to_thread(wait_for_roster, five, witness.name, 5)
            print(f"a roster of five again {time.monotonic() - began:.2f} s after its start")


@long_fault
async def test_where_nobody_may_be_absent_rounds_wait_and_every_server_says_for_whom(
    three: LiveNetwork,
) -> None:
    victim, others = three.nodes["s2"], [three.nodes["s0"], three.nodes["s1"]]
    async with cover(three):
        await asyncio.to_thread(wait_for_roster, three, "s0", 3)
        victim.kill()
        for node in others:
            await asyncio.to_thread(
                wait_for,
                partial(waits_for, node, "waiting_for_server_2"),
                f"{node.name} to say for whom it waits",
            )
            assert node.http("/readyz")[0] == 503
            assert node.events("rounds_stalled")[-1]["absent"] == [2]
        count = len(three.records("s0"))
        victim.start()
        await asyncio.to_thread(
            wait_for, lambda: len(three.records("s0")) > count + 1, "rounds to go on"
        )
        for node in others:
            await asyncio.to_thread(wait_for, partial(is_ready, node), "readiness")
            assert node.events("rounds_resumed")

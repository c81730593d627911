"""Clients outlive their aggregators, and come back after rounds they did not see."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.harness.long_runs import long_fault
from tests.harness.network import LiveNetwork, wait_for
from zipnet.protocol.params import Cadence
from zipnet.sdk import Publisher

pytestmark = pytest.mark.timeout(300)
CADENCE = Cadence(round_period_ms=300, fold_deadline_ms=1000, round_deadline_ms=4000)
TREE: dict[str, str | None] = {"root": None, "spare": None, "leaf-a": "root", "leaf-b": "root"}


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path, tree=dict(TREE), cadence=CADENCE)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path, cadence=CADENCE)
    try:
        made.start()
        yield made
    finally:
        made.close()


@long_fault
async def test_clients_find_another_way_when_a_leaf_and_then_the_root_are_killed(
    network: LiveNetwork,
) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Publisher(network.descriptor, transport="tls"))
            for _ in range(5)
        ]
        for client in clients:
            await client.when.registered()
        await clients[0].publish(b"by a leaf", timeout=90)
        for victim in ("leaf-a", "root"):
            network.nodes[victim].kill()
            began = time.monotonic()
            # Each of them gets through, whichever aggregator it had.
            await asyncio.gather(
                *(c.publish(f"{victim} {i}".encode(), timeout=120) for i, c in enumerate(clients))
            )
            print(f"all through {time.monotonic() - began:.2f} s after SIGKILL of {victim}")


@long_fault
async def test_a_client_that_slept_skips_ahead_and_takes_part_again(plain: LiveNetwork) -> None:
    sleeper = plain.spawn(
        *("sleeper", "publish", "--descriptor", "d.toml", "--transport", "tls", "--cover")
    )
    server = plain.nodes["s0"]

    def participants() -> float:
        return server.metric("zipnet_round_participants")

    async with AsyncExitStack() as stack:
        for _ in range(3):
            client = await stack.enter_async_context(Publisher(plain.descriptor, transport="tls"))
            await client.when.registered()
        await asyncio.to_thread(wait_for, lambda: participants() == 4, "four participants")
        os.kill(sleeper.pid, signal.SIGSTOP)
        await asyncio.to_thread(wait_for, lambda: participants() == 3, "a round without it")
        missed = server.metric("zipnet_rounds_finalized_total")
        await asyncio.to_thread(
            wait_for,
            lambda: server.metric("zipnet_rounds_finalized_total") > missed + 3,
            "rounds it does not see",
        )
        size = server.metric("zipnet_client_registry_size")
        os.kill(sleeper.pid, signal.SIGCONT)
        await asyncio.to_thread(wait_for, lambda: participants() == 4, "it to take part again")
        assert server.metric("zipnet_client_registry_size") == size == 4

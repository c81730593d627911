"""Two hundred messages from ten publishers while nodes are killed: each is told exactly once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import zipnet
from tests.harness.network import LiveNetwork, Node

pytestmark = pytest.mark.timeout(300)
PUBLISHERS = 10
MESSAGES = 200
TREE: dict[str, str | None] = {"root": None, "leaf-a": "root", "leaf-b": "root"}


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path, tree=TREE)
    try:
        made.start()
        yield made
    finally:
        made.close()


async def restart(node: Node) -> None:
    """SIGKILL, then start again from what is on disk."""
    await asyncio.to_thread(node.kill)
    node.start()
    await asyncio.to_thread(node.wait_ready)


async def leader(network: LiveNetwork) -> Node:
    while (found := await asyncio.to_thread(network.leader)) is None:  # noqa: ASYNC110 - it is asked
        await asyncio.sleep(0.05)
    return found


async def publish_all(
    publishers: list[zipnet.Publisher], texts: list[bytes], done: Callable[[], None]
) -> list[zipnet.Receipt]:
    """Publish every text by some publisher, all of a publisher's at once."""

    async def one(number: int, text: bytes) -> zipnet.Receipt:
        receipt = await publishers[number % len(publishers)].publish(text, timeout=200)
        done()
        return receipt

    return list(await asyncio.gather(*(one(n, text) for n, text in enumerate(texts))))


async def crash_nodes(network: LiveNetwork, receipts: Counter[str], moved: asyncio.Event) -> None:
    """Kill and restart the leader, an aggregator, and another server, as receipts come in."""

    async def until(count: int) -> None:
        while receipts["got"] < count:
            moved.clear()
            await moved.wait()

    await until(MESSAGES // 8)
    await restart(await leader(network))
    await until(MESSAGES // 4)
    await restart(network.nodes["root"])
    await until(MESSAGES // 2)
    chief = await leader(network)
    await restart(next(node for node in network.server_nodes if node is not chief))


@pytest.mark.requirement("A12")
async def test_every_message_has_a_receipt_and_is_read_exactly_once(network: LiveNetwork) -> None:
    texts = [b"message %03d " % n + b"x" * (n * 7 % 400) for n in range(MESSAGES)]
    receipts: Counter[str] = Counter()
    moved = asyncio.Event()

    def done() -> None:
        receipts["got"] += 1
        moved.set()

    began = time.monotonic()
    async with AsyncExitStack() as stack:
        publishers = [
            await stack.enter_async_context(zipnet.Publisher(network.descriptor, transport="tls"))
            for _ in range(PUBLISHERS)
        ]
        async with asyncio.TaskGroup() as group:
            group.create_task(crash_nodes(network, receipts, moved))
            sending = group.create_task(publish_all(publishers, texts, done))
    got = sending.result()
    took_s = time.monotonic() - began
    read: dict[bytes, list[zipnet.Message]] = {}
    async with zipnet.Reader(network.descriptor, transport="tls", follow=False) as reader:
        async for message in reader:
            read.setdefault(message.payload, []).append(message)
    print(f"receipts={len(got)} read={len(read)} records={max(r.sequence for r in got) + 1}")
    print(f"took {took_s:.1f} s with two servers and the root aggregator killed")
    assert len({receipt.message_id for receipt in got}) == MESSAGES
    assert sorted(read) == sorted(texts)
    assert {len(found) for found in read.values()} == {1}
    for receipt, text in zip(got, texts, strict=True):
        (message,) = read[text]
        assert (message.message_id, message.round) == (receipt.message_id, receipt.round)
        proved = zipnet.verify_proof(receipt.proof, receipt.message_id, network.descriptor)
        assert proved == text

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from tests.harness.fake_network import FakeNetwork
from zipnet.sdk import Message, Publisher, Reader

TRANSPORTS: list[Literal["tls", "quic"]] = ["tls", "quic"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.requirement("D2")
async def test_published_messages_come_back_verified_with_receipts(
    transport: Literal["tls", "quic"],
) -> None:
    async with FakeNetwork(transport) as network:
        descriptor = network.committee.descriptor
        async with (
            Publisher(descriptor, transport=transport) as one,
            Publisher(descriptor, transport=transport) as two,
            Publisher(descriptor, transport=transport) as three,
        ):
            for publisher in (one, two, three):
                await publisher.when.registered()
            network.keep_running(3)
            short, long = b"hello", b"a message that takes more than one slot " * 12
            receipts = await asyncio.gather(one.publish(short), two.publish(long))
        async with Reader(descriptor, transport=transport, follow=False) as reader:
            read = {m.message_id: m async for m in reader}
        for receipt, payload in zip(receipts, (short, long), strict=True):
            message: Message = read[receipt.message_id]
            assert message.payload == payload
            assert (message.round, message.sequence) == (receipt.round, receipt.sequence)
            assert message.slots == receipt.slots
            assert receipt.participants >= 2

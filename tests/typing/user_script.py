"""A user's program. It is never run: ``mypy --strict`` has to be content with it as it stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import zipnet


@dataclass
class Vote:
    """What this application says."""

    ballot: str
    choice: str


def warn(text: str) -> None:
    """Show a warning of the SDK."""
    print(text)


async def publish(path: str) -> zipnet.Receipt | None:
    """Publish with everything switched on."""
    descriptor = zipnet.load_descriptor(path, operator="zp1" + "0" * 64)
    trust = zipnet.TrustPolicy(operators=frozenset({"alice", "bob"}), max_record_age_s=600)
    async with zipnet.Publisher(
        descriptor,
        transport="tls",
        proxy="socks5://127.0.0.1:9050",
        cover=zipnet.window(lasting_s=3600),
        min_anonymity_set=20,
        trust=trust,
        linger_rounds=3,
        on_warning=warn,
    ) as publisher:
        await publisher.when.registered()
        try:
            receipt = await publisher.publish(b"hello", on_progress=lambda p: print(p.stage))
        except zipnet.Unknown as error:
            receipt = await publisher.publish(error.message, salt=error.salt)
        except (zipnet.NotSent, zipnet.Refused) as error:
            print(error.message_line)
            return None
    message: bytes = zipnet.verify_proof(receipt.proof, receipt.message_id, descriptor)
    print(message, receipt.round, receipt.slots, receipt.participants, receipt.record_hashes[-1])
    return receipt


async def votes(path: str, bookmark: str | None) -> AsyncIterator[Vote]:
    """Read one channel from where an earlier run left off."""
    channel: zipnet.Channel[Vote] = zipnet.Channel.json("acme.votes", Vote, width=128)
    resume = None if bookmark is None else zipnet.Bookmark.from_text(bookmark)
    async with zipnet.Reader(zipnet.load_descriptor(path), resume=resume) as reader:
        async for received in channel.read(reader):
            value: Vote = received.value
            yield value
        if reader.bookmark is not None:
            print(reader.bookmark.to_text())


def without_a_loop(path: str) -> list[bytes]:
    """Do the same from a program that is not asynchronous."""
    descriptor = zipnet.load_descriptor(path)
    with zipnet.sync.Publisher(descriptor, cover=zipnet.always()) as publisher:
        round_number: int = publisher.publish(b"hello").round
    with zipnet.sync.Reader(descriptor, follow=False) as reader:
        return [message.payload for message in reader if message.round >= round_number]


if __name__ == "__main__":
    asyncio.run(publish("d.toml"))

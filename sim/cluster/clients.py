"""A process of publishers: ``python -m sim.cluster.clients DESCRIPTOR < plan``.

The first line of standard input is a JSON object: ``transport``, ``interval_s`` between two
messages, by client's name the messages it has, and who comes and goes. Each client registers and
takes part in rounds; it says ``ready`` once all have. After the line ``talk`` every message is
published, each receipt is told as a line, and those that come and go begin to.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zipnet
from zipnet.errors import PublishError
from zipnet.protocol.identity import Identity
from zipnet.protocol.secret import Secret
from zipnet.settings import load_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.settings import ClientSettings

_TIMEOUT_S = 300.0
_DRAWN = random.Random()


def _tell(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def _say(name: str, publisher: zipnet.Publisher, text: str) -> None:
    queued = time.time()
    _tell(event="queued", client=name, at=queued)
    try:
        receipt = await publisher.publish(text.encode(), timeout=_TIMEOUT_S)
    except PublishError as error:
        _tell(event="failed", client=name, at=time.time(), reason=error.reason)
    else:
        _tell(
            event="receipt",
            client=name,
            at=time.time(),
            queued=queued,
            round=int(receipt.round),
            sequence=receipt.sequence,
            bytes=len(text.encode()),
        )


class _Client:
    """One client: a publisher now, perhaps none for a while, then another.

    Args:
        name: What it is called.
        enter: Starts a publisher under an identity.
    """

    def __init__(self, name: str, enter: Callable[[Identity], zipnet.Publisher]) -> None:
        self.name = name
        self._enter = enter
        self._identity = _fresh_identity()
        self.publisher = enter(self._identity)

    async def come_and_go(self, churn: dict[str, float]) -> None:
        """Leave and come back for ever; some returns are with a new identity.

        A publisher registers anew at every start: without a new identity it is the old client.
        """
        while True:
            await asyncio.sleep(_DRAWN.expovariate(1 / churn["up_s"]))
            _tell(event="left", client=self.name)
            await self.publisher.close()
            await asyncio.sleep(_DRAWN.expovariate(1 / churn["down_s"]))
            if _DRAWN.random() < churn["rejoin"]:
                self._identity.close()
                self._identity = _fresh_identity()
            self.publisher = self._enter(self._identity)
            await self.publisher.__aenter__()
            _tell(event="returned", client=self.name)

    async def close(self) -> None:
        """Leave for good."""
        await self.publisher.close()
        self._identity.close()


async def _talk(client: _Client, words: list[str], mean_pause_s: float) -> None:
    async with asyncio.TaskGroup() as group:
        for text in words:
            group.create_task(_say(client.name, client.publisher, text))
            if mean_pause_s:
                await asyncio.sleep(_DRAWN.expovariate(1 / mean_pause_s))


def _fresh_identity() -> Identity:
    with Secret.random(secrets.token_bytes) as secret:
        return Identity.from_secret(secret)


async def _run(settings: ClientSettings, plan: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)

    def enter(identity: Identity) -> zipnet.Publisher:
        return zipnet.Publisher(
            settings.descriptor,
            identity=identity,
            transport=plan["transport"],
            platform=settings.platform,
            linger_rounds=0,
            on_warning=lambda _text: None,
        )

    async with AsyncExitStack() as stack:
        clients = [_Client(name, enter) for name in plan["clients"]]
        for client in clients:
            stack.push_async_callback(client.close)
            await client.publisher.__aenter__()
        for client in clients:
            await client.publisher.when.registered()
        _tell(event="ready", clients=len(clients))
        if await stdin.readline() != b"talk\n":
            return
        async with asyncio.TaskGroup() as group:
            moving = [
                group.create_task(client.come_and_go(plan["churn"]))
                for client in clients
                if client.name in plan["moving"]
            ]
            for client in clients:
                words = plan["clients"][client.name]
                group.create_task(_talk(client, words, plan["interval_s"]))
            await stdin.read()
            for task in moving:
                task.cancel()


def main() -> None:
    """Read the plan and run until standard input ends."""
    plan = json.loads(sys.stdin.readline())
    settings = load_client({"descriptor": Path(sys.argv[1])}, os.environ)
    asyncio.run(_run(settings, plan))


if __name__ == "__main__":
    main()

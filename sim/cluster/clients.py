"""A process of publishers: ``python -m sim.cluster.clients DESCRIPTOR < plan``.

The first line of standard input is a JSON object: ``transport``, ``interval_s`` between two
messages, and by client's name the messages it has. Each client registers and takes part in rounds;
it says ``ready`` once all have. After the line ``talk`` every message is published, and each
receipt is told as a line.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zipnet
from zipnet.errors import PublishError
from zipnet.settings import load_client

if TYPE_CHECKING:
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


async def _pause(mean_s: float) -> None:
    if mean_s:
        await asyncio.sleep(_DRAWN.expovariate(1 / mean_s))


async def _run(settings: ClientSettings, plan: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(
                zipnet.Publisher(
                    settings.descriptor,
                    transport=plan["transport"],
                    platform=settings.platform,
                    linger_rounds=0,
                    on_warning=lambda _text: None,
                )
            )
            for name in plan["clients"]
        }
        for client in clients.values():
            await client.when.registered()
        _tell(event="ready", clients=len(clients))
        if await stdin.readline() != b"talk\n":
            return
        async with asyncio.TaskGroup() as group:
            for name, client in clients.items():
                for text in plan["clients"][name]:
                    group.create_task(_say(name, client, text))
                    await _pause(plan["interval_s"])
        await stdin.read()


def main() -> None:
    """Read the plan and run until standard input ends."""
    plan = json.loads(sys.stdin.readline())
    settings = load_client({"descriptor": Path(sys.argv[1])}, os.environ)
    asyncio.run(_run(settings, plan))


if __name__ == "__main__":
    main()

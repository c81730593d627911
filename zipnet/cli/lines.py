"""Text in and out for the client verbs: lines of standard input, and strangers' words made safe."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING

from zipnet.cli import output

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["printable", "stdin_lines", "stranger_json"]

_CHUNK_BYTES = 64 * 1024
_QUEUED_LINES = 16


async def stdin_lines(limit: int) -> AsyncIterator[bytes]:
    """Yield the lines of standard input as they come, without their line ends.

    A line over ``limit`` bytes is yielded cut to ``limit + 1`` bytes, so that it can be refused as
    too long without being kept. The reading thread waits in a system call that nobody can cut
    short, so it is a daemon, and holds no lock the interpreter needs at exit.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED_LINES)

    def put(line: bytes | None) -> None:
        asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()

    def read() -> None:
        with contextlib.suppress(RuntimeError, asyncio.CancelledError):  # the loop was closed
            rest = b""
            while chunk := os.read(0, _CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    put(line.removesuffix(b"\r")[: limit + 1])
                rest = rest[: limit + 2]
            if rest:
                put(rest.removesuffix(b"\r")[: limit + 1])
            put(None)

    threading.Thread(target=read, name="zipnet-stdin", daemon=True).start()
    while (line := await queue.get()) is not None:
        yield line


def printable(text: str) -> str:
    """Return a stranger's words with everything that could steer a terminal written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def stranger_json(value: Mapping[str, object]) -> None:
    """Write one JSON object that holds a stranger's words as one line of data."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if text.isprintable():
        output.data(text)
    else:
        output.data(json.dumps(value, separators=(",", ":")))

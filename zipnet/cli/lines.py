"""Text in and out for the client verbs: lines of standard input, and strangers' words made safe."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from zipnet.cli import output
from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from zipnet.errors import ZipnetError

__all__ = ["Notes", "printable", "stdin_lines", "stranger_json", "time_of"]

_CHUNK_BYTES = 64 * 1024
_QUEUED_LINES = 16
_REPEAT_S = 60.0
_REMEMBERED = 256


class Notes:
    """Words for a person about what is being dealt with: the same thing once a minute at most.

    Args:
        quiet: Whether to say nothing at all.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._told: dict[str, float] = {}

    def trouble(self, error: ZipnetError) -> None:
        """Tell about an error that is being dealt with."""
        self._once_in_a_while(f"note: {error}")

    def warning(self, text: str) -> None:
        """Tell about an act that weakens anonymity."""
        self._once_in_a_while(f"warning: {text}")

    def _once_in_a_while(self, text: str) -> None:
        now = time.monotonic()
        if now - self._told.get(text, float("-inf")) < _REPEAT_S:
            return
        self._told.pop(text, None)
        self._told[text] = now
        if len(self._told) > _REMEMBERED:
            del self._told[next(iter(self._told))]
        self.tell(text)

    def tell(self, text: str) -> None:
        """Tell something, unless asked not to."""
        if not self._quiet:
            output.note(text)


async def stdin_lines(limit: int, *, until: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield the lines of standard input as they come, without their line ends, until an event.

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
    stopped = asyncio.create_task(until.wait())
    try:
        while (line := await _next(queue, stopped)) is not None:
            yield line
    finally:
        stopped.cancel()


async def _next(queue: asyncio.Queue[bytes | None], stopped: asyncio.Task[bool]) -> bytes | None:
    getting = asyncio.create_task(queue.get())
    try:
        await asyncio.wait({getting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return getting.result() if getting.done() else None
    finally:
        getting.cancel()


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


def time_of(text: str | None) -> datetime | None:
    """Read the value of ``--at``; UTC where it names no zone, None where it was not given.

    Raises:
        ConfigError: When it is no time.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("--at is no time", hint="write it as 2026-01-31T12:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)

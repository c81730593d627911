"""A TCP relay of 127.0.0.1 that can be slow, silent, cut or gone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Relay"]

_CHUNK = 65_536


class Relay:
    """Passes connections on to one port.

    Attributes:
        delay_s: Seconds every chunk is held back.
        flowing: Cleared, links stay open and nothing passes: a half-open network.
        reachable: Off, new links are closed at once.
        rate: Bytes a second that pass each way on each link; None is as fast as they come.
        inward: Bytes passed to the node so far.
        outward: Bytes passed back so far.
    """

    def __init__(self, port: int, to: int) -> None:
        self.port, self.to = port, to
        self.delay_s = 0.0
        self.rate: float | None = None
        self.inward = self.outward = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.reachable = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; a port of 0 is replaced by the one that was given."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """End every link without a farewell."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def heal(self) -> None:
        """Pass everything on again, at once."""
        self.delay_s, self.rate, self.reachable = 0.0, None, True
        self.flowing.set()

    async def close(self) -> None:
        """Stop listening and end every link."""
        if self._server is not None:
            self._server.close()
        self.cut()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.reachable:
            writer.transport.abort()
            return
        ends = {writer}
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
            ends.add(far_writer)
            self._writers.add(far_writer)
            await asyncio.gather(
                self._pump(reader, far_writer, self._count_inward),
                self._pump(far_reader, writer, self._count_outward),
            )
        except OSError:
            pass  # the node is down, as it may be
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    def _count_inward(self, size: int) -> None:
        self.inward += size

    def _count_outward(self, size: int) -> None:
        self.outward += size

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: Callable[[int], None],
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                count(len(data))
                await asyncio.sleep(self.delay_s + (len(data) / self.rate if self.rate else 0.0))
                await self.flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

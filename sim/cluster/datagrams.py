"""A UDP relay of 127.0.0.1 that loses, delays, or drops everything."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

__all__ = ["DatagramRelay"]

# A client's links come and go, each from a port of its own, and UDP does not say which are over.
_MAX_PEERS = 1024


class _Far(asyncio.DatagramProtocol):
    """What comes back from the node for one peer."""

    def __init__(self, relay: DatagramRelay, peer: tuple[str, int]) -> None:
        self._relay, self._peer = relay, peer

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - asyncio's own
        self._relay.back(data, self._peer)

    def error_received(self, exc: Exception) -> None:
        """The node is down, as it may be."""


class DatagramRelay(asyncio.DatagramProtocol):
    """Passes datagrams on to one port, and answers back.

    Args:
        port: Port it listens on.
        to: Port of the node.
        draw: Decides which datagrams are lost.

    Attributes:
        delay_s: Seconds every datagram is held back.
        loss: Share of datagrams that are lost.
        passing: Off, all are lost.
        inward: Bytes passed to the node so far.
        outward: Bytes passed back so far.
    """

    def __init__(self, port: int, to: int, draw: random.Random) -> None:
        self.port, self.to = port, to
        self.delay_s, self.loss, self.passing = 0.0, 0.0, True
        self.inward = self.outward = 0
        self._draw = draw
        self._near: asyncio.DatagramTransport | None = None
        self._far: dict[tuple[str, int], asyncio.DatagramTransport] = {}
        self._opening: set[tuple[str, int]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._near, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", self.port)
        )

    def heal(self) -> None:
        """Pass everything on again, at once."""
        self.delay_s, self.loss, self.passing = 0.0, 0.0, True

    async def close(self) -> None:
        """Stop."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for transport in (self._near, *self._far.values()):
            if transport is not None:
                transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Pass one on to the node."""
        self.inward += len(data)
        far = self._far.pop(addr, None)
        if far is not None:
            self._far[addr] = far  # the newest last: the first is the one longest silent
            self._later(lambda: far.sendto(data))
        elif addr not in self._opening:
            if len(self._far) >= _MAX_PEERS:
                self._far.pop(next(iter(self._far))).close()
            self._opening.add(addr)
            task = asyncio.create_task(self._open(addr, data))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def back(self, data: bytes, peer: tuple[str, int]) -> None:
        """Pass one back to a peer."""
        self.outward += len(data)
        near = self._near
        if near is not None:
            self._later(lambda: near.sendto(data, peer))

    async def _open(self, peer: tuple[str, int], first: bytes) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Far(self, peer), remote_addr=("127.0.0.1", self.to)
            )
            self._far[peer] = transport
            self._later(lambda: transport.sendto(first))
        self._opening.discard(peer)

    def _later(self, send: object) -> None:
        assert callable(send)
        if not self.passing or self._draw.random() < self.loss:
            return
        if self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, send)
        else:
            send()

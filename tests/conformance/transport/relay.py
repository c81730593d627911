"""A relay between two ends, over TCP or UDP, that can go silent as a dead machine does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from tests.conformance.transport.engines import LOOPBACK


class Relay:
    """Passes bytes on until :meth:`freeze`; then swallows them and closes nothing."""

    def __init__(self) -> None:
        self.port = 0
        self.frozen = False
        self.passed = 0

    def freeze(self) -> None:
        self.frozen = True

    async def pump(self, source: socket.socket, target: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, 65536):
            if not self.frozen:
                self.passed += len(data)
                await loop.sock_sendall(target, data)


def _socket(kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.setblocking(False)
    return made


@contextlib.asynccontextmanager
async def relaying(engine_name: str, target_port: int) -> AsyncIterator[Relay]:
    """A relay in front of ``target_port`` for one connection of the named engine."""
    relay = Relay()
    run = _relay_tcp if engine_name == "tls" else _relay_udp
    kind = socket.SOCK_STREAM if engine_name == "tls" else socket.SOCK_DGRAM
    front = _socket(kind)
    front.bind((LOOPBACK, 0))
    relay.port = front.getsockname()[1]
    if engine_name == "tls":
        front.listen(1)
    back = _socket(kind)
    task = asyncio.create_task(run(relay, front, back, target_port))
    try:
        yield relay
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await task
        front.close()
        back.close()


async def _relay_tcp(
    relay: Relay, front: socket.socket, back: socket.socket, target_port: int
) -> None:
    loop = asyncio.get_running_loop()
    accepted, _ = await loop.sock_accept(front)
    with accepted:
        await loop.sock_connect(back, (LOOPBACK, target_port))
        await asyncio.gather(relay.pump(accepted, back), relay.pump(back, accepted))


async def _relay_udp(
    relay: Relay, front: socket.socket, back: socket.socket, target_port: int
) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(back, (LOOPBACK, target_port))
    first, address = await loop.sock_recvfrom(front, 65536)
    await loop.sock_connect(front, address)
    await loop.sock_sendall(back, first)
    await asyncio.gather(relay.pump(front, back), relay.pump(back, front))

"""The UDP socket under QUIC: bursts, losses, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import pytest

from zipnet.transport.udp import BURST, UdpSocket, bind_udp, connect_udp

PATIENCE_S: Final = 20.0
HOST: Final = "127.0.0.1"


class Recorder(asyncio.DatagramProtocol):
    """Keeps what it is told, with the turn of the loop it came in."""

    def __init__(self, close_after: int | None = None) -> None:
        self.heard: list[bytes] = []
        self.turns: list[int] = []
        self.errors: list[Exception] = []
        self.changed = asyncio.Event()
        self.turn = 0
        self.close_after = close_after
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr
        self.heard.append(data)
        self.turns.append(self.turn)
        self.changed.set()
        if len(self.heard) == self.close_after and self.transport is not None:
            self.transport.close()

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self.changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.heard) + len(self.errors) < count:
                self.changed.clear()
                await self.changed.wait()


@contextlib.contextmanager
def closing(*sockets: UdpSocket) -> Iterator[None]:
    try:
        yield
    finally:
        for each in sockets:
            each.close()


async def test_datagrams_go_both_ways() -> None:
    far, near = Recorder(), Recorder()
    server = await bind_udp(HOST, 0, lambda: far)
    client, address = await connect_udp(HOST, server.get_extra_info("sockname")[1], lambda: near)
    with closing(server, client):
        client.sendto(b"there", address)
        await far.until(1)
        server.sendto(b"back", client.get_extra_info("sockname"))
        await near.until(1)
    assert (far.heard, near.heard) == ([b"there"], [b"back"])


async def test_a_name_is_looked_up() -> None:
    far = Recorder()
    server = await bind_udp(HOST, 0, lambda: far)
    client, address = await connect_udp("localhost", server.get_extra_info("sockname")[1], Recorder)
    with closing(server, client):
        assert address[0] in {HOST, "::1"}


async def test_a_burst_is_read_in_few_turns_and_no_turn_reads_more_than_a_burst() -> None:
    far = Recorder()
    server = await bind_udp(HOST, 0, lambda: far)
    count = 3 * BURST + 1
    with closing(server), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for number in range(count):  # all of it waits before the loop has its first turn
            stranger.sendto(bytes([number]), server.get_extra_info("sockname"))
        async with asyncio.timeout(PATIENCE_S):
            while len(far.heard) < count:
                far.turn += 1
                await asyncio.sleep(0)
    assert far.heard == [bytes([number]) for number in range(count)]
    assert max(far.turns.count(turn) for turn in set(far.turns)) == BURST


async def test_nothing_is_heard_after_a_close_in_the_middle_of_a_burst() -> None:
    far = Recorder(close_after=3)
    server = await bind_udp(HOST, 0, lambda: far)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for number in range(BURST):
            stranger.sendto(bytes([number]), server.get_extra_info("sockname"))
        await far.until(3)
        for _ in range(5):
            await asyncio.sleep(0)
    assert len(far.heard) == 3


async def test_a_closed_socket_is_free_at_once_and_sends_nothing_more() -> None:
    server = await bind_udp(HOST, 0, Recorder)
    address = server.get_extra_info("sockname")
    server.close()
    server.close()
    server.abort()
    assert server.is_closing()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as next_owner:
        next_owner.bind(address)  # in the same turn
        server.sendto(b"late", address)
        next_owner.setblocking(False)
        with pytest.raises(BlockingIOError):
            next_owner.recv(100)


async def test_a_peer_that_is_not_there_is_told_of() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind((HOST, 0))
        port = nobody.getsockname()[1]
    near = Recorder()
    client, address = await connect_udp(HOST, port, lambda: near)
    with closing(client):
        client.sendto(b"anybody?", address)
        await near.until(1)
    assert isinstance(near.errors[0], ConnectionRefusedError)


async def test_an_address_that_is_taken_is_refused() -> None:
    server = await bind_udp(HOST, 0, Recorder)
    port = server.get_extra_info("sockname")[1]
    with closing(server), pytest.raises(OSError, match="in use"):
        await bind_udp(HOST, port, Recorder)

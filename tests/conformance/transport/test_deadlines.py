"""Nothing waits for ever: silent listeners, slow readers, dead machines, dawdling handshakes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.conformance.transport.engines import (
    LOOPBACK,
    PATIENCE_S,
    Engine,
    echo,
    flood,
    until_ended,
)
from tests.conformance.transport.relay import relaying
from zipnet.errors import TransportError
from zipnet.wire.frames import Frame
from zipnet.wire.limits import Limits

if TYPE_CHECKING:
    from zipnet.ports import Connection

SHORT = Limits(handshake_deadline_s=0.4, close_deadline_s=0.4)


@pytest.fixture
def silent_port(engine: Engine) -> Iterator[int]:
    """A socket that takes what comes and never answers."""
    kind = socket.SOCK_STREAM if engine.name == "tls" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as listening:
        listening.bind((LOOPBACK, 0))
        if engine.name == "tls":
            listening.listen(8)
        yield listening.getsockname()[1]


async def test_connecting_to_a_silent_listener_ends_at_the_timeout(
    engine: Engine, silent_port: int
) -> None:
    with pytest.raises(TransportError):
        await asyncio.wait_for(engine.connect(silent_port, timeout_s=0.3), PATIENCE_S)


async def test_connecting_to_a_silent_listener_ends_at_the_handshake_deadline(
    engine: Engine, silent_port: int
) -> None:
    with pytest.raises(TransportError):
        await asyncio.wait_for(engine.connect(silent_port, limits=SHORT), PATIENCE_S)


async def test_connecting_where_nobody_listens_fails_at_once(
    engine: Engine, silent_port: int
) -> None:
    with socket.socket() as freed:
        freed.bind((LOOPBACK, 0))
        port = freed.getsockname()[1]
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(TransportError):
        await engine.connect(port, timeout_s=PATIENCE_S)
    assert loop.time() - started < 3


async def test_a_frame_the_peer_takes_too_slowly_ends_the_link(engine: Engine) -> None:
    limits = Limits(max_queued_bytes=64 * 1024, send_deadline_s=0.4, close_deadline_s=0.4)
    over = asyncio.Event()

    async def never_reads(connection: Connection) -> None:
        await over.wait()

    async with engine.listening(never_reads, limits=limits) as listener:
        connection = await engine.connect(listener.port, limits=limits)
        with pytest.raises(TransportError, match="too slowly"):
            await flood(connection, frames=64, payload_bytes=1024 * 1024)
        with pytest.raises(TransportError):
            await connection.send(Frame(20, 0, b""))
        await connection.close()
        over.set()


async def test_a_peer_that_died_without_a_word_is_noticed_by_the_receiver(engine: Engine) -> None:
    limits = Limits(idle_timeout_s=1.0, close_deadline_s=0.4)
    async with (
        engine.listening(echo, limits=limits) as listener,
        relaying(engine.name, listener.port) as relay,
    ):
        connection = await engine.connect(relay.port, limits=limits)
        await connection.send(Frame(20, 1, b"alive"))
        assert (await connection.receive()).payload == b"alive"
        relay.freeze()
        with pytest.raises(TransportError):
            await asyncio.wait_for(connection.receive(), PATIENCE_S)
        await asyncio.wait_for(connection.close(), PATIENCE_S)


async def flood_then_listen(connection: Connection) -> None:
    await flood(connection, frames=64, payload_bytes=256 * 1024)
    await connection.receive()


async def test_a_peer_that_died_without_a_word_is_noticed_by_the_sender(engine: Engine) -> None:
    limits = Limits(send_deadline_s=0.5, idle_timeout_s=1.0, close_deadline_s=0.4)
    async with (
        engine.listening(echo, limits=limits) as listener,
        relaying(engine.name, listener.port) as relay,
    ):
        connection = await engine.connect(relay.port, limits=limits)
        relay.freeze()
        # The relay still drains TCP, as a middlebox with deep pockets would: then silence tells.
        with pytest.raises(TransportError):
            await asyncio.wait_for(flood_then_listen(connection), PATIENCE_S)
        await asyncio.wait_for(connection.close(), PATIENCE_S)


async def test_cancelling_receive_loses_nothing(engine: Engine) -> None:
    async with engine.listening(echo) as listener:
        connection = await engine.connect(listener.port)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.receive(), 0.05)
        await connection.send(Frame(20, 9, b"later"))
        assert (await asyncio.wait_for(connection.receive(), PATIENCE_S)).request_id == 9
        await connection.close()


async def test_an_idle_connection_below_the_timeout_is_kept(engine: Engine) -> None:
    limits = Limits(idle_timeout_s=3.0)
    async with engine.listening(echo, limits=limits) as listener:
        connection = await engine.connect(listener.port, limits=limits)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.receive(), 1.0)
        await connection.send(Frame(20, 2, b""))
        assert (await asyncio.wait_for(connection.receive(), PATIENCE_S)).request_id == 2
        await connection.close()


async def test_the_peer_closing_ends_receive_and_send(engine: Engine) -> None:
    async def one_and_out(connection: Connection) -> None:
        await connection.receive()

    async with engine.listening(one_and_out) as listener:
        connection = await engine.connect(listener.port)
        await connection.send(Frame(20, 0, b""))
        assert await asyncio.wait_for(until_ended(connection), PATIENCE_S) == []
        with pytest.raises(TransportError):
            await flood(connection, frames=1000, payload_bytes=100)
        await connection.close()
        await connection.close()  # idempotent

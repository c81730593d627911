"""Connections come and go without a trace: no task, no socket, no warning left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from aioquic.asyncio.client import connect as raw_quic_connect
from aioquic.quic.configuration import QuicConfiguration

from tests.conformance.transport.engines import (
    LOOPBACK,
    PATIENCE_S,
    Engine,
    echo,
    say_and_hear,
    until_ended,
)
from zipnet.errors import TransportError
from zipnet.wire.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from zipnet.ports import Connection


async def _open_files() -> int:
    gc.collect()
    await asyncio.sleep(0)  # asyncio frees a closed socket in its next turn
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names only


async def _nothing_runs() -> None:
    """Wait until no task but this one is left; a leaked one makes the wait time out."""
    async with asyncio.timeout(PATIENCE_S):
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(left, timeout=0.2)


async def test_closing_everything_leaves_no_task_and_no_socket(engine: Engine) -> None:
    before = await _open_files()
    async with engine.listening(echo) as listener:
        connections = [await engine.connect(listener.port) for _ in range(5)]
        for connection in connections:
            await say_and_hear(connection)
        await asyncio.gather(*(connection.close() for connection in connections))
    await _nothing_runs()
    assert await _open_files() == before


async def test_closing_the_listener_ends_its_connections_and_cancels_their_handlers(
    engine: Engine,
) -> None:
    before = await _open_files()
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def hangs(connection: Connection) -> None:
        await connection.receive()
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with engine.listening(hangs) as listener:
        connection = await engine.connect(listener.port)
        ended = asyncio.create_task(until_ended(connection))
        speaking = asyncio.create_task(_say(connection))
        await asyncio.wait_for(started.wait(), PATIENCE_S)
        await speaking
    assert cancelled.is_set()
    assert await asyncio.wait_for(ended, PATIENCE_S) == []
    await connection.close()
    with pytest.raises(TransportError):
        await engine.connect(listener.port, timeout_s=1)
    await _nothing_runs()
    assert await _open_files() == before


async def _say(connection: Connection) -> None:
    from zipnet.wire.frames import Frame

    await connection.send(Frame(20, 0, b"begin"))


async def test_two_hundred_connections_in_quick_succession(engine: Engine) -> None:
    before = await _open_files()
    served = 0

    async def count(connection: Connection) -> None:
        nonlocal served
        served += 1
        await echo(connection)

    async def visit(port: int, gate: asyncio.Semaphore) -> None:
        async with gate:
            connection = await engine.connect(port)
            assert (await say_and_hear(connection)).payload == b"hello"
            await connection.close()

    async with engine.listening(count) as listener:
        gate = asyncio.Semaphore(16)
        async with asyncio.timeout(3 * PATIENCE_S), asyncio.TaskGroup() as group:
            for _ in range(200):
                group.create_task(visit(listener.port, gate))
    assert served == 200
    assert engine.failures == []
    await _nothing_runs()
    assert await _open_files() == before


async def test_a_connection_above_the_listeners_cap_has_to_wait_or_is_refused(
    engine: Engine,
) -> None:
    limits = replace(DEFAULT_LIMITS, max_connections=2, handshake_deadline_s=1.0)
    async with engine.listening(echo, limits=limits) as listener:
        first, second = [await engine.connect(listener.port) for _ in range(2)]
        await say_and_hear(first)
        await say_and_hear(second)
        with pytest.raises(TransportError):
            await engine.connect(listener.port, timeout_s=0.7)
        await say_and_hear(first)
        await first.close()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    third = await engine.connect(listener.port, timeout_s=1)
                    break
                except TransportError:
                    continue
        await say_and_hear(third)
        await asyncio.gather(second.close(), third.close())


async def test_a_handler_that_fails_takes_only_its_own_connection_with_it(engine: Engine) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.append(context.get("exception"))
    )

    async def picky(connection: Connection) -> None:
        frame = await connection.receive()
        if frame.payload != b"hello":
            raise ZeroDivisionError
        await connection.send(frame)
        await until_ended(connection)

    async with engine.listening(picky) as listener:
        good, bad = await engine.connect(listener.port), await engine.connect(listener.port)
        await _say(bad)
        assert await asyncio.wait_for(until_ended(bad), PATIENCE_S) == []
        await say_and_hear(good)
        await asyncio.gather(good.close(), bad.close())
    assert [type(error) for error in reported] == [ZeroDivisionError]


@pytest.mark.parametrize("says", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_tcp_peer_that_never_finishes_its_handshake_is_cut_at_the_deadline(
    says: bytes,
) -> None:
    engine, limits = Engine("tls"), Limits(handshake_deadline_s=0.4)
    async with engine.listening(echo, limits=limits) as listener:
        reader, writer = await asyncio.open_connection(LOOPBACK, listener.port)
        writer.write(says)
        await asyncio.wait_for(_drained(reader), PATIENCE_S)
        writer.close()
        connection = await engine.connect(listener.port)
        await say_and_hear(connection)
        await connection.close()
    assert engine.failures == ["tls"]


async def _drained(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(4096):
            pass
    except ConnectionError:
        pass


async def test_a_quic_peer_that_never_opens_its_stream_is_cut_at_the_deadline() -> None:
    engine, limits = Engine("quic"), Limits(handshake_deadline_s=0.6)
    configuration = QuicConfiguration(alpn_protocols=["zipnet/1"], verify_mode=ssl.CERT_NONE)
    async with (
        engine.listening(echo, limits=limits) as listener,
        raw_quic_connect(LOOPBACK, listener.port, configuration=configuration) as client,
    ):
        await asyncio.wait_for(client.wait_closed(), PATIENCE_S)
    assert engine.failures == ["quic"]


async def test_garbage_datagrams_do_not_disturb_a_listener() -> None:
    seed = 4242
    print(f"seed {seed}")
    draw = random.Random(seed)
    trouble: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))
    engine = Engine("quic")
    async with engine.listening(echo) as listener:
        connection = await engine.connect(listener.port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.connect((LOOPBACK, listener.port))
            for number in range(600):
                size = draw.choice([1, 20, 1200, 1400])
                first = bytes([draw.choice([0xC0, 0xC3, 0xE0, 0x40, draw.randrange(256)])])
                version = draw.choice(
                    [b"\x00\x00\x00\x01", b"\x00\x00\x00\x00", b"\x6b\x33\x43\xcf"]
                )
                stranger.send((first + version + draw.randbytes(size))[: max(size, 5)])
                if number % 50 == 0:
                    await say_and_hear(connection)
        await say_and_hear(connection)
        await connection.close()
    assert trouble == []

"""Frames arrive whole, in order and within their cap, whichever adapter carries them."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.conformance.transport.engines import PATIENCE_S, Engine, echo, flood, until_ended
from zipnet.errors import LocalProtocolError, RemoteProtocolError, TransportError
from zipnet.wire.frames import CloseCode, Frame
from zipnet.wire.limits import DEFAULT_LIMITS, MAX_FRAME_BYTES, Limits

if TYPE_CHECKING:
    from zipnet.ports import Connection

CHUNK = DEFAULT_LIMITS.chunk_bytes
SIZES = [0, 1, 11, 12, 13, CHUNK - 13, CHUNK - 12, CHUNK - 11, CHUNK, CHUNK + 1, 180_000]


async def test_frames_of_all_sizes_up_to_the_cap_come_back_unchanged(engine: Engine) -> None:
    draw = random.Random(20261120)
    print("seed 20261120")
    async with engine.listening(echo) as listener:
        connection = await engine.connect(listener.port)
        for number, size in enumerate([*SIZES, MAX_FRAME_BYTES]):
            sent = Frame(20 + number, number, draw.randbytes(size), response=number % 2 == 1)
            await connection.send(sent)
            assert await asyncio.wait_for(connection.receive(), PATIENCE_S) == sent
        await connection.close()


async def test_one_byte_above_the_cap_is_refused_by_the_sender_and_the_link_stays(
    engine: Engine,
) -> None:
    async with engine.listening(echo) as listener:
        connection = await engine.connect(listener.port)
        with pytest.raises(LocalProtocolError, match="above the cap"):
            await connection.send(Frame(20, 0, bytes(MAX_FRAME_BYTES + 1)))
        await connection.send(Frame(20, 0, b"still here"))
        assert (await connection.receive()).payload == b"still here"
        await connection.close()


async def test_one_byte_above_the_cap_is_refused_by_the_receiver_before_it_is_buffered(
    engine: Engine,
) -> None:
    errors: list[RemoteProtocolError] = []

    async def strict(connection: Connection) -> None:
        try:
            await until_ended(connection)
        except RemoteProtocolError as error:
            errors.append(error)
            raise

    lax = replace(DEFAULT_LIMITS, max_frame_bytes=2 * MAX_FRAME_BYTES)
    async with engine.listening(strict) as listener:
        connection = await engine.connect(listener.port, limits=lax)
        await connection.send(Frame(20, 0, bytes(MAX_FRAME_BYTES)))  # the cap itself is taken
        with pytest.raises(TransportError):
            await flood(connection, frames=64, payload_bytes=MAX_FRAME_BYTES + 1)
        await connection.close()
        assert [error.code for error in errors] == [CloseCode.FRAME_TOO_LARGE]


async def test_the_peer_learns_the_code_a_link_was_closed_with(engine: Engine) -> None:
    async def refuse(connection: Connection) -> None:
        await connection.receive()
        await connection.close(code=CloseCode.OVERLOADED, reason="come back later")

    async with engine.listening(refuse) as listener:
        connection = await engine.connect(listener.port)
        await connection.send(Frame(20, 0, b""))
        with pytest.raises(TransportError, match="code 10: come back later"):
            await asyncio.wait_for(connection.receive(), PATIENCE_S)
        await connection.close()


async def test_order_is_kept_in_both_directions_at_once(engine: Engine) -> None:
    count = 300
    draw = random.Random(7)
    sizes = [draw.choice([0, 5, 900, 5_000]) for _ in range(count)]
    async with engine.listening(echo) as listener:
        connection = await engine.connect(listener.port)

        async def send_all() -> None:
            for number, size in enumerate(sizes):
                await connection.send(Frame(20, number, bytes(size)))

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            group.create_task(send_all())
            received = [await connection.receive() for _ in range(count)]
        assert [(f.request_id, len(f.payload)) for f in received] == list(enumerate(sizes))
        await connection.close()


async def test_frames_of_concurrent_senders_are_not_mixed(engine: Engine) -> None:
    async with engine.listening(echo) as listener:
        connection = await engine.connect(listener.port)
        payloads = [bytes([sender]) * 100_000 for sender in range(6)]
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for payload in payloads:
                group.create_task(connection.send(Frame(20, 0, payload)))
            received = [(await connection.receive()).payload for _ in payloads]
        assert sorted(received) == payloads
        await connection.close()


async def test_a_receiver_that_does_not_read_makes_the_sender_wait_within_bounded_memory(
    engine: Engine,
) -> None:
    limits = Limits(max_queued_bytes=128 * 1024)
    # Far above every buffer on the way; the kernel's for TCP are the largest.
    frame_bytes = 64 * 1024
    frames, most = {"tls": (512, 256), "quic": (96, 12)}[engine.name]
    may_read = asyncio.Event()
    received: list[int] = []
    all_there = asyncio.Event()

    async def lazy(connection: Connection) -> None:
        await may_read.wait()
        while True:
            received.append((await connection.receive()).request_id)
            if len(received) == frames:
                all_there.set()

    async with engine.listening(lazy, limits=limits) as listener:
        connection = await engine.connect(listener.port, limits=limits)
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for number in range(frames):
                await connection.send(Frame(20, number, bytes(frame_bytes)))
                sent += 1

        tracemalloc.start()
        sender = asyncio.create_task(send_all())
        done, _ = await asyncio.wait([sender], timeout=1.2)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert not done, "nothing made the sender wait"
        print(f"{engine.name}: {sent} frames under way, {held / 1024:.0f} KiB held")
        assert sent <= most
        assert held < 3 * 1024 * 1024
        may_read.set()
        await asyncio.wait_for(sender, 4 * PATIENCE_S)
        await asyncio.wait_for(all_there.wait(), 2 * PATIENCE_S)
        assert received == list(range(frames))
        await connection.close()


async def test_what_was_sent_before_close_arrives(engine: Engine) -> None:
    arrived: list[int] = []
    ended = asyncio.Event()

    async def collect(connection: Connection) -> None:
        arrived.extend(len(frame.payload) for frame in await until_ended(connection))
        ended.set()

    async with engine.listening(collect) as listener:
        connection = await engine.connect(listener.port)
        for _ in range(8):
            await connection.send(Frame(20, 0, bytes(100_000)))
        await connection.close()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
    assert arrived == [100_000] * 8

"""Whatever is cancelled, and whenever, a connection's socket is let go at once.

A socket that only the garbage collector closes is a warning in some later, innocent test.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import pytest

from tests.conformance.transport.engines import PATIENCE_S, Engine, echo, flood
from zipnet.errors import TransportError
from zipnet.transport.quic_stream import QuicByteStream
from zipnet.wire.limits import DEFAULT_LIMITS

_TURNS: Final = 5000
"""More turns of the loop than a handshake on loopback takes."""


@pytest.fixture(autouse=True)
def _collector_off() -> Iterator[None]:
    """Keep the collector from closing what the product should have closed."""
    gc.disable()
    yield
    gc.enable()


def _sockets() -> set[str]:
    """Every socket this process holds, by its inode."""
    held: set[str] = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            held.add(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
    return {name for name in held if name.startswith("socket:")}


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in a few turns of the loop, or not at all."""
    async with asyncio.timeout(PATIENCE_S / 4):
        while not condition():  # noqa: ASYNC110 - the kernel's sockets ring no bell
            await asyncio.sleep(0.001)


async def _until_only(expected: set[str]) -> None:
    """Wait until no other socket is left; a leaked one makes the wait time out."""
    await _until(lambda: not _sockets() - expected)


async def _cancelled(task: asyncio.Task[object]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_connect_cancelled_after_any_number_of_turns_leaves_no_socket(
    engine: Engine,
) -> None:
    async with engine.listening(echo) as listener:
        before = _sockets()
        for turns in range(_TURNS):
            connecting = asyncio.create_task(engine.connect(listener.port))
            for _ in range(turns):
                await asyncio.sleep(0)
            if connecting.done():
                await connecting.result().close()
                break
            await _cancelled(connecting)
        else:
            pytest.fail("no connection came about")
        print(f"{turns} turns")
    # The far side's own sockets went with the listener; what is left is the connecting side's.
    await _until_only(before)


async def test_a_connect_cancelled_the_moment_it_opens_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine("quic")
    opened: list[QuicByteStream] = []
    mark_open = QuicByteStream._mark_open

    def cancel_too(stream: QuicByteStream) -> None:
        mark_open(stream)
        if not opened:
            opened.append(stream)
            connecting.cancel()

    async with engine.listening(echo) as listener:
        before = _sockets()
        monkeypatch.setattr(QuicByteStream, "_mark_open", cancel_too)
        connecting = asyncio.create_task(engine.connect(listener.port))
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert opened[0].opened
        await _until_only(before)


async def test_a_connect_that_cannot_even_dial_leaves_no_socket_and_no_timer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_transport: object) -> None:
        raise OSError("no buffers")

    trouble: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))
    limits = replace(DEFAULT_LIMITS, handshake_deadline_s=0.2)
    engine = Engine("quic")
    before = _sockets()
    async with engine.listening(echo, limits=limits) as listener:
        monkeypatch.setattr("zipnet.transport.udp.grow_buffers", refuse)
        with pytest.raises(TransportError):
            await engine.connect(listener.port, limits=limits)
    await _until_only(before)
    await asyncio.sleep(2 * limits.handshake_deadline_s)  # a forgotten deadline would fire in here
    assert trouble == []


async def test_a_close_cancelled_behind_a_stuck_sender_lets_the_socket_go(engine: Engine) -> None:
    deaf = asyncio.Event()

    async def never_reads(_connection: object) -> None:
        await deaf.wait()

    limits = replace(DEFAULT_LIMITS, max_queued_bytes=64 * 1024)
    async with engine.listening(never_reads, limits=limits) as listener:
        before = _sockets()
        connection = await engine.connect(listener.port, limits=limits)
        (own,) = _of_this_side(connection)
        sending = asyncio.create_task(flood(connection, frames=50, payload_bytes=1024 * 1024))
        await _until(connection._send_lock.locked)  # type: ignore[attr-defined]
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0)
        assert not closing.done()
        await _cancelled(closing)
        await _until(lambda: own not in _sockets())
        with pytest.raises(TransportError):
            await sending
        deaf.set()
    await _until_only(before)


def _of_this_side(connection: object) -> set[str]:
    """The one socket a connection of this side owns."""
    stream = connection._stream  # type: ignore[attr-defined]
    transport = stream._transport if hasattr(stream, "_transport") else stream._writer.transport
    number = transport.get_extra_info("socket").fileno()
    return {os.readlink(f"/proc/self/fd/{number}")}  # noqa: PTH115


async def test_a_listener_whose_closing_is_cancelled_frees_its_port(engine: Engine) -> None:
    stubborn = asyncio.Event()
    started = asyncio.Event()

    async def lingers(_connection: object) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await stubborn.wait()

    transport = engine.transport(engine.server)
    before = _sockets()
    listener = await transport.listen("127.0.0.1", 0, lingers)
    listening = _sockets() - before
    connection = await engine.connect(listener.port)
    try:
        await asyncio.wait_for(started.wait(), PATIENCE_S)
        closing = asyncio.create_task(listener.close())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not closing.done()
        closing.cancel()
        if engine.name == "tls":  # waits for its handlers all the same, then frees the port
            stubborn.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(closing, PATIENCE_S)
        await _until_only(_sockets() - listening)
    finally:
        stubborn.set()
    await connection.close()
    await _until_only(before)

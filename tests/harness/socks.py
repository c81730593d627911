"""SOCKS5 servers for tests: Debian's microsocks where it is installed, and one of our own.

Ours is small on purpose, and tells what it was asked for: which names, with which credentials.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from zipnet.host.loopback import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["SocksLog", "microsocks", "socks_server"]


@dataclass
class SocksLog:
    """What a proxy was asked for.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        asked: Address type (1: IPv4, 3: name, 4: IPv6), host and port of every request.
        users: Credentials of every link, in order.
        names: Where names lead; others are refused.
    """

    port: int = 0
    asked: list[tuple[int, str, int]] = field(default_factory=list)
    users: list[tuple[bytes, bytes]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """What clients are given."""
        return f"socks5://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def socks_server(log: SocksLog) -> AsyncIterator[SocksLog]:
    """Serve RFC 1928 CONNECT with RFC 1929 credentials until the block ends."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _one(log, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # either end went away
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    log.port = server.sockets[0].getsockname()[1]
    try:
        yield log
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _one(log: SocksLog, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _, count = await reader.readexactly(2)
    methods = await reader.readexactly(count)
    method = 2 if 2 in methods else 0
    writer.write(bytes([5, method]))
    if method == 2:
        _, size = await reader.readexactly(2)
        user = await reader.readexactly(size)
        (size,) = await reader.readexactly(1)
        log.users.append((user, await reader.readexactly(size)))
        writer.write(b"\x01\x00")
    _, command, _, kind = await reader.readexactly(4)
    assert command == 1
    if kind == 3:
        (size,) = await reader.readexactly(1)
        host = (await reader.readexactly(size)).decode()
    else:
        host = ".".join(str(part) for part in await reader.readexactly(4))
    port = int.from_bytes(await reader.readexactly(2), "big")
    log.asked.append((kind, host, port))
    target = log.names.get(host, host if kind == 1 else None)
    if target is None:
        writer.write(b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00")  # host unreachable
        await writer.drain()
        return
    far_reader, far_writer = await asyncio.open_connection(target, port)
    writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
    try:
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
    finally:
        far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def microsocks() -> AsyncIterator[str]:
    """Run Debian's microsocks and yield its address; skip where it is not installed."""
    program = shutil.which("microsocks")
    if program is None:
        pytest.skip("microsocks is not installed (make client-tools)")
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        *(program, "-i", "127.0.0.1", "-p", str(port)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield f"socks5://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()

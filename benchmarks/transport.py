"""One stream's throughput and new connections per second, over each transport.

``python -m benchmarks.transport [--quick] [--json]`` runs both adapters on loopback with both ends
in this one process, alternating, and prints medians. Each end of a link costs CPU, so two processes
on two cores do better; the CPU time per MB is what compares across machines.

* *stream* — frames of 1 MiB, one direction, until the receiver acknowledged the last;
* *connect* — transport handshake, one small frame there and back, sixteen at a time.

QUIC before and after ``zipnet.transport.udp`` (bursts read in one turn of the loop, one answer to
each burst), runs in turn on one busy machine of two cores: 8.2 → 16.4 MB/s, 115 → 58 ms CPU per MB,
140 → 190 connections/s. Bare aioquic streams of its own took 88 to 96 ms CPU per MB there. What is
left is aioquic's work per packet of 1,200 bytes, the size that every path carries.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from zipnet.errors import TransportError
from zipnet.transport.certificate import NodeCertificate, node_certificate
from zipnet.transport.quic import QuicTransport
from zipnet.transport.tls import TlsTransport
from zipnet.wire.frames import Frame

if TYPE_CHECKING:
    from zipnet.ports import Connection, Listener

_HOST = "127.0.0.1"
_FRAME_BYTES = 1024 * 1024
_KIND = 20
_AT_ONCE = 16
_TIMEOUT_S = 30.0
_ROUNDS = 5
_ENGINES: dict[str, type[TlsTransport | QuicTransport]] = {
    "tls": TlsTransport,
    "quic": QuicTransport,
}


@dataclass(frozen=True)
class Row:
    """Medians of one adapter; MB is 10**6 bytes."""

    engine: str
    rounds: int
    stream_mb_per_s: float
    cpu_ms_per_mb: float
    connects_per_s: float


@dataclass
class Setup:
    """One adapter, listening."""

    engine: str
    certificate: NodeCertificate
    listener: Listener

    async def connect(self) -> Connection:
        """Open one more connection."""
        transport = _ENGINES[self.engine](None, registered={})
        key = self.certificate.public_key
        return await transport.connect(
            _HOST, self.listener.port, expected_key=key, timeout_s=_TIMEOUT_S
        )


async def _sink(connection: Connection) -> None:
    """Swallow pushes, answer requests, until the link ends."""
    try:
        while True:
            frame = await connection.receive()
            if frame.request_id:
                await connection.send(frame.answer(_KIND, b""))
    except TransportError:
        return


async def _ask(connection: Connection) -> None:
    await connection.send(Frame(_KIND, 1, b""))
    await connection.receive()


async def _stream(setup: Setup, frames: int) -> tuple[float, float]:
    connection = await setup.connect()
    payload = bytes(_FRAME_BYTES)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(frames):
        await connection.send(Frame(_KIND, 0, payload))
    await _ask(connection)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    await connection.close()
    megabytes = frames * _FRAME_BYTES / 1e6
    return megabytes / wall, cpu * 1000 / megabytes


async def _connects(setup: Setup, count: int) -> float:
    gate = asyncio.Semaphore(_AT_ONCE)
    opened: list[Connection] = []

    async def visit() -> None:
        async with gate:
            connection = await setup.connect()
            await _ask(connection)
            opened.append(connection)

    wall = time.perf_counter()
    await asyncio.gather(*(visit() for _ in range(count)))
    wall = time.perf_counter() - wall
    await asyncio.gather(*(connection.close() for connection in opened))
    return count / wall


async def _listening(engine: str, body: Callable[[Setup], Awaitable[None]]) -> None:
    certificate = node_certificate(Ed25519PrivateKey.generate())
    transport = _ENGINES[engine](certificate, registered={})
    listener = await transport.listen(_HOST, 0, _sink)
    try:
        await body(Setup(engine, certificate, listener))
    finally:
        await listener.close()


async def measure(*, rounds: int, frames: dict[str, int], connects: int) -> list[Row]:
    """Run both adapters alternately and return their medians."""
    streams: dict[str, list[tuple[float, float]]] = {engine: [] for engine in _ENGINES}
    rates: dict[str, list[float]] = {engine: [] for engine in _ENGINES}

    async def once(setup: Setup) -> None:
        streams[setup.engine].append(await _stream(setup, frames[setup.engine]))
        rates[setup.engine].append(await _connects(setup, connects))

    for _ in range(rounds):
        for engine in _ENGINES:
            await _listening(engine, once)
    return [
        Row(
            engine,
            rounds,
            median(speed for speed, _ in streams[engine]),
            median(cost for _, cost in streams[engine]),
            median(rates[engine]),
        )
        for engine in _ENGINES
    ]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args()
    rows = asyncio.run(
        measure(
            rounds=1 if options.quick else _ROUNDS,
            frames={"tls": 8, "quic": 2} if options.quick else {"tls": 200, "quic": 16},
            connects=16 if options.quick else 160,
        )
    )
    for row in rows:
        if options.json:
            print(json.dumps(asdict(row)))
        else:
            print(
                f"{row.engine:<5} stream {row.stream_mb_per_s:7.1f} MB/s"
                f"  {row.cpu_ms_per_mb:6.1f} ms CPU per MB (both ends)"
                f"  {row.connects_per_s:6.0f} connections/s  (median of {row.rounds})"
            )


if __name__ == "__main__":
    main()

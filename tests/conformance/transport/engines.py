"""Both adapters behind one face, and the small things every test of the port needs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from zipnet.errors import TransportError
from zipnet.transport.certificate import NodeCertificate, node_certificate
from zipnet.transport.quic import QuicTransport
from zipnet.transport.tls import TlsTransport
from zipnet.wire.frames import Frame
from zipnet.wire.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from zipnet.ports import Connection, Listener

LOOPBACK: Final = "127.0.0.1"
PATIENCE_S: Final = 20.0
"""Generous bound for whatever should happen at once; reached only when it does not happen."""

AnyTransport = TlsTransport | QuicTransport
ENGINES: Final[dict[str, type[TlsTransport | QuicTransport]]] = {
    "tls": TlsTransport,
    "quic": QuicTransport,
}


def fresh_certificate() -> NodeCertificate:
    """A certificate for a key nobody has seen before."""
    return node_certificate(Ed25519PrivateKey.generate())


@dataclass
class Engine:
    """One adapter, with a server identity to listen under."""

    name: str
    server: NodeCertificate = field(default_factory=fresh_certificate)
    failures: list[str] = field(default_factory=list)

    def transport(
        self,
        certificate: NodeCertificate | None = None,
        *,
        registered: Mapping[bytes, bytes] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> AnyTransport:
        return ENGINES[self.name](
            certificate,
            registered=registered if registered is not None else {},
            limits=limits,
            on_handshake_failure=lambda: self.failures.append(self.name),
        )

    @contextlib.asynccontextmanager
    async def listening(
        self,
        handler: Callable[[Connection], Awaitable[None]],
        *,
        limits: Limits = DEFAULT_LIMITS,
        registered: Mapping[bytes, bytes] | None = None,
    ) -> AsyncIterator[Listener]:
        transport = self.transport(self.server, registered=registered, limits=limits)
        listener = await transport.listen(LOOPBACK, 0, handler)
        try:
            yield listener
        finally:
            await asyncio.wait_for(listener.close(), PATIENCE_S)

    async def connect(
        self,
        port: int,
        *,
        limits: Limits = DEFAULT_LIMITS,
        certificate: NodeCertificate | None = None,
        expected_key: bytes | None = None,
        registered: Mapping[bytes, bytes] | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> Connection:
        transport = self.transport(certificate, registered=registered, limits=limits)
        key = expected_key if expected_key is not None else self.server.public_key
        return await transport.connect(LOOPBACK, port, expected_key=key, timeout_s=timeout_s)


async def echo(connection: Connection) -> None:
    """Send everything back until the link ends."""
    while True:
        await connection.send(await connection.receive())


async def flood(connection: Connection, *, frames: int, payload_bytes: int) -> None:
    """Send that many pushes of that size."""
    for _ in range(frames):
        await connection.send(Frame(20, 0, bytes(payload_bytes)))


async def say_and_hear(connection: Connection) -> Frame:
    """Send one small frame and wait for one."""
    await connection.send(Frame(20, 1, b"hello"))
    return await asyncio.wait_for(connection.receive(), PATIENCE_S)


async def until_ended(connection: Connection) -> list[Frame]:
    """Everything that arrives until the link ends."""
    frames: list[Frame] = []
    with contextlib.suppress(TransportError):
        while True:
            frames.append(await connection.receive())
    return frames

"""A TLS stream ends for good on every Python that zipnet runs on."""

from __future__ import annotations

import asyncio
from asyncio import sslproto
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.committee import make_identity
from zipnet.errors import TransportError
from zipnet.transport.certificate import node_certificate
from zipnet.transport.tls import TlsTransport

if TYPE_CHECKING:
    from zipnet.ports import Connection

NODE = node_certificate(make_identity("node").ed25519_private_key())
PEER = node_certificate(make_identity("peer").ed25519_private_key())


def _abort_of_debian_12(transport: Any) -> None:  # noqa: ANN401 - asyncio's own
    """Python 3.11.2's: it does not ask whether ``close`` has let go of the protocol."""
    transport._closed = True
    transport._ssl_protocol._abort()


async def test_a_link_that_its_peer_closed_ends_without_a_bug_on_debian_12(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sslproto._SSLProtocolTransport, "abort", _abort_of_debian_12)
    bugs: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context))
    server = TlsTransport(NODE, registered={PEER.public_key: PEER.der})
    client = TlsTransport(PEER, registered={NODE.public_key: NODE.der})
    ended = asyncio.Event()

    async def on_connection(connection: Connection) -> None:
        with pytest.raises(TransportError):
            await connection.receive()
        try:
            await connection.close()
        finally:
            ended.set()

    listener = await server.listen("127.0.0.1", 0, on_connection)
    try:
        connection = await client.connect(
            "127.0.0.1", listener.port, expected_key=NODE.public_key, timeout_s=10
        )
        await connection.close()
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        await listener.close()
    assert not bugs

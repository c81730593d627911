"""A TLS 1.3 server that shows any certificate and signs with any key.

OpenSSL refuses to load a certificate with somebody else's key, so the handshake messages come from
aioquic's TLS engine, which does not mind, and the record layer (RFC 8446 §5) is laid here.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from aioquic import tls
from aioquic._buffer import Buffer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.conformance.transport.engines import LOOPBACK, PATIENCE_S

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_HANDSHAKE, _APPLICATION = 22, 23


class _Keys:
    """One direction's record protection under AES-256-GCM."""

    def __init__(self, secret: bytes) -> None:
        self._aead = AESGCM(_expand(secret, b"key", 32))
        self._iv = int.from_bytes(_expand(secret, b"iv", 12), "big")
        self._number = 0

    def _nonce(self) -> bytes:
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return nonce

    def seal(self, message: bytes) -> bytes:
        inner = message + bytes([_HANDSHAKE])
        head = struct.pack("!BHH", _APPLICATION, 0x0303, len(inner) + 16)
        return head + self._aead.encrypt(self._nonce(), inner, head)

    def open(self, head: bytes, body: bytes) -> bytes:
        return self._aead.decrypt(self._nonce(), body, head)


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    return tls.hkdf_expand_label(hashes.SHA384(), secret, label, b"", length)


class _Liar:
    def __init__(self, der: bytes, key: Ed25519PrivateKey) -> None:
        self.secrets: dict[tuple[tls.Direction, tls.Epoch], bytes] = {}
        self.engine = tls.Context(
            is_client=False,
            alpn_protocols=["zipnet/1"],
            cipher_suites=[tls.CipherSuite.AES_256_GCM_SHA384],
        )
        self.engine.certificate = x509.load_der_x509_certificate(der)
        self.engine.certificate_private_key = key
        self.engine.update_traffic_key_cb = self._keep

    def _keep(
        self, direction: tls.Direction, epoch: tls.Epoch, suite: tls.CipherSuite, secret: bytes
    ) -> None:
        self.secrets[direction, epoch] = secret

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._handshake(reader, writer)
            await reader.read()  # until the client has seen enough
        writer.transport.abort()

    async def _handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, hello = await _record(reader)
        epochs = (tls.Epoch.INITIAL, tls.Epoch.HANDSHAKE, tls.Epoch.ONE_RTT)
        out = {epoch: Buffer(capacity=8192) for epoch in epochs}
        self.engine.handle_message(hello, out)
        server_hello = out[tls.Epoch.INITIAL].data
        writer.write(struct.pack("!BHH", _HANDSHAKE, 0x0303, len(server_hello)) + server_hello)
        keys = _Keys(self.secrets[tls.Direction.ENCRYPT, tls.Epoch.HANDSHAKE])
        writer.write(keys.seal(out[tls.Epoch.HANDSHAKE].data))
        await writer.drain()


async def _record(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head, await reader.readexactly(int.from_bytes(head[3:], "big"))


@contextlib.asynccontextmanager
async def lying_tls_server(der: bytes, key: Ed25519PrivateKey) -> AsyncIterator[int]:
    """The port of a server that shows ``der`` and signs with ``key``."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await _Liar(der, key).serve(reader, writer)

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE_S)

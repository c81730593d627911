"""What is agreed on below the frames: TLS 1.3 suites and groups of both transports (row A15)."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import CipherSuite, Epoch, Group, pull_client_hello

from tests.harness.committee import make_identity
from zipnet.errors import TransportError
from zipnet.transport import quic
from zipnet.transport.certificate import node_certificate
from zipnet.transport.quic import QuicTransport
from zipnet.transport.quic_groups import Engine
from zipnet.transport.tls import TlsTransport
from zipnet.wire.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zipnet.ports import Connection, Transport

CERTIFICATE = node_certificate(make_identity("server").ed25519_private_key())
SUITES = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
ALPN = "zipnet/1"


async def _quiet(connection: Connection) -> None:
    with pytest.raises(TransportError):
        await connection.receive()


@asynccontextmanager
async def listening(transport: Transport) -> AsyncIterator[int]:
    listener = await transport.listen("127.0.0.1", 0, _quiet)
    try:
        yield listener.port
    finally:
        await listener.close()


def client_hello(engine: QuicConnection) -> tuple[list[int], list[int], list[int]]:
    """Return suites, groups and key shares an engine offers."""
    engine.connect(("127.0.0.1", 1), now=0.0)
    sender = engine._crypto_streams[Epoch.INITIAL].sender
    hello = pull_client_hello(Buffer(data=bytes(sender._buffer)))
    assert hello.key_share is not None
    assert hello.supported_groups is not None
    return hello.cipher_suites, hello.supported_groups, [group for group, _ in hello.key_share]


@pytest.mark.requirement("A15")
def test_quic_offers_the_suites_and_groups_that_are_due_x25519_first() -> None:
    configuration = quic._configuration(DEFAULT_LIMITS, is_client=True)
    suites, groups, shares = client_hello(Engine(configuration=configuration))
    assert set(suites) == {
        CipherSuite.AES_128_GCM_SHA256,
        CipherSuite.AES_256_GCM_SHA384,
        CipherSuite.CHACHA20_POLY1305_SHA256,
    }
    assert groups == shares == [Group.X25519, Group.SECP256R1]
    theirs = QuicConnection(configuration=QuicConfiguration(is_client=True, alpn_protocols=[ALPN]))
    assert Group.SECP384R1 in client_hello(theirs)[1], "the library's own choice is another one"


@pytest.mark.requirement("A15")
@pytest.mark.parametrize(
    ("group", "taken"),
    [(Group.X25519, True), (Group.SECP256R1, True), (Group.SECP384R1, False), (Group.X448, False)],
)
async def test_quic_takes_the_groups_that_are_due_and_no_others(
    group: Group, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Only(QuicConnection):
        def _initialize(self, peer_cid: bytes) -> None:
            super()._initialize(peer_cid)
            self.tls._supported_groups = [group]

    monkeypatch.setattr(quic, "Engine", Only)
    async with listening(QuicTransport(CERTIFICATE, registered={})) as port:
        dial = QuicTransport(None, registered={}).connect(
            "127.0.0.1", port, expected_key=CERTIFICATE.public_key, timeout_s=10 if taken else 1
        )
        if taken:
            await (await dial).close()
        else:
            with pytest.raises(TransportError):
                await dial


async def _openssl(port: int, *options: str) -> bool:
    """Whether OpenSSL's own client shakes hands with these options."""
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-alpn", ALPN, "-tls1_3"),
        *options,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(20):
        said, _ = await process.communicate()
    return b"Cipher is TLS_" in said


@pytest.mark.requirement("A15")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_tls_takes_the_suites_that_are_due_and_no_others() -> None:
    async with listening(TlsTransport(CERTIFICATE, registered={})) as port:
        for suite in SUITES:
            assert await _openssl(port, "-ciphersuites", suite), suite
        for suite in ("TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"):
            assert not await _openssl(port, "-ciphersuites", suite), suite
        for group in ("X25519", "P-256"):
            assert await _openssl(port, "-groups", group), group

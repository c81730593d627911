"""Who is on the other side: proved by the transport before a frame can leave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import warnings
from typing import TYPE_CHECKING

import pytest
from aioquic.asyncio.client import connect as raw_quic_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as raw_quic_serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from aioquic.quic.packet import QuicProtocolVersion
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from tests.conformance.transport.engines import (
    LOOPBACK,
    PATIENCE_S,
    Engine,
    echo,
    fresh_certificate,
    say_and_hear,
    until_ended,
)
from tests.conformance.transport.liar import lying_tls_server
from tests.conformance.transport.relay import relaying
from zipnet.errors import ConfigError, TransportError
from zipnet.transport.certificate import NodeCertificate
from zipnet.wire.frames import Frame
from zipnet.wire.limits import Limits

if TYPE_CHECKING:
    from zipnet.ports import Connection


class _Watching(QuicConnectionProtocol):
    """A raw QUIC end that takes no notice of streams and remembers how it was closed."""

    closed_with: int | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.closed_with = event.error_code


class Doorman:
    """A handler that notes who came in and what they said."""

    def __init__(self) -> None:
        self.keys: list[bytes | None] = []
        self.frames: list[Frame] = []

    async def __call__(self, connection: Connection) -> None:
        self.keys.append(connection.peer_certificate.public_key)
        self.frames.extend(await until_ended(connection))


async def test_both_sides_learn_what_the_other_proved(engine: Engine) -> None:
    async with engine.listening(echo) as listener:
        connection = await engine.connect(listener.port)
        assert connection.peer_certificate.public_key == engine.server.public_key
        assert connection.local_certificate.public_key is None
        assert connection.remote_address == f"{LOOPBACK}:{listener.port}"
        await connection.close()


async def test_another_key_than_the_expected_one_is_refused_before_a_frame(engine: Engine) -> None:
    doorman = Doorman()
    other = fresh_certificate()
    register = {other.public_key: other.der, engine.server.public_key: engine.server.der}
    async with engine.listening(doorman) as listener:
        for registered in ({}, register):
            with pytest.raises(TransportError):
                await engine.connect(
                    listener.port, expected_key=other.public_key, registered=registered
                )
        good = await engine.connect(listener.port)  # the same listener serves who asks rightly
        await good.close()
    assert doorman.frames == []


async def test_a_relay_with_its_own_certificate_is_refused(engine: Engine) -> None:
    """The plain man in the middle: it terminates the link under a key of its own."""
    doorman, middle = Doorman(), Engine(engine.name)
    async with engine.listening(echo), middle.listening(doorman) as evil:
        with pytest.raises(TransportError):
            await engine.connect(evil.port)
    assert doorman.frames == []


async def test_a_relay_that_only_passes_bytes_on_changes_nothing(engine: Engine) -> None:
    async with (
        engine.listening(echo) as listener,
        relaying(engine.name, listener.port) as relay,
    ):
        connection = await engine.connect(relay.port)
        await connection.send(Frame(20, 1, b"through"))
        assert (await connection.receive()).payload == b"through"
        await connection.close()


@pytest.mark.parametrize("holds_the_key", [False, True])
async def test_a_certificate_shown_without_its_key_is_refused(
    engine: Engine, *, holds_the_key: bool
) -> None:
    """The victim's certificate, byte for byte, signed for with the attacker's key.

    With the right key the very same server is accepted: what refuses it is CertificateVerify.
    """
    victim = engine.server
    key = victim.private_key if holds_the_key else Ed25519PrivateKey.generate()
    for registered in ({}, {victim.public_key: victim.der}):
        async with asyncio.timeout(PATIENCE_S):
            accepted = await _connects_to_liar(engine, victim, key, registered)
        assert accepted is holds_the_key


async def _connects_to_liar(
    engine: Engine,
    victim: NodeCertificate,
    key: Ed25519PrivateKey,
    registered: dict[bytes, bytes],
) -> bool:
    if engine.name == "quic":
        configuration = QuicConfiguration(is_client=False, alpn_protocols=["zipnet/1"])
        configuration.certificate = x509.load_der_x509_certificate(victim.der)
        configuration.private_key = key
        server = await raw_quic_serve(
            LOOPBACK, 0, configuration=configuration, create_protocol=_Watching
        )
        assert server._transport is not None
        port = server._transport.get_extra_info("sockname")[1]
        try:
            return await _connects(engine, port, registered)
        finally:
            server._transport.abort()
            for protocol in set(server._protocols.values()):
                if protocol._timer is not None:
                    protocol._timer.cancel()
    async with lying_tls_server(victim.der, key) as port:
        return await _connects(engine, port, registered)


async def _connects(engine: Engine, port: int, registered: dict[bytes, bytes]) -> bool:
    limits = Limits(close_deadline_s=0.3)
    try:
        connection = await engine.connect(port, registered=registered, limits=limits)
    except TransportError as error:
        print(error)
        return False
    await connection.close()
    return True


async def test_a_transport_without_a_certificate_cannot_listen(engine: Engine) -> None:
    with pytest.raises(ConfigError):
        await engine.transport().listen(LOOPBACK, 0, echo)


async def test_an_address_in_use_is_a_transport_error(engine: Engine) -> None:
    async with engine.listening(echo) as listener:
        with pytest.raises(TransportError, match="cannot listen"):
            await engine.transport(engine.server).listen(LOOPBACK, listener.port, echo)


async def test_both_adapters_share_one_port_number() -> None:
    tls, quic = Engine("tls"), Engine("quic")
    async with tls.listening(echo) as listener:
        other = await quic.transport(quic.server).listen(LOOPBACK, listener.port, echo)
        for engine in (tls, quic):
            connection = await engine.connect(listener.port)
            await connection.send(Frame(20, 1, engine.name.encode()))
            assert (await connection.receive()).payload == engine.name.encode()
            await connection.close()
        await other.close()


# --- certificates of connecting nodes: TLS only, QUIC proves them in the session handshake --------


async def test_a_registered_node_is_known_by_its_certificate() -> None:
    engine, node, doorman = Engine("tls"), fresh_certificate(), Doorman()
    async with engine.listening(doorman, registered={node.public_key: node.der}) as listener:
        connection = await engine.connect(listener.port, certificate=node)
        assert connection.local_certificate.public_key == node.public_key
        await connection.send(Frame(20, 0, b"me"))
        await connection.close()
        client = await engine.connect(listener.port)
        await client.close()
    assert doorman.keys == [node.public_key, None]
    assert doorman.frames == [Frame(20, 0, b"me")]


async def _come_in(engine: Engine, port: int, node: NodeCertificate) -> None:
    # In TLS 1.3 the client is done before the server has looked: it learns on first use.
    connection = await engine.connect(port, certificate=node)
    try:
        await say_and_hear(connection)
    finally:
        await connection.close()


@pytest.mark.parametrize("registers", ["nobody", "somebody else", "an impostor certificate"])
async def test_a_certificate_that_is_not_registered_never_reaches_the_handler(
    registers: str,
) -> None:
    engine, node, other, doorman = (
        Engine("tls"),
        fresh_certificate(),
        fresh_certificate(),
        Doorman(),
    )
    registered = {
        "nobody": {},
        "somebody else": {other.public_key: other.der},
        "an impostor certificate": {node.public_key: other.der},
    }[registers]
    async with engine.listening(doorman, registered=registered) as listener:
        with pytest.raises(TransportError):
            await _come_in(engine, listener.port, node)
    assert doorman.keys == []
    assert engine.failures == ["tls"]


async def test_a_registered_node_cannot_vouch_for_another_key() -> None:
    """A chain from an unregistered leaf to a registered certificate is no reason to let it in."""
    engine, registered, doorman = Engine("tls"), fresh_certificate(), Doorman()
    leaf_key = Ed25519PrivateKey.generate()
    issuer = x509.load_der_x509_certificate(registered.der)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(leaf_key.public_key())
        .serial_number(7)
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .sign(registered.private_key, None)
    )
    child = NodeCertificate(
        leaf.public_bytes(Encoding.DER), leaf_key.public_key().public_bytes_raw(), leaf_key
    )
    register = {registered.public_key: registered.der}
    async with engine.listening(doorman, registered=register) as listener:
        with pytest.raises(TransportError):
            await _come_in(engine, listener.port, child)
    assert doorman.keys == []


# --- older protocols ------------------------------------------------------------------------------


@pytest.mark.parametrize("alpn", [["zipnet/1"], ["h2"], []])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_only_tls_1_3_with_our_protocol_name_is_accepted(
    version: ssl.TLSVersion, alpn: list[str]
) -> None:
    engine, doorman = Engine("tls"), Doorman()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    good = version is ssl.TLSVersion.TLSv1_3 and alpn == ["zipnet/1"]
    async with engine.listening(doorman) as listener:

        def attempt() -> bool:
            try:
                with (
                    socket.create_connection((LOOPBACK, listener.port), PATIENCE_S) as raw,
                    context.wrap_socket(raw) as tls,
                ):
                    tls.sendall(bytes([1, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0]))
                    tls.settimeout(0.3)
                    with contextlib.suppress(TimeoutError):
                        tls.recv(1)  # a ticket would come now
                    return tls.session is None or not tls.session.has_ticket
            except OSError:
                return False

        spoke = await asyncio.to_thread(attempt)
        if good:
            assert spoke, "no connection, or a session ticket was handed out"
    assert len(doorman.frames) == (1 if good else 0)


@pytest.mark.parametrize("wrong", ["nothing", "version", "protocol name"])
async def test_only_quic_version_1_with_our_protocol_name_is_accepted(wrong: str) -> None:
    engine, doorman = Engine("quic"), Doorman()
    configuration = QuicConfiguration(
        alpn_protocols=["h3"] if wrong == "protocol name" else ["zipnet/1"],
        verify_mode=ssl.CERT_NONE,
        idle_timeout=2,
    )
    if wrong == "version":
        configuration.supported_versions = [QuicProtocolVersion.VERSION_2]
    async with engine.listening(doorman) as listener:

        async def attempt() -> bool:
            async with raw_quic_connect(
                LOOPBACK, listener.port, configuration=configuration, local_port=0
            ) as client:
                client._quic.send_stream_data(0, bytes([1, 1, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0]))
                await asyncio.wait_for(client.ping(), PATIENCE_S)
                return True

        if wrong == "nothing":
            assert await attempt()
        else:
            with pytest.raises(ConnectionError):
                await attempt()
    assert len(doorman.frames) == (1 if wrong == "nothing" else 0)


@pytest.mark.parametrize("abuse", ["second stream", "one-way stream", "stream version", "reset"])
async def test_a_quic_peer_gets_one_stream_and_no_more(abuse: str) -> None:
    engine, doorman = Engine("quic"), Doorman()
    configuration = QuicConfiguration(alpn_protocols=["zipnet/1"], verify_mode=ssl.CERT_NONE)
    async with (
        engine.listening(doorman) as listener,
        raw_quic_connect(
            LOOPBACK, listener.port, configuration=configuration, create_protocol=_Watching
        ) as client,
    ):
        assert isinstance(client, _Watching)
        assert client._quic._remote_max_streams_bidi == 1
        assert client._quic._remote_max_streams_uni == 0
        # A peer that ignores what it was granted:
        client._quic._remote_max_streams_bidi = client._quic._remote_max_streams_uni = 4
        client._quic._remote_max_stream_data_uni = 1000
        first = b"\x09" if abuse == "stream version" else b"\x01"
        client._quic.send_stream_data(0, first)
        if abuse == "second stream":
            client._quic.send_stream_data(4, b"\x01")
        elif abuse == "one-way stream":
            client._quic.send_stream_data(2, b"\x01")
        elif abuse == "reset":
            client.transmit()
            client._quic.reset_stream(0, 7)
        client.transmit()
        await asyncio.wait_for(client.wait_closed(), PATIENCE_S)
        assert client.closed_with not in (None, 0)
    assert doorman.frames == []

"""The ``quic`` adapter: frames over QUIC (TLS 1.3), with aioquic.

Made for clients: it survives a change of address, asks nothing of the network but UDP, and a lost
packet of one link does not stall another.

Rules:

1. ALPN ``zipnet/1``, QUIC version 1 only, no session tickets, no early data, traffic keys never
   logged. A server answers a first packet with a Retry, so a forged sender address costs it
   neither state nor signatures.
2. aioquic cannot ask a client for a certificate: every inbound peer is ``PeerCertificate(None)``
   and proves itself in the session handshake, whose transcript holds this server's certificate
   key. The server's certificate is compared with the expected key by
   :class:`~zipnet.transport.quic_stream.QuicByteStream`.
3. The event loop must be asyncio's own: with uvloop aioquic falls to a tenth of its speed.
4. A listener holds at most ``max_connections``; the first packets of one more go unanswered, so
   it waits for room as it would in a TCP backlog.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite
from cryptography import x509

from zipnet.errors import ConfigError, TransportError
from zipnet.transport.egress import dialling
from zipnet.transport.link import FramedConnection, run_handler
from zipnet.transport.quic_groups import Engine, with_our_groups
from zipnet.transport.quic_stream import UNLIMITED_DATA, QuicByteStream
from zipnet.transport.udp import UdpSocket, bind_udp, connect_udp
from zipnet.wire.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aioquic.quic.connection import NetworkAddress, QuicConnection

    from zipnet.ports import Connection
    from zipnet.transport.certificate import NodeCertificate

__all__ = ["ALPN", "QuicListener", "QuicTransport"]

ALPN = "zipnet/1"

_SUITES = [
    CipherSuite.AES_256_GCM_SHA384,
    CipherSuite.CHACHA20_POLY1305_SHA256,
    CipherSuite.AES_128_GCM_SHA256,
]


def _configuration(limits: Limits, *, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=[ALPN],
        cipher_suites=_SUITES,
        idle_timeout=limits.idle_timeout_s,
        is_client=is_client,
        max_data=UNLIMITED_DATA,
        max_stream_data=limits.max_queued_bytes,
        supported_versions=[QuicProtocolVersion.VERSION_1],
        verify_mode=ssl.CERT_NONE,  # the key is compared instead; see rule 2
    )


class _ServerStream(QuicByteStream):
    """The server's end of a connection; knows whether there was room for it."""

    refused = False
    begun = False
    may_begin: Callable[[str], bool]

    def datagram_received(self, data: bytes | str, addr: NetworkAddress) -> None:
        if not self.begun:  # the address is proved: it answered the Retry
            self.begun = True
            self.refused = self.refused or not self.may_begin(str(addr[0]))
        if not self.refused:
            super().datagram_received(data, addr)
            return
        self._connection_terminated_handler()  # the server forgets this attempt
        self.drop()


class QuicListener:
    """A bound UDP socket, its QUIC connections, and the tasks of their handlers."""

    def __init__(
        self,
        certificate: NodeCertificate,
        handler: Callable[[Connection], Awaitable[None]],
        limits: Limits,
        on_handshake_failure: Callable[[], None],
        may_begin: Callable[[str], bool],
    ) -> None:
        self._certificate = certificate
        self._handler = handler
        self._limits = limits
        self._on_handshake_failure = on_handshake_failure
        self._may_begin = may_begin
        self._streams: set[QuicByteStream] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._port = 0
        self._transport: UdpSocket | None = None

    async def bind(self, host: str, port: int) -> None:
        """Bind the UDP socket. Raises OSError when the address cannot be had."""
        configuration = _configuration(self._limits, is_client=False)
        configuration.certificate = x509.load_der_x509_certificate(self._certificate.der)
        configuration.private_key = self._certificate.private_key
        self._transport = await bind_udp(
            host,
            port,
            lambda: QuicServer(
                configuration=configuration, create_protocol=self._create, retry=True
            ),
        )
        self._port = self._transport.get_extra_info("sockname")[1]

    @property
    def port(self) -> int:
        """The UDP port the socket is, or was, bound to."""
        return self._port

    def _create(self, connection: QuicConnection, **_: object) -> _ServerStream:
        with_our_groups(connection)
        stream = _ServerStream(
            connection,
            limits=self._limits,
            local_key=self._certificate.public_key,
            expected_key=None,
            on_open=self._on_open,
            on_end=self._on_end,
        )
        stream.may_begin = self._may_begin
        stream.refused = self._closing or len(self._streams) >= self._limits.max_connections
        if not stream.refused:
            self._streams.add(stream)
        return stream

    def _on_open(self, stream: QuicByteStream) -> None:
        connection = FramedConnection(stream, self._limits)
        task = asyncio.get_running_loop().create_task(run_handler(connection, self._handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_end(self, stream: QuicByteStream) -> None:
        if stream in self._streams:
            self._streams.discard(stream)
            if not stream.opened:
                self._on_handshake_failure()

    async def close(self) -> None:
        """Take no more connections, cancel all handlers, close what is open, free the socket."""
        self._closing = True
        try:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            left = list(self._streams)
            await asyncio.gather(*(stream.shut_down(0, "", flush=False) for stream in left))
        finally:  # also when the waiting is cancelled: the port must not outlive the listener
            if self._transport is not None:
                self._transport.close()


class QuicTransport:
    """The Transport port over QUIC.

    Args:
        certificate: This node's certificate; None for a client, which cannot listen.
        registered: Not needed on QUIC (rule 2); taken so that both adapters are made alike.
        limits: Bounds of every connection.
        on_handshake_failure: Called once for every inbound connection that never opened; may be
            set until it listens.

    Attributes:
        may_begin: Asked for each inbound connection, with its host, before any work is done for
            it; may be set until it listens.
    """

    name = "quic"

    def __init__(
        self,
        certificate: NodeCertificate | None,
        *,
        registered: Mapping[bytes, bytes],
        limits: Limits = DEFAULT_LIMITS,
        on_handshake_failure: Callable[[], None] | None = None,
    ) -> None:
        self._certificate = certificate
        self._registered = registered
        self._limits = limits
        self.on_handshake_failure = on_handshake_failure or (lambda: None)
        self.may_begin: Callable[[str], bool] = lambda _host: True

    async def connect(
        self, host: str, port: int, *, expected_key: bytes, timeout_s: float
    ) -> Connection:
        """Connect and prove that the far side holds ``expected_key`` (32 bytes).

        Raises:
            TransportError: When the peer cannot be reached in time or holds another key.
            EgressError: When this process may not connect there.
        """
        with dialling(host, port):
            return await self._connect(host, port, expected_key, timeout_s)

    async def _connect(
        self, host: str, port: int, expected_key: bytes, timeout_s: float
    ) -> Connection:
        engine = Engine(configuration=_configuration(self._limits, is_client=True))
        stream = QuicByteStream(
            engine, limits=self._limits, local_key=None, expected_key=expected_key
        )
        try:
            async with asyncio.timeout(min(timeout_s, self._limits.handshake_deadline_s)):
                await self._open(stream, host, port)
        except TimeoutError as error:
            raise TransportError(f"no QUIC connection to {host}:{port} in time") from error
        except (OSError, TransportError) as error:
            raise TransportError(f"no QUIC connection to {host}:{port}: {error}") from error
        return FramedConnection(stream, self._limits)

    async def _open(self, stream: QuicByteStream, host: str, port: int) -> None:
        """Make the stream's socket and shake hands; on any failure the socket is let go."""
        try:
            _, address = await connect_udp(host, port, lambda: stream)
            stream.connect(address)
            await stream.wait_open()
        except BaseException:
            # Also a cancellation that arrives when the stream is open but its opener has not had
            # its turn yet: nobody else would ever hold, and so close, this socket.
            stream.abort()
            raise

    async def listen(
        self, host: str, port: int, handler: Callable[[Connection], Awaitable[None]]
    ) -> QuicListener:
        """Bind a UDP port (0: any) and run ``handler`` for every connection that opened.

        Raises:
            ConfigError: When this transport has no certificate to present.
            TransportError: When the address cannot be bound.
        """
        if self._certificate is None:
            raise ConfigError("a transport without a certificate cannot listen")
        listener = QuicListener(
            self._certificate, handler, self._limits, self.on_handshake_failure, self.may_begin
        )
        try:
            await listener.bind(host, port)
        except OSError as error:
            raise TransportError(f"cannot listen on UDP {host}:{port}: {error}") from error
        return listener

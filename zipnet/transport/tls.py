"""The ``tls`` adapter: frames over TCP and TLS 1.3, with the standard library only.

Made for node-to-node bulk, and for networks without UDP.

Rules:

1. TLS 1.3 only, ALPN ``zipnet/1``, no session tickets and so no resumption and no early data.
   Contexts are built by hand: the library's default context would write traffic keys to the file
   that ``SSLKEYLOGFILE`` names.
2. Nodes authenticate each other by certificate. The registered certificates are the trust store,
   and after OpenSSL's verdict the leaf must be, byte for byte, the one registered for its key. A
   certificate that is not registered fails inside the TLS handshake.
3. A peer without a certificate (a client, a reader) is let through with
   ``PeerCertificate(None)``; it must prove itself in the session handshake.
4. ``connect`` compares the leaf's key with the expected key before a frame can leave. TLS itself
   proved possession of that key (CertificateVerify); a host name proves nothing here. Who shows no
   certificate goes by that alone, as on QUIC: a client may have missed any number of certificates.
5. Every wait has a deadline, every buffer a cap: the socket's read buffer and write buffer hold at
   most ``max_queued_bytes`` plus one chunk.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from zipnet.errors import ConfigError, TransportError, VerificationError
from zipnet.ports import Connection, PeerCertificate
from zipnet.transport.certificate import NodeCertificate, certificate_public_key, load_into
from zipnet.transport.egress import dialling
from zipnet.transport.link import FramedConnection, run_handler
from zipnet.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["ALPN", "TlsListener", "TlsTransport"]

ALPN = "zipnet/1"

_BACKLOG = 512
_ACCEPT_PAUSE_S = 0.05


def _context(protocol: int, certificate: NodeCertificate | None) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols([ALPN])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A registered certificate is an anchor in itself, though it is no authority.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if certificate is not None:
        load_into(context, certificate)
    return context


def _remote_address(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if peer else "unknown"


class _TlsStream:
    """A :class:`~zipnet.transport.link.ByteStream` over asyncio's streams."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        peer: PeerCertificate,
        local: PeerCertificate,
        limits: Limits,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self.peer_certificate = peer
        self.local_certificate = local
        self.remote_address = _remote_address(writer.transport)
        writer.transport.set_write_buffer_limits(high=limits.max_queued_bytes)

    async def read(self) -> bytes:
        try:
            return await self._reader.read(self._limits.chunk_bytes)
        except OSError as error:  # ssl.SSLError is one too
            raise TransportError("the connection broke while reading") from error

    async def write(self, data: bytes | memoryview) -> None:
        try:
            # One turn of the loop: a lost connection is only noticed there, and a fast sender
            # would otherwise starve everybody else.
            await asyncio.sleep(0)
            await self._writer.drain()
            if self._writer.is_closing():
                raise TransportError("the link is closed")
            self._writer.write(data)
        except OSError as error:
            raise TransportError("the connection broke while writing") from error

    async def shut_down(self, code: int, reason: str, *, flush: bool) -> None:
        del code, reason  # TLS has no room for them; a CLOSE frame told the peer
        if not flush:
            self.abort()
        try:
            async with asyncio.timeout(self._limits.close_deadline_s):
                self._writer.close()  # flushes, then says close_notify
                await self._writer.wait_closed()
        except (OSError, TimeoutError):  # the far side was gone or too slow: cut
            self.abort()
        finally:
            self.abort()

    def abort(self) -> None:
        # Up to Python 3.11.2, Debian 12's, asyncio cannot abort a transport that was closed twice,
        # and closing one that was aborted is the second time. It is gone by then.
        with contextlib.suppress(AttributeError):
            self._writer.transport.abort()


class TlsListener:
    """A listening TCP socket, its accept loop, and the tasks of its connections."""

    def __init__(
        self,
        listening: socket.socket,
        serve: Callable[[socket.socket], Awaitable[None]],
        limits: Limits,
    ) -> None:
        self._socket = listening
        self._port: int = listening.getsockname()[1]
        self._serve = serve
        self._slots = asyncio.Semaphore(limits.max_connections)
        self._task = asyncio.get_running_loop().create_task(self._accept_all())

    @property
    def port(self) -> int:
        """The TCP port the socket is, or was, bound to."""
        return self._port

    async def _accept_all(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                await self._slots.acquire()
                try:
                    accepted, _ = await loop.sock_accept(self._socket)
                except OSError:  # out of descriptors, or the peer left the queue
                    self._slots.release()
                    await asyncio.sleep(_ACCEPT_PAUSE_S)
                    continue
                group.create_task(self._serve_one(accepted))

    async def _serve_one(self, accepted: socket.socket) -> None:
        try:
            await self._serve(accepted)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """Stop accepting, cancel all handlers, wait for their connections to close."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._socket.close()


class TlsTransport:
    """The Transport port over TCP and TLS 1.3.

    Args:
        certificate: This node's certificate; None for a client, which then shows none.
        registered: Certificate DER by raw Ed25519 key, of every node in the descriptor; see also
            :meth:`register`.
        limits: Bounds of every connection.
        on_handshake_failure: Called once for every inbound handshake that failed; may be set until
            it listens.
        dial: Opens the TCP connection to host and port within so many seconds, such as through a
            proxy; None connects directly.

    Attributes:
        may_begin: Asked for each inbound connection, with its host, before any work is done for
            it; may be set until it listens.
    """

    name = "tls"

    def __init__(
        self,
        certificate: NodeCertificate | None,
        *,
        registered: Mapping[bytes, bytes],
        limits: Limits = DEFAULT_LIMITS,
        on_handshake_failure: Callable[[], None] | None = None,
        dial: Callable[[str, int, float], Awaitable[socket.socket]] | None = None,
    ) -> None:
        self._dial = dial
        self._certificate = certificate
        self._registered = {} if certificate is None else dict(registered)
        self._also: dict[bytes, bytes] = {}
        self._listening: list[ssl.SSLContext] = []
        self._limits = limits
        self.on_handshake_failure = on_handshake_failure or (lambda: None)
        self.may_begin: Callable[[str], bool] = lambda _host: True
        self._local = PeerCertificate(certificate.public_key if certificate else None)

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
        context = self._client_context(expected_key)
        reader = self._reader()
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                # Bound to the proxy's socket, or to none and then to host and port.
                dialled = None if self._dial is None else await self._dial(host, port, timeout_s)
                connect = partial(
                    loop.create_connection,
                    lambda: protocol,
                    ssl=context,
                    server_hostname="",
                    ssl_handshake_timeout=min(timeout_s, self._limits.handshake_deadline_s),
                    ssl_shutdown_timeout=self._limits.close_deadline_s,
                )
                transport, _ = await (
                    connect(host=host, port=port) if dialled is None else connect(sock=dialled)
                )
        except TimeoutError as error:
            raise TransportError(f"no TLS connection to {host}:{port} in time") from error
        except OSError as error:
            raise TransportError(f"no TLS connection to {host}:{port}: {error}") from error
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            peer = self._peer_of(transport)
            if peer.public_key != expected_key:
                raise TransportError("the far side holds another key than the expected one")
        except TransportError:
            transport.abort()
            raise
        return self._framed(reader, writer, peer)

    async def listen(
        self, host: str, port: int, handler: Callable[[Connection], Awaitable[None]]
    ) -> TlsListener:
        """Bind a TCP port (0: any) and run ``handler`` for every authenticated connection.

        Raises:
            ConfigError: When this transport has no certificate to present.
            TransportError: When the address cannot be bound.
        """
        context = self._server_context()
        try:
            listening = await _bind(host, port)
        except OSError as error:
            raise TransportError(f"cannot listen on TCP {host}:{port}: {error}") from error

        async def serve(accepted: socket.socket) -> None:
            if not self._lets_begin(accepted):
                accepted.close()
                return
            connection = await self._accept(accepted, context)
            if connection is not None:
                await run_handler(connection, handler)

        return TlsListener(listening, serve, self._limits)

    def _lets_begin(self, accepted: socket.socket) -> bool:
        try:
            return self.may_begin(str(accepted.getpeername()[0]))
        except OSError:  # it is gone already
            return False

    async def _accept(
        self, accepted: socket.socket, context: ssl.SSLContext
    ) -> FramedConnection | None:
        """The connection of an accepted socket, or None when its handshake failed."""
        loop = asyncio.get_running_loop()
        reader = self._reader()
        protocol = asyncio.StreamReaderProtocol(reader)
        accepted.setblocking(False)  # noqa: FBT003 - positional only
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                accepted,
                ssl=context,
                ssl_handshake_timeout=self._limits.handshake_deadline_s,
                ssl_shutdown_timeout=self._limits.close_deadline_s,
            )
        except OSError:  # refused certificate, wrong version, deadline: all end here
            accepted.close()
            self.on_handshake_failure()
            return None
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            peer = self._peer_of(transport)
        except TransportError:
            transport.abort()
            self.on_handshake_failure()
            return None
        return self._framed(reader, writer, peer)

    def _peer_of(self, transport: asyncio.BaseTransport) -> PeerCertificate:
        """What TLS proved about the far side, checked once more against the register."""
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        if tls.version() != "TLSv1.3" or tls.selected_alpn_protocol() != ALPN:
            raise TransportError("the far side does not speak zipnet over TLS 1.3")
        der = tls.getpeercert(binary_form=True)
        if der is None:
            return PeerCertificate(None)
        try:
            key = certificate_public_key(der)
        except VerificationError as error:
            raise TransportError(f"the far side's {error}") from error
        registered = self._registered.get(key)
        if registered is not None and self._also.get(key) == der:
            return PeerCertificate(key)
        if registered is None and tls.server_side:
            raise TransportError("the far side's certificate is not registered")
        if registered is not None and registered != der:
            raise TransportError("the far side's certificate differs from the registered one")
        return PeerCertificate(key)

    def register(
        self, registered: Mapping[bytes, bytes], also: Mapping[bytes, bytes] | None = None
    ) -> None:
        """Take other certificates for the registered ones; standing connections are left alone.

        Args:
            registered: As for the class.
            also: What those keys had before, good as well until the next call.
        """
        if self._certificate is None:
            return  # rule 4
        self._registered, self._also = dict(registered), dict(also or {})
        for context in self._listening:  # an anchor too many is refused by rule 2 all the same
            context.load_verify_locations(cadata=self._anchors())

    def _anchors(self) -> bytes:
        return b"".join({*self._registered.values(), *self._also.values()})

    def present(self, certificate: NodeCertificate) -> None:
        """Show another certificate from the next handshake on."""
        self._certificate = certificate
        for context in self._listening:
            load_into(context, certificate)

    def _reader(self) -> asyncio.StreamReader:
        # asyncio stops reading from the socket at twice this limit.
        return asyncio.StreamReader(
            limit=max(self._limits.max_queued_bytes // 2, 1), loop=asyncio.get_running_loop()
        )

    def _framed(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: PeerCertificate
    ) -> FramedConnection:
        stream = _TlsStream(reader, writer, peer=peer, local=self._local, limits=self._limits)
        return FramedConnection(stream, self._limits)

    def _client_context(self, expected_key: bytes) -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_CLIENT, self._certificate)
        known = {self._registered.get(expected_key), self._also.get(expected_key)} - {None}
        if known:
            context.load_verify_locations(cadata=b"".join(filter(None, known)))
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _server_context(self) -> ssl.SSLContext:
        if self._certificate is None:
            raise ConfigError("a transport without a certificate cannot listen")
        context = _context(ssl.PROTOCOL_TLS_SERVER, self._certificate)
        context.num_tickets = 0
        if self._registered:
            context.load_verify_locations(cadata=self._anchors())
        # Optional: who shows no certificate is let in as nobody in particular (rule 3).
        context.verify_mode = ssl.CERT_OPTIONAL
        self._listening.append(context)
        return context


async def _bind(host: str, port: int) -> socket.socket:
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, number, _, address = found[0]
    listening = socket.socket(family, kind, number)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)  # noqa: FBT003 - positional only
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening

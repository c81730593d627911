"""One QUIC connection as a byte stream with real back-pressure in both directions.

aioquic leaves two holes that this module closes: what is written is buffered without bound, and
flow-control windows grow with what was *received*, so a reader that never reads holds whatever
the peer cares to send. Both repairs touch attributes aioquic does not promise; the conformance
suite of the transport port is what notices when they change.

Rules:

1. One bidirectional stream, number 0, opened by the client with one byte, the stream's version.
   The peer may open no other stream; data on one, or a reset, ends the connection.
2. ``write`` waits while ``max_queued_bytes`` are not yet acknowledged.
3. The receive window follows what was *consumed*: at most ``max_queued_bytes`` are ever held.
4. The client compares the server's certificate key with the expected one when the handshake
   completes, before the stream is opened. aioquic itself checks CertificateVerify, so the server
   holds that key; the certificate's names and dates prove nothing and are not looked at.
5. Datagrams that came in one burst are answered together.
6. Closing ends the stream first and waits for acknowledgement, so that what was sent arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.connection import MAX_STREAM_DATA_FRAME_CAPACITY
from aioquic.quic.packet import QuicFrameType
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from zipnet.errors import TransportError
from zipnet.ports import PeerCertificate
from zipnet.wire.frames import CloseCode

if TYPE_CHECKING:
    from aioquic.quic.connection import Limit, NetworkAddress, QuicConnection
    from aioquic.quic.packet_builder import QuicPacketBuilder
    from aioquic.quic.recovery import QuicPacketSpace
    from aioquic.quic.stream import QuicStream

    from zipnet.wire.limits import Limits

__all__ = ["UNLIMITED_DATA", "QuicByteStream"]

UNLIMITED_DATA = 1 << 60
"""Connection-wide window: the one stream's own window is what bounds the connection (rule 3)."""

_STREAM = 0
_STREAM_VERSION = b"\x01"
_WINDOW_STEPS = 4
_MAX_REASON_BYTES = 100


class QuicByteStream(QuicConnectionProtocol):
    """A :class:`~zipnet.transport.link.ByteStream` that is also aioquic's protocol object.

    Args:
        quic: The connection's engine.
        limits: Bounds of this connection.
        local_key: Certificate key this side shows; None on the client side.
        expected_key: Certificate key the far side must show; None on the server side.
        on_open: Called once, when the stream is open and may be read and written.
        on_end: Called once, when the connection's last timer is gone.
    """

    def __init__(
        self,
        quic: QuicConnection,
        *,
        limits: Limits,
        local_key: bytes | None,
        expected_key: bytes | None,
        on_open: Callable[[QuicByteStream], None] = lambda _: None,
        on_end: Callable[[QuicByteStream], None] = lambda _: None,
    ) -> None:
        super().__init__(quic)
        self._limits = limits
        self._expected_key = expected_key
        self._on_open = on_open
        self._on_end = on_end
        self.peer_certificate = PeerCertificate(expected_key)
        self.local_certificate = PeerCertificate(local_key)
        self._received = bytearray()
        self._consumed = 0
        self._open = False  # the handshake is over and the stream may be used
        self._finished = False  # the far side ended its half
        self._ended: TransportError | None = None
        self._readable = asyncio.Event()
        self._room = asyncio.Event()
        self._terminated = asyncio.Event()
        self._shutting_down = asyncio.Lock()
        self._govern(quic)
        self._deadline = self._arm_deadline() if expected_key is None else None

    @property
    def opened(self) -> bool:
        """Whether the handshake is over and the stream open."""
        return self._open

    @property
    def remote_address(self) -> str:
        """``host:port`` the peer sends from now; it may move."""
        peer = self._quic.get_peer_address()
        return f"{peer[0]}:{peer[1]}" if peer else "unknown"

    def _arm_deadline(self) -> asyncio.TimerHandle:
        """The server's deadline; a client's is its ``connect``'s, which also covers the look-up."""
        return asyncio.get_running_loop().call_later(
            self._limits.handshake_deadline_s,
            self._refuse,
            CloseCode.HANDSHAKE_DEADLINE,
            "the handshake took too long",
        )

    def _disarm_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    # --- aioquic's bounds, replaced ----------------------------------------------------------

    def _govern(self, quic: QuicConnection) -> None:
        is_client = self._expected_key is not None
        _cap_streams(quic._local_max_streams_bidi, 0 if is_client else 1)  # noqa: SLF001
        _cap_streams(quic._local_max_streams_uni, 0)  # noqa: SLF001
        # Shadows the method of the engine for this connection.
        quic._write_stream_limits = self._write_stream_limits  # type: ignore[method-assign] # noqa: SLF001

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        """Grant the peer as much as was consumed, in steps, in place of doubling (rule 3)."""
        del space
        if self._grant_is_due(stream):
            stream.max_stream_data_local = self._consumed + self._limits.max_queued_bytes
        if stream.max_stream_data_local_sent == stream.max_stream_data_local:
            return
        buffer = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
            handler=self._quic._on_max_stream_data_delivery,  # noqa: SLF001
            handler_args=(stream,),
        )
        buffer.push_uint_var(stream.stream_id or _STREAM)
        buffer.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local

    def _grant_is_due(self, stream: QuicStream) -> bool:
        window = self._limits.max_queued_bytes
        return self._consumed + window - stream.max_stream_data_local >= window // _WINDOW_STEPS

    def _unacknowledged(self) -> int:
        stream = self._quic._streams.get(_STREAM)  # noqa: SLF001
        return len(stream.sender._buffer) if stream is not None else 0  # noqa: SLF001

    def _delivered(self) -> bool:
        """Whether the far side acknowledged everything, the end of the stream included."""
        stream = self._quic._streams.get(_STREAM)  # noqa: SLF001
        return stream is None or stream.sender.is_finished

    # --- events -------------------------------------------------------------------------------

    def datagram_received(self, data: bytes | str, addr: NetworkAddress) -> None:
        """Take a datagram; notice a close at once, not after aioquic's draining period.

        Once the stream is open the answer waits for the end of the burst that is being read, so
        that one acknowledgement speaks for all of it.
        """
        if self._open:
            self._quic.receive_datagram(_plain(data), addr, now=self._loop.time())
            self._process_events()
            self._transmit_soon()
        else:
            super().datagram_received(data, addr)
        closing = self._quic._close_event  # noqa: SLF001
        if closing is not None and self._ended is None:
            self._end(f"the peer closed the connection with code {closing.error_code}")

    def error_received(self, exc: Exception) -> None:
        """Fail a connection attempt nobody listens for; afterwards, let QUIC's timers judge."""
        if not self._open:
            self._end(f"nobody answers there: {exc}")

    def transmit(self) -> None:
        """Send what is due, then let a waiting writer look again."""
        if self._terminated.is_set():
            return  # the socket may be gone
        super().transmit()
        self._room.set()

    def quic_event_received(self, event: events.QuicEvent) -> None:
        """Turn aioquic's events into the state of the one stream."""
        match event:
            case events.HandshakeCompleted() if self._expected_key is not None:
                self._open_as_client(self._expected_key)
            case events.StreamDataReceived(stream_id=stream) if stream == _STREAM:
                self._take(event.data, ended=event.end_stream)
            case events.StreamDataReceived() | events.StreamReset() | events.StopSendingReceived():
                self._refuse(CloseCode.PROTOCOL, "only one stream, and no resets")
            case events.ConnectionTerminated():
                self._end(event.reason_phrase or f"ended with code {event.error_code}")
                self.drop()
            case _:
                pass

    def _open_as_client(self, expected_key: bytes) -> None:
        if self._server_key() != expected_key:
            self._refuse(CloseCode.REFUSED, "the far side holds another key than the expected one")
            return
        self._quic.send_stream_data(_STREAM, _STREAM_VERSION)
        self._mark_open()

    def _server_key(self) -> bytes | None:
        certificate = self._quic.tls._peer_certificate  # noqa: SLF001
        key = certificate.public_key() if certificate is not None else None
        return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None

    def _take(self, data: bytes, *, ended: bool) -> None:
        if self._ended is not None:
            return
        if not self._open and data:
            if data[:1] != _STREAM_VERSION:
                self._refuse(CloseCode.FRAME_VERSION, "unknown stream version")
                return
            data = data[1:]
            self._consumed += 1
            self._mark_open()
        self._received += data
        self._finished = self._finished or ended
        self._wake()

    def _mark_open(self) -> None:
        self._open = True
        self._disarm_deadline()
        self._wake()
        self._on_open(self)

    def _refuse(self, code: CloseCode, why: str) -> None:
        self._end(why)
        self.close(error_code=code, reason_phrase=why)

    def _end(self, why: str) -> None:
        if self._ended is None:
            self._ended = TransportError(why)
        self._disarm_deadline()
        self._wake()

    def _wake(self) -> None:
        self._readable.set()
        self._room.set()

    # --- the byte stream ----------------------------------------------------------------------

    async def wait_open(self) -> None:
        """Wait until the stream is open. Raises TransportError when the connection ended first."""
        while not self._open:
            self._check()
            self._readable.clear()
            await self._readable.wait()

    async def read(self) -> bytes:
        """Return 1 to ``chunk_bytes`` bytes, ``b""`` at the end of the stream."""
        while not self._received:
            if self._finished:
                return b""
            self._check()
            self._readable.clear()
            await self._readable.wait()
        data = bytes(self._received[: self._limits.chunk_bytes])
        del self._received[: len(data)]
        self._consumed += len(data)
        stream = self._quic._streams.get(_STREAM)  # noqa: SLF001
        if stream is not None and self._grant_is_due(stream):
            self._transmit_soon()
        return data

    async def write(self, data: bytes | memoryview) -> None:
        """Wait until fewer than ``max_queued_bytes`` are unacknowledged, then take the bytes."""
        while self._writable() and self._unacknowledged() >= self._limits.max_queued_bytes:
            self._room.clear()
            await self._room.wait()
        self._check()
        if self._finished:
            raise TransportError("the peer ended the stream")
        self._quic.send_stream_data(_STREAM, bytes(data))
        self._transmit_soon()

    def _writable(self) -> bool:
        return self._ended is None and not self._finished

    def _check(self) -> None:
        if self._ended is not None:
            raise TransportError(str(self._ended))

    async def shut_down(self, code: int, reason: str, *, flush: bool) -> None:
        """Flush if asked, close with a code, wait for aioquic's closing period; all bounded."""
        async with self._shutting_down:
            try:
                if flush and self._open and self._ended is None:
                    await self._flush()
                self._end("the link is closed")
                self.close(error_code=code, reason_phrase=_short(reason))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.close_deadline_s):
                        await self._terminated.wait()
            finally:  # also when the waiting is cancelled: the socket must not outlive the link
                self.drop()

    async def _flush(self) -> None:
        self._quic.send_stream_data(_STREAM, b"", end_stream=True)
        self.transmit()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.close_deadline_s):
                while self._ended is None and not self._delivered():
                    self._room.clear()
                    await self._room.wait()

    def abort(self) -> None:
        """Say so to the peer, if one was ever dialled, and let the socket go; never waits."""
        self._end("the link was cut")
        if self._quic.get_peer_address() is not None:
            self.close(error_code=CloseCode.NORMAL)
        self.drop()

    def drop(self) -> None:
        """Stop all timers and, on the client side, close the socket. Nothing is sent."""
        self._end("the link is closed")
        if self._terminated.is_set():
            return
        self._terminated.set()
        self._on_end(self)
        for pending in (self._timer, self._transmit_task):
            if pending is not None:
                pending.cancel()
        self._timer = self._transmit_task = None
        if self._expected_key is not None and self._transport is not None:
            self._transport.close()


def _plain(data: bytes | str) -> bytes:
    assert isinstance(data, bytes)  # a socket gives nothing else
    return data


def _cap_streams(limit: Limit, count: int) -> None:
    limit.value = limit.sent = count


def _short(reason: str) -> str:
    """A reason that fits a packet with room to spare."""
    return reason.encode("utf-8", "replace")[:_MAX_REASON_BYTES].decode("utf-8", "ignore")

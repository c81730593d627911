"""Framing on top of any engine, so that all adapters accept and refuse exactly the same bytes.

An engine offers a :class:`ByteStream`; :class:`FramedConnection` turns it into the port's
``Connection``. The split keeps what is judged (frames, deadlines, close codes) in one place and
what differs (how bytes move) in ``tls`` and ``quic``.

Rules:

1. ``send`` is one frame at a time and waits while the engine's bounded buffer is full. A frame
   that misses its deadline, or whose sender is cancelled half-way, ends the link, since half a
   frame cannot be taken back.
2. ``receive`` holds at most one incomplete frame and the chunk it came in. A frame that has begun
   arrives at ``min_bytes_per_s`` or faster, after a grace; time this side did not read is not
   counted.
3. A peer's ``CLOSE`` frame ends the link like an end of stream does, with the peer's words.
4. ``close`` never takes longer than ``close_deadline_s`` plus the engine's own bounded shutdown.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from zipnet.errors import (
    PeerClosedError,
    RemoteProtocolError,
    SlowPeerError,
    TransportError,
    ZipnetError,
)
from zipnet.wire.frames import (
    CloseCode,
    Frame,
    FrameDecoder,
    SessionKind,
    decode_close,
    encode_close,
    encode_frame_header,
)

if TYPE_CHECKING:
    from zipnet.ports import Connection, PeerCertificate
    from zipnet.wire.limits import Limits

__all__ = ["ByteStream", "FramedConnection", "run_handler"]


class ByteStream(Protocol):
    """One encrypted, ordered, bidirectional stream of bytes, as an engine offers it.

    Every method raises :class:`~zipnet.errors.TransportError` when the link is gone; ``write``
    waits until the engine's bounded buffer has room and then takes all bytes at once, so that a
    ``write`` that was cancelled took none; ``read`` returns 1 to ``chunk_bytes`` bytes, or
    ``b""`` at the end of the stream.
    """

    @property
    def peer_certificate(self) -> PeerCertificate:
        """What the engine proved about the other side."""
        ...

    @property
    def local_certificate(self) -> PeerCertificate:
        """What this side proved to the other."""
        ...

    @property
    def remote_address(self) -> str:
        """``host:port`` of the peer."""
        ...

    async def read(self) -> bytes:
        """Wait for the next bytes."""
        ...

    async def write(self, data: bytes | memoryview) -> None:
        """Wait for room, then take all of ``data``."""
        ...

    async def shut_down(self, code: int, reason: str, *, flush: bool) -> None:
        """Flush if asked and still possible, then end the stream; idempotent, bounded in time."""
        ...

    def abort(self) -> None:
        """End the stream now, without waiting for anything."""
        ...


class FramedConnection:
    """A :class:`zipnet.ports.Connection` over any :class:`ByteStream`."""

    def __init__(self, stream: ByteStream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._decoder = FrameDecoder(limits)
        self._ready: deque[Frame] = deque()
        self._send_lock = asyncio.Lock()
        self._ended: TransportError | None = None
        self._closed = asyncio.Event()
        self._frame_took_s = 0.0  # of the frame that is arriving, and its bytes so far
        self._frame_bytes = 0

    @property
    def peer_certificate(self) -> PeerCertificate:
        """What the engine proved about the other side."""
        return self._stream.peer_certificate

    @property
    def local_certificate(self) -> PeerCertificate:
        """What this side proved to the other on this connection."""
        return self._stream.local_certificate

    @property
    def remote_address(self) -> str:
        """``host:port`` of the peer, for refusal logs only."""
        return self._stream.remote_address

    async def send(self, frame: Frame) -> None:
        """Send one frame; waits while the peer is slow.

        Raises:
            LocalProtocolError: When the frame breaks a rule; nothing was sent.
            TransportError: When the link is gone or ``send_deadline_s`` passed.
        """
        header = encode_frame_header(frame, self._limits)
        try:
            async with asyncio.timeout(self._limits.send_deadline_s):
                async with self._send_lock:
                    await self._write_frame(header, frame.payload)
        except TimeoutError as error:
            self._end("the peer took a frame too slowly")
            raise TransportError("the peer took a frame too slowly") from error

    async def _write_frame(self, header: bytes, payload: bytes) -> None:
        if self._ended is not None:
            raise TransportError(str(self._ended))
        chunk = self._limits.chunk_bytes
        first = chunk - len(header)
        view = memoryview(payload)
        await self._stream.write(header + payload[:first])
        try:
            for start in range(first, len(payload), chunk):
                await self._stream.write(view[start : start + chunk])
        except asyncio.CancelledError:
            self._end("a frame was given up half-way")
            raise

    async def receive(self) -> Frame:
        """Return the next frame.

        Raises:
            SlowPeerError: After ``idle_timeout_s`` of silence, or when a frame arrives too slowly.
            TransportError: At the end of the stream, or when the peer closed the link with a code.
            RemoteProtocolError: When the bytes are no frame; the caller closes with its code.
        """
        while not self._ready:
            if self._ended is not None:
                raise TransportError(str(self._ended))
            self._ready.extend(await self._next_frames())
        frame = self._ready.popleft()
        if frame.kind == SessionKind.CLOSE:
            code, reason = decode_close(frame.payload)
            text = f"the peer closed the link with code {code}: {reason or 'no reason given'}"
            self._end(text)
            raise PeerClosedError(text, said=reason)
        return frame

    async def _next_frames(self) -> list[Frame]:
        self._decoder.feed(b"")  # an error behind frames already handed out is due now
        within_s, why = self._limits.idle_timeout_s, "the peer was silent for too long"
        if self._decoder.mid_frame:
            left_s = self._frame_time_left_s()
            if left_s < within_s:
                within_s, why = left_s, "the peer sends a frame too slowly"
        began = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                chunk = await self._stream.read()
        except TimeoutError as error:
            self._end(why)
            raise SlowPeerError(why) from error
        if not chunk:
            cut = " in the middle of a frame" if self._decoder.mid_frame else ""
            raise TransportError(f"the peer ended the stream{cut}")
        frames = self._decoder.feed(chunk)
        self._note_arrival(len(chunk), time.monotonic() - began, anew=bool(frames))
        return frames

    def _frame_time_left_s(self) -> float:
        """Seconds the peer has for its next bytes, as it must keep up a rate (rule 2)."""
        due_s = self._limits.slow_grace_s + self._frame_bytes / self._limits.min_bytes_per_s
        return max(0.0, due_s - self._frame_took_s)

    def _note_arrival(self, count: int, took_s: float, *, anew: bool) -> None:
        """Count bytes and waiting for the frame that is arriving; a new one starts from nothing."""
        if anew or not self._decoder.mid_frame or not self._frame_bytes:
            self._frame_bytes, self._frame_took_s = count, 0.0
        else:
            self._frame_bytes += count
            self._frame_took_s += took_s
        if not self._decoder.mid_frame:
            self._frame_bytes = 0

    def _end(self, why: str) -> None:
        if self._ended is None:
            self._ended = TransportError(why)
        self._ready.clear()
        self._stream.abort()

    async def close(self, *, code: int = 0, reason: str = "") -> None:
        """Flush, tell the peer the code when there is one, end the link; idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        alive = self._ended is None
        if alive:
            try:
                alive = await self._say_goodbye(code, reason)
            except asyncio.CancelledError:  # there is no second close: the socket goes now
                self._end("the link was closed in haste")
                raise
        if self._ended is None:
            self._ended = TransportError("the link is closed")
        await self._stream.shut_down(code, reason, flush=alive)

    async def _say_goodbye(self, code: int, reason: str) -> bool:
        """Whether everything sent so far, and the code, reached the engine in time."""
        try:
            async with asyncio.timeout(self._limits.close_deadline_s):
                async with self._send_lock:
                    if code != CloseCode.NORMAL:
                        goodbye = Frame(SessionKind.CLOSE, 0, encode_close(code, reason))
                        header = encode_frame_header(goodbye, self._limits)
                        await self._stream.write(header + goodbye.payload)
        except (TimeoutError, TransportError):
            return False
        return True


async def run_handler(
    connection: FramedConnection, handler: Callable[[Connection], Awaitable[None]]
) -> None:
    """Run a listener's handler for one connection and close the connection whatever happens.

    What ends one connection must not end the others: peers' faults (``ZipnetError``) stay here,
    anything else is a bug and goes to the loop's exception handler, as asyncio's own do.
    """
    code, reason = int(CloseCode.NORMAL), ""
    try:
        await handler(connection)
    except RemoteProtocolError as error:
        code, reason = error.code, str(error)
    except ZipnetError:
        pass  # the handler's own business; it logs what it wants known
    except Exception as error:  # noqa: BLE001 - the listener supervises its handlers
        asyncio.get_running_loop().call_exception_handler(
            {"message": "connection handler failed", "exception": error}
        )
    finally:
        await connection.close(code=code, reason=reason)

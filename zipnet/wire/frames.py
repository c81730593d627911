"""Frames: the only unit that crosses a link, the same over every transport.

Layout of a frame, all numbers big-endian, version first::

    u8 version = 1 | u8 flags | u16 kind | u32 request_id | u32 length | payload (length bytes)

Rules:

1. A header is judged as soon as its twelve bytes are there, before any payload is buffered:
   wrong version, unknown flag or a length above the cap ends the link with a numbered code.
2. ``request_id`` 0 is a push: nobody answers it. Any other number asks for exactly one frame
   with the same number and the flag ``RESPONSE``.
3. Kinds 1 to 15 belong to the session layer (:class:`SessionKind`); all others are named in
   ``zipnet.wire.messages``. Kind 0 is never valid.
4. Any bytes end in frames or in :class:`~zipnet.errors.RemoteProtocolError`. After an error the
   decoder is dead: it raises that error for whatever follows.

The transports (``zipnet.transport``) move these bytes; requests and answers are matched in
``zipnet.transport.session``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum

from zipnet.errors import LocalProtocolError, RemoteProtocolError
from zipnet.wire.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "FRAME_HEADER_BYTES",
    "FRAME_VERSION",
    "MAX_REQUEST_ID",
    "CloseCode",
    "Frame",
    "FrameDecoder",
    "SessionKind",
    "decode_close",
    "encode_close",
    "encode_frame",
    "encode_frame_header",
]

FRAME_VERSION = 1
FRAME_HEADER_BYTES = 12
MAX_REQUEST_ID = 0xFFFFFFFF

_HEADER = struct.Struct("!BBHII")
_FLAG_RESPONSE = 0x01
_MAX_KIND = 0xFFFF
_CLOSE_CODE_BYTES = 2
_MAX_CLOSE_REASON_BYTES = 200


class CloseCode(IntEnum):
    """Why a link ends; travels in a ``CLOSE`` frame, and as QUIC's application error code."""

    NORMAL = 0
    PROTOCOL = 1
    FRAME_VERSION = 2
    FRAME_FLAGS = 3
    FRAME_KIND = 4
    FRAME_TOO_LARGE = 5
    UNEXPECTED_FRAME = 6
    HANDSHAKE_DEADLINE = 7
    REFUSED = 8
    IDLE = 9
    OVERLOADED = 10


class SessionKind(IntEnum):
    """Frame kinds of the session layer; 1 to 15 are kept for it."""

    CLOSE = 1
    PING = 2
    REFUSAL = 3
    HELLO = 4
    HELLO_REPLY = 5
    PROOF = 6
    WELCOME = 7
    ATTEST = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        kind: What the payload is, 1 to 65535.
        request_id: 0 for a push, else the number that pairs request and response.
        payload: Opaque bytes, at most ``Limits.max_frame_bytes``; never shown by ``repr``.
        response: Whether this frame answers the request of the same number.
    """

    kind: int
    request_id: int
    payload: bytes = field(repr=False)
    response: bool = field(default=False, kw_only=True)

    def answer(self, kind: int, payload: bytes) -> Frame:
        """Return the response to this request."""
        return Frame(kind, self.request_id, payload, response=True)


def encode_frame_header(frame: Frame, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return the 12 header bytes of a frame; the payload follows them on the wire as it is.

    Raises:
        LocalProtocolError: When the frame breaks a rule the far side would close the link for.
    """
    if not 1 <= frame.kind <= _MAX_KIND:
        raise LocalProtocolError(f"frame kind {frame.kind} is not within 1 to 65535")
    if not 0 <= frame.request_id <= MAX_REQUEST_ID:
        raise LocalProtocolError("frame request id does not fit 32 bits")
    if frame.response and frame.request_id == 0:
        raise LocalProtocolError("a response needs the number of its request")
    if len(frame.payload) > limits.max_frame_bytes:
        raise LocalProtocolError(
            f"frame payload of {len(frame.payload)} bytes is above the cap"
            f" of {limits.max_frame_bytes}"
        )
    flags = _FLAG_RESPONSE if frame.response else 0
    return _HEADER.pack(FRAME_VERSION, flags, frame.kind, frame.request_id, len(frame.payload))


def encode_frame(frame: Frame, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return header and payload as one byte string; raises as ``encode_frame_header`` does."""
    return encode_frame_header(frame, limits) + frame.payload


class FrameDecoder:
    """Turns a byte stream into frames, piece by piece, within fixed memory.

    Never holds more than one incomplete frame: at most header plus ``max_frame_bytes``.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._header = bytearray()
        self._payload = bytearray()
        self._missing = 0
        self._pending: Frame | None = None  # header seen, payload still empty
        self._error: RemoteProtocolError | None = None

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the incomplete frame held now."""
        return len(self._header) + len(self._payload)

    @property
    def mid_frame(self) -> bool:
        """Whether the stream would be cut inside a frame if it ended here."""
        return self._pending is not None or bool(self._header)

    def feed(self, chunk: bytes | bytearray | memoryview) -> list[Frame]:
        """Take the next bytes of the stream and return the frames they complete, in order.

        Frames complete before the first bad byte are returned; the error is then raised by the
        next call (``feed(b"")`` asks for it), so the outcome never depends on how the stream was
        cut into chunks.

        Raises:
            RemoteProtocolError: When the stream broke a rule; ``code`` is a :class:`CloseCode`.
        """
        frames: list[Frame] = []
        if self._error is None:
            try:
                self._feed(memoryview(chunk).cast("B"), frames)
            except RemoteProtocolError as error:
                self._error = error
                self._header.clear()
        if self._error is not None and not frames:
            raise RemoteProtocolError(str(self._error), code=self._error.code)
        return frames

    def _feed(self, view: memoryview, frames: list[Frame]) -> None:
        position = 0
        while position < len(view):
            if self._pending is None:
                position += self._take_header(view[position:])
            else:
                position += self._take_payload(view[position:])
            if self._pending is not None and self._missing == 0:
                frames.append(self._complete(self._pending))

    def _take_header(self, view: memoryview) -> int:
        taken = min(FRAME_HEADER_BYTES - len(self._header), len(view))
        self._header += view[:taken]
        if len(self._header) == FRAME_HEADER_BYTES:
            self._pending = self._judge_header()
            self._header.clear()
        return taken

    def _judge_header(self) -> Frame:
        version, flags, kind, request_id, length = _HEADER.unpack(self._header)
        if version != FRAME_VERSION:
            raise RemoteProtocolError(
                f"frame version {version} is not {FRAME_VERSION}", code=CloseCode.FRAME_VERSION
            )
        if flags & ~_FLAG_RESPONSE or (flags and request_id == 0):
            raise RemoteProtocolError(
                f"frame flags {flags:#04x} are not allowed here", code=CloseCode.FRAME_FLAGS
            )
        if kind == 0:
            raise RemoteProtocolError("frame kind 0 is not valid", code=CloseCode.FRAME_KIND)
        if length > self._limits.max_frame_bytes:
            raise RemoteProtocolError(
                f"frame of {length} bytes is above the cap of {self._limits.max_frame_bytes}",
                code=CloseCode.FRAME_TOO_LARGE,
            )
        self._missing = length
        return Frame(kind, request_id, b"", response=bool(flags))

    def _take_payload(self, view: memoryview) -> int:
        taken = min(self._missing, len(view))
        self._payload += view[:taken]
        self._missing -= taken
        return taken

    def _complete(self, pending: Frame) -> Frame:
        payload = bytes(self._payload)
        self._payload.clear()
        self._pending = None
        return Frame(pending.kind, pending.request_id, payload, response=pending.response)


def encode_close(code: int, reason: str) -> bytes:
    """Return the payload of a ``CLOSE`` frame: u16 code and up to 200 bytes of UTF-8 reason."""
    text = reason.encode("utf-8", "replace")[:_MAX_CLOSE_REASON_BYTES]
    return struct.pack("!H", min(max(code, 0), 0xFFFF)) + text


def decode_close(payload: bytes) -> tuple[int, str]:
    """Return code and printable reason of a ``CLOSE`` frame.

    Raises:
        RemoteProtocolError: When the payload is too short or too long.
    """
    if not 0 <= len(payload) - _CLOSE_CODE_BYTES <= _MAX_CLOSE_REASON_BYTES:
        raise RemoteProtocolError("close frame has a wrong length")
    text = payload[_CLOSE_CODE_BYTES:].decode("utf-8", "replace")
    return int.from_bytes(payload[:_CLOSE_CODE_BYTES], "big"), "".join(
        c for c in text if c.isprintable()
    )

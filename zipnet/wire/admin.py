"""What is said over a node's admin socket: one request, one reply, each with its length in front.

``length u32 ‖ msgpack``, both sides strict: unknown fields, wrong types and oversize values end in
:class:`~zipnet.errors.RemoteProtocolError`.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from zipnet.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "LENGTH_BYTES",
    "MAX_EXPORT_BYTES",
    "MAX_REPLY_BYTES",
    "MAX_REQUEST_BYTES",
    "AdminReply",
    "AdminRequest",
    "decode_reply",
    "decode_request",
    "encode_reply",
    "encode_request",
    "length_of",
]

LENGTH_BYTES: Final = 4
MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_EXPORT_BYTES: Final = 512 * 1024
MAX_REPLY_BYTES: Final = 1024 * 1024

_Word = Annotated[str, Meta(min_length=1, max_length=64)]
_Token = Annotated[bytes, Meta(min_length=1, max_length=4096)]
_Text = Annotated[str, Meta(max_length=1024)]


class AdminRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One call.

    Attributes:
        verb: What to do.
        option: A word that says more: which key to rotate, what to export; empty where none is due.
        offset: Where an export goes on.
        statement: A signed revocation; empty where none is due.
        tokens: Capabilities of whoever asks; two operators' for what destroys.
    """

    verb: _Word
    option: Annotated[str, Meta(max_length=64)] = ""
    offset: Annotated[int, Meta(ge=0, le=(1 << 62))] = 0
    statement: Annotated[bytes, Meta(max_length=4096)] = b""
    tokens: Annotated[list[_Token], Meta(max_length=4)] = []

    def __repr__(self) -> str:
        """Show the verb only: tokens are in here."""
        return f"AdminRequest({self.verb!r})"


class AdminReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What became of a call.

    Attributes:
        ok: Whether it was done.
        code: ``done``, or the stable reason it was refused for.
        text: The same for a person, in one line.
        facts: Answers, by name.
        data: Bytes of an export; empty at its end.
    """

    ok: bool
    code: _Word
    text: _Text = ""
    facts: dict[_Word, _Text] = {}
    data: Annotated[bytes, Meta(max_length=MAX_EXPORT_BYTES)] = b""


_ENCODER = msgspec.msgpack.Encoder()
_REQUEST = msgspec.msgpack.Decoder(AdminRequest, strict=True)
_REPLY = msgspec.msgpack.Decoder(AdminReply, strict=True)


def encode_request(request: AdminRequest) -> bytes:
    """Return a request with its length in front.

    Raises:
        LocalProtocolError: When it is larger than :data:`MAX_REQUEST_BYTES`.
    """
    return _framed(_ENCODER.encode(request), MAX_REQUEST_BYTES)


def encode_reply(reply: AdminReply) -> bytes:
    """Return a reply with its length in front.

    Raises:
        LocalProtocolError: When it is larger than :data:`MAX_REPLY_BYTES`.
    """
    return _framed(_ENCODER.encode(reply), MAX_REPLY_BYTES)


def length_of(head: bytes, limit: int) -> int:
    """Return the length that four bytes announce.

    Raises:
        RemoteProtocolError: When it is 0 or above ``limit``.
    """
    length = int.from_bytes(head, "big")
    if not 0 < length <= limit:
        raise RemoteProtocolError("an impossible length on the admin socket")
    return length


def decode_request(payload: bytes) -> AdminRequest:
    """Parse a request without its length.

    Raises:
        RemoteProtocolError: When the bytes are no request.
    """
    try:
        return _REQUEST.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RemoteProtocolError("not an admin request") from error


def decode_reply(payload: bytes) -> AdminReply:
    """Parse a reply without its length.

    Raises:
        RemoteProtocolError: When the bytes are no reply.
    """
    try:
        return _REPLY.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RemoteProtocolError("not an admin reply") from error


def _framed(payload: bytes, limit: int) -> bytes:
    if len(payload) > limit:
        raise LocalProtocolError("too large for the admin socket")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload

"""The messages of a quote generation service (QGS): what a quote is asked for with.

A message is a big-endian u32 length, then little-endian: u16 major · u16 minor · u32 type · u32
size · u32 error; a request (type 0) goes on with u32 report size · u32 id list size · report, a
response (type 1) with u32 id size · u32 quote size · id · quote.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tdx.errors import Check, QuoteError
from tdx.quote.parse import MAX_QUOTE_BYTES
from tdx.quote.tdreport import TDREPORT_BYTES

__all__ = [
    "MAX_MESSAGE_BYTES",
    "QgsMessage",
    "decode_message",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
]

MAX_MESSAGE_BYTES = 64 * 1024
_REQUEST = 0
_RESPONSE = 1
_HEADER = struct.Struct("<HHIII")
_SIZES = struct.Struct("<II")
_MAJOR = 1


@dataclass(frozen=True, slots=True)
class QgsMessage:
    """Hold one message.

    Attributes:
        kind: 0 request, 1 response.
        error: The service's error code, 0 for none.
        body: What follows the header.
    """

    kind: int
    error: int
    body: bytes


def encode_request(report: bytes) -> bytes:
    """Encode a request for a quote over a TDREPORT, with its length prefix."""
    return _encode(_REQUEST, _SIZES.pack(len(report), 0) + report)


def encode_response(quote: bytes, *, error: int = 0) -> bytes:
    """Encode a response, with its length prefix: a quote, or an error code and nothing else."""
    return _encode(_RESPONSE, _SIZES.pack(0, len(quote)) + quote, error)


def decode_message(data: bytes) -> QgsMessage:
    """Decode a message without its length prefix.

    Raises:
        QuoteError: ``structure``: the header is not that of a message of version 1.
    """
    if len(data) < _HEADER.size:
        raise QuoteError(Check.STRUCTURE, "a QGS message has a header", value=len(data))
    major, _, kind, size, error = _HEADER.unpack_from(data)
    if major != _MAJOR or size != len(data):
        raise QuoteError(Check.STRUCTURE, "a QGS message has version 1 and its size", value=size)
    return QgsMessage(kind, error, data[_HEADER.size :])


def decode_request(message: QgsMessage) -> bytes:
    """Return the TDREPORT of a request.

    Raises:
        QuoteError: ``structure``: it is no request, or not of one TDREPORT.
    """
    first, second = _sizes(message, _REQUEST)
    report = message.body[_SIZES.size : _SIZES.size + first]
    if len(message.body) != _SIZES.size + first + second or len(report) != TDREPORT_BYTES:
        raise QuoteError(Check.STRUCTURE, "a request holds one TDREPORT", value=first)
    return report


def decode_response(message: QgsMessage) -> bytes:
    """Return the quote of a response; its error code is the caller's to look at first.

    Raises:
        QuoteError: ``structure``: it is no response, or not of one quote.
    """
    first, second = _sizes(message, _RESPONSE)
    if len(message.body) != _SIZES.size + first + second or second > MAX_QUOTE_BYTES:
        raise QuoteError(Check.STRUCTURE, "a response holds one quote", value=second)
    return message.body[_SIZES.size + first :]


def _sizes(message: QgsMessage, kind: int) -> tuple[int, int]:
    if message.kind != kind or len(message.body) < _SIZES.size:
        raise QuoteError(Check.STRUCTURE, f"a message of type {kind} has two sizes")
    first, second = _SIZES.unpack_from(message.body)
    return first, second


def _encode(kind: int, body: bytes, error: int = 0) -> bytes:
    size = _HEADER.size + len(body)
    return size.to_bytes(4, "big") + _HEADER.pack(_MAJOR, 0, kind, size, error) + body

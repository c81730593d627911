"""A strict reader of DER's tag-length-value form: what the PCK extension needs, nothing more.

It reads definite, minimal lengths and one-byte tags, never recurses, and leaves no byte unread.
"""

from __future__ import annotations

from tdx.errors import Check, QuoteError

__all__ = ["BOOLEAN", "ENUMERATED", "INTEGER", "OCTETS", "OID", "SEQUENCE", "elements"]

BOOLEAN = 0x01
INTEGER = 0x02
OCTETS = 0x04
OID = 0x06
ENUMERATED = 0x0A
SEQUENCE = 0x30

_LONG = 0x80
_MAX_LENGTH_BYTES = 2
_ONE_BYTE_MAX = 0xFF


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """Split ``data`` into its (tag, value) elements, leaving nothing over.

    Raises:
        QuoteError: ``pck_extension`` for any length that is not minimal, definite and inside.
    """
    out: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        tag, start, end = _read_one(data, at)
        out.append((tag, data[start:end]))
        at = end
    return out


def _read_one(data: bytes, at: int) -> tuple[int, int, int]:
    if at + 2 > len(data):
        raise _refuse("a DER element has tag and length")
    tag, length, start = data[at], data[at + 1], at + 2
    if length >= _LONG:
        count = length - _LONG
        if not 1 <= count <= _MAX_LENGTH_BYTES or start + count > len(data):
            raise _refuse("a DER length is definite and short")
        length = int.from_bytes(data[start : start + count], "big")
        if length < _LONG or (count == _MAX_LENGTH_BYTES and length <= _ONE_BYTE_MAX):
            raise _refuse("a DER length is minimal")
        start += count
    if start + length > len(data):
        raise _refuse("a DER element lies inside its parent")
    return tag, start, start + length


def _refuse(message: str) -> QuoteError:
    return QuoteError(Check.PCK_EXTENSION, message)

"""A strict reader of DER's tag-length-value form: what these checks need, nothing more.

It reads definite, minimal lengths and one-byte tags, never recurses, and leaves no byte unread.
It also cuts signed parts out of certificates and CRLs, so that a signature is verified over the
bytes that came and never over bytes written again.
"""

from __future__ import annotations

from tdx.errors import Check, QuoteError

__all__ = [
    "BOOLEAN",
    "ENUMERATED",
    "INTEGER",
    "OCTETS",
    "OID",
    "SEQUENCE",
    "elements",
    "raw_elements",
]

BOOLEAN = 0x01
INTEGER = 0x02
OCTETS = 0x04
OID = 0x06
ENUMERATED = 0x0A
SEQUENCE = 0x30

_LONG = 0x80
_MAX_LENGTH_BYTES = 3


def elements(data: bytes, check: Check = Check.PCK_EXTENSION) -> list[tuple[int, bytes]]:
    """Split ``data`` into its (tag, value) elements, leaving nothing over.

    Args:
        data: Concatenated DER.
        check: The check that fails.

    Raises:
        QuoteError: ``check`` for any length that is not minimal, definite and inside.
    """
    out: list[tuple[int, bytes]] = []
    at, size = 0, len(data)
    while at < size:
        start = at + 2
        # A short element that lies inside, as nearly all do, is read here; the rest by one reader.
        if start > size or data[at + 1] >= _LONG or (end := start + data[at + 1]) > size:
            start, end = _read_one(data, at, check)
        out.append((data[at], data[start:end]))
        at = end
    return out


def raw_elements(data: bytes, check: Check, *, most: int | None = None) -> list[bytes]:
    """Split the one SEQUENCE in ``data`` into its elements, each with its tag and length.

    Args:
        data: DER of one SEQUENCE and nothing after it.
        check: The check that fails.
        most: How many elements are wanted; those after them are not looked at.

    Raises:
        QuoteError: ``check``.
    """
    at, end = _read_one(data, 0, check)
    if data[0] != SEQUENCE or end != len(data):
        raise QuoteError(check, "the DER is one SEQUENCE")
    out: list[bytes] = []
    while at < end and len(out) != most:
        _, after = _read_one(data, at, check)
        out.append(data[at:after])
        at = after
    return out


def _read_one(data: bytes, at: int, check: Check) -> tuple[int, int]:
    start = at + 2
    if start > len(data):
        raise QuoteError(check, "a DER element has tag and length")
    length = data[at + 1]
    if length >= _LONG:
        count = length - _LONG
        if not 1 <= count <= _MAX_LENGTH_BYTES or start + count > len(data):
            raise QuoteError(check, "a DER length is definite and short")
        length = int.from_bytes(data[start : start + count], "big")
        if length < _LONG or length.bit_length() <= 8 * (count - 1):
            raise QuoteError(check, "a DER length is minimal")
        start += count
    if start + length > len(data):
        raise QuoteError(check, "a DER element lies inside its parent")
    return start, start + length

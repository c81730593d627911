"""The Authenticode hash of a PE image: what firmware measures when it loads an EFI program.

The hash leaves out the checksum, the directory entry of the certificate table and that table
itself, and covers sections in the order of their place in the file (Windows Authenticode Portable
Executable Signature Format).
"""

from __future__ import annotations

import struct
from hashlib import sha384

from tdx.errors import ImageError

__all__ = ["authenticode_sha384"]

_PE32 = 0x10B
_PE32_PLUS = 0x20B
_CHECKSUM = 64
_CERTIFICATE_ENTRY = 4
_SECTION_HEADER_BYTES = 40
_MAX_SECTIONS = 96


def authenticode_sha384(image: bytes, *, pad_to: int = 1) -> bytes:
    """Hash a PE image (48 bytes).

    Args:
        image: The file as it is loaded.
        pad_to: Pad the hashed data with zeros to a multiple of this, where a firmware does so.

    Raises:
        ImageError: The image is no PE file, or refers to bytes outside.
    """
    try:
        return _hash(image, pad_to)
    except struct.error as error:
        raise ImageError("a PE image holds its headers") from error


def _hash(image: bytes, pad_to: int) -> bytes:
    if image[:2] != b"MZ":
        raise ImageError("a PE image starts with MZ", hint="a kernel needs its EFI stub")
    (pe,) = struct.unpack_from("<I", image, 0x3C)
    if image[pe : pe + 4] != b"PE\0\0":
        raise ImageError("a PE image has a PE header")
    (count,) = struct.unpack_from("<H", image, pe + 6)
    (optional_bytes,) = struct.unpack_from("<H", image, pe + 20)
    optional = pe + 24
    (headers_bytes,) = struct.unpack_from("<I", image, optional + 60)
    entry = _certificate_entry(image, optional)
    offset, size = struct.unpack_from("<II", image, entry)
    if not entry + 8 <= headers_bytes <= len(image) or count > _MAX_SECTIONS:
        raise ImageError("a PE image holds its headers")
    state = sha384(image[: optional + _CHECKSUM])
    state.update(image[optional + _CHECKSUM + 4 : entry])
    state.update(image[entry + 8 : headers_bytes])
    hashed = headers_bytes
    for start, length in _sections(image, optional + optional_bytes, count):
        state.update(image[start : start + length])
        hashed += length
    if size and (offset + size > len(image) or hashed + size > len(image)):
        raise ImageError("the certificate table lies inside the image")
    rest = image[hashed : len(image) - size]
    state.update(rest)
    state.update(bytes(-(hashed + len(rest)) % pad_to))
    return state.digest()


def _certificate_entry(image: bytes, optional: int) -> int:
    (magic,) = struct.unpack_from("<H", image, optional)
    if magic not in (_PE32, _PE32_PLUS):
        raise ImageError(f"a PE image is PE32 or PE32+, not {magic:#x}")
    directories = optional + (96 if magic == _PE32 else 112)
    (known,) = struct.unpack_from("<I", image, directories - 4)
    if known <= _CERTIFICATE_ENTRY:
        raise ImageError("a PE image has a certificate table entry")
    return directories + 8 * _CERTIFICATE_ENTRY


def _sections(image: bytes, table: int, count: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in range(count):
        length, start = struct.unpack_from(
            "<II", image, table + number * _SECTION_HEADER_BYTES + 16
        )
        if length and start + length > len(image):
            raise ImageError(f"PE section {number} lies inside the image")
        if length:
            found.append((start, length))
    return sorted(found)

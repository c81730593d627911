"""Read the metadata of a TDVF firmware image: which pages a TD starts with.

The image ends with a table of GUIDs; one entry points, from the end, to a descriptor that lists
sections. Offsets in it refer to the whole image, variables and code. An image of the code alone
carries the same table and would give a plausible, wrong MRTD, so ranges outside the file, and an
image whose end is not the reset vector of a boot volume, are refused. So is an image with a table
but no TDX entry; there is no fall-back to the pointer of older images, which would then be read
from unrelated bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from tdx.errors import ImageError

__all__ = ["PAGE_BYTES", "Section", "SectionType", "parse_tdvf"]

PAGE_BYTES = 4096
MAX_IMAGE_BYTES = 64 * 1024 * 1024
_MAX_MEMORY_BYTES = 256 * 1024 * 1024
_MAX_SECTIONS = 64
_END_OF_4G = 1 << 32
_FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_TDX_METADATA = UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
_TABLE_END = 0x20
_ENTRY_BYTES = 18
_DESCRIPTOR = struct.Struct("<4sIII")
_SECTION = struct.Struct("<IIQQII")
_KNOWN_ATTRIBUTES = 0x3


class SectionType(IntEnum):
    """Name the section types."""

    BFV = 0
    CFV = 1
    TD_HOB = 2
    TEMP_MEM = 3
    PERM_MEM = 4
    PAYLOAD = 5
    PAYLOAD_PARAM = 6


@dataclass(frozen=True, slots=True)
class Section:
    """Hold one section.

    Attributes:
        kind: Its type.
        data: Its bytes in the image, perhaps fewer than ``memory_bytes``.
        address: Guest-physical address, a multiple of 4096.
        memory_bytes: Its size in memory, a multiple of 4096.
        extended: Whether contents enter MRTD (MR.EXTEND).
        augmented: Whether pages are added after launch and so are not measured (PAGE.AUG).
    """

    kind: SectionType
    data: bytes
    address: int
    memory_bytes: int
    extended: bool
    augmented: bool


def parse_tdvf(image: bytes) -> tuple[Section, ...]:
    """Parse the sections of a combined firmware image.

    Raises:
        ImageError: No TDX metadata, or metadata that does not describe this file.
    """
    if len(image) > MAX_IMAGE_BYTES:
        raise ImageError(f"a firmware image is at most {MAX_IMAGE_BYTES} bytes, not {len(image)}")
    start = len(image) - _descriptor_offset(image)
    sections = tuple(_parse_descriptor(image, start))
    _check_reset_vector(image, sections)
    return sections


def _descriptor_offset(image: bytes) -> int:
    footer = len(image) - _TABLE_END - 16
    if footer < _ENTRY_BYTES or image[footer : footer + 16] != _FOOTER:
        raise ImageError(
            "the image does not end with a table of GUIDs", hint="is it an OVMF image?"
        )
    (size,) = struct.unpack_from("<H", image, footer - 2)
    # The table's size counts its footer entry; entries are read from the end towards the start.
    first, at = len(image) - _TABLE_END - size, footer - 2
    if first < 0 or size < _ENTRY_BYTES:
        raise ImageError("the table of GUIDs lies inside the image")
    while at - _ENTRY_BYTES >= first:
        (length,) = struct.unpack_from("<H", image, at - _ENTRY_BYTES)
        if length < _ENTRY_BYTES or at - length < first:
            raise ImageError("an entry of the table of GUIDs lies inside the table")
        if image[at - 16 : at] == _TDX_METADATA:
            if length != _ENTRY_BYTES + 4:
                raise ImageError("the TDX entry of the table has 4 bytes")
            return int.from_bytes(image[at - length : at - length + 4], "little")
        at -= length
    raise ImageError(
        "the image has no TDX metadata", hint="use a build with TDX support, such as OVMF.fd"
    )


def _parse_descriptor(image: bytes, start: int) -> list[Section]:
    if not 0 <= start <= len(image) - _DESCRIPTOR.size:
        raise ImageError("the TDX descriptor lies inside the image")
    signature, length, version, count = _DESCRIPTOR.unpack_from(image, start)
    if (signature, version) != (b"TDVF", 1):
        raise ImageError(f"the TDX descriptor is TDVF version 1, not {signature!r} {version}")
    expected = _DESCRIPTOR.size + count * _SECTION.size
    if not 1 <= count <= _MAX_SECTIONS or length != expected or start + length > len(image):
        raise ImageError(f"the TDX descriptor holds its {count} sections")
    first = start + _DESCRIPTOR.size
    sections = [
        _parse_section(image, first + number * _SECTION.size, number) for number in range(count)
    ]
    if sum(section.memory_bytes for section in sections) > _MAX_MEMORY_BYTES:
        raise ImageError(f"the sections take at most {_MAX_MEMORY_BYTES} bytes of memory")
    return sections


def _parse_section(image: bytes, at: int, number: int) -> Section:
    offset, raw, address, memory, kind, attributes = _SECTION.unpack_from(image, at)
    if offset + raw > len(image):
        raise ImageError(
            f"section {number} reaches to {offset + raw:#x} in an image of {len(image):#x} bytes",
            hint="offsets refer to the combined image; do not measure OVMF_CODE alone",
        )
    if address % PAGE_BYTES or memory % PAGE_BYTES or raw > memory:
        raise ImageError(f"section {number} covers whole pages")
    if attributes & ~_KNOWN_ATTRIBUTES:
        raise ImageError(f"section {number} has unknown attributes {attributes:#x}")
    try:
        known = SectionType(kind)
    except ValueError:
        raise ImageError(f"section {number} has unknown type {kind}") from None
    return Section(
        kind=known,
        data=image[offset : offset + raw],
        address=address,
        memory_bytes=memory,
        extended=bool(attributes & 1),
        augmented=bool(attributes & 2),
    )


def _check_reset_vector(image: bytes, sections: tuple[Section, ...]) -> None:
    for section in sections:
        if section.kind is SectionType.BFV and (
            section.address + section.memory_bytes == _END_OF_4G and image.endswith(section.data)
        ):
            return
    raise ImageError(
        "a boot volume holds the end of the image, where the processor starts",
        hint="measure the combined image",
    )

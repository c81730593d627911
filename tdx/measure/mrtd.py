"""Compute MRTD, the measurement of what a TD starts with, in both orders that VMMs use.

MRTD is SHA-384 over one record per page added (``MEM.PAGE.ADD``) and, where contents count, one
record and 256 bytes of data per chunk (``MR.EXTEND``). The order of these calls is the host's: some
VMMs extend each page as they add it (*single pass*), others add a whole section first (*two pass*).
Both values are honest; a policy that must hold on both kinds of host lists both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha384

from tdx.measure.tdvf import PAGE_BYTES, Section, parse_tdvf

__all__ = ["Mrtd", "compute_mrtd"]

_CHUNK_BYTES = 256
_RECORD_BYTES = 128


@dataclass(frozen=True, slots=True)
class Mrtd:
    """Hold MRTD in both orders, 48 bytes each.

    Attributes:
        single_pass: QEMU before 8.2 with TDX patches, upstream QEMU from 9 on, Google Cloud.
        two_pass: Canonical's QEMU 8.2 for noble, Intel's ``upstream-v5`` tree.
    """

    single_pass: bytes
    two_pass: bytes


def compute_mrtd(image: bytes) -> Mrtd:
    """Compute MRTD of a combined TDVF image.

    Raises:
        ImageError: The image has no usable TDX metadata.
    """
    sections = [section for section in parse_tdvf(image) if not section.augmented]
    return Mrtd(_hash(sections, single=True), _hash(sections, single=False))


def _hash(sections: list[Section], *, single: bool) -> bytes:
    state = sha384()
    for section in sections:
        for piece in _single_pass(section) if single else _two_pass(section):
            state.update(piece)
    return state.digest()


def _single_pass(section: Section) -> Iterator[bytes]:
    for offset in range(0, section.memory_bytes, PAGE_BYTES):
        yield _record(b"MEM.PAGE.ADD", section.address + offset)
        if section.extended:
            yield from _extend_page(section, offset)


def _two_pass(section: Section) -> Iterator[bytes]:
    offsets = range(0, section.memory_bytes, PAGE_BYTES)
    for offset in offsets:
        yield _record(b"MEM.PAGE.ADD", section.address + offset)
    if section.extended:
        for offset in offsets:
            yield from _extend_page(section, offset)


def _extend_page(section: Section, offset: int) -> Iterator[bytes]:
    for at in range(offset, offset + PAGE_BYTES, _CHUNK_BYTES):
        yield _record(b"MR.EXTEND", section.address + at)
        yield section.data[at : at + _CHUNK_BYTES].ljust(_CHUNK_BYTES, b"\0")


def _record(name: bytes, address: int) -> bytes:
    return (name.ljust(16, b"\0") + address.to_bytes(8, "little")).ljust(_RECORD_BYTES, b"\0")

"""The 48-byte quote header and the v5 body descriptor (TDX DCAP quote format, versions 4 and 5).

Integers are little-endian. The two reserved fields at offset 8 are zero in every quote seen and are
never used for a decision: in version 3 they held SVNs that nothing authenticated usefully.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from tdx.errors import Check, QuoteError

__all__ = [
    "BODY_BYTES",
    "HEADER_BYTES",
    "INTEL_QE_VENDOR",
    "TEE_TYPE_TDX",
    "BodyType",
    "Header",
    "parse_header",
]

HEADER_BYTES = 48
TEE_TYPE_TDX = 0x81
KEY_TYPE_ECDSA_P256 = 2
INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")

_HEADER = struct.Struct("<HHIHH16s20s")
_DESCRIPTOR = struct.Struct("<HI")
_VERSION_4 = 4
_VERSION_5 = 5


class BodyType(IntEnum):
    """Name the TD report bodies by their number in the version 5 descriptor."""

    TD10 = 2
    TD15 = 3
    TD15EX = 4


BODY_BYTES = {BodyType.TD10: 584, BodyType.TD15: 648, BodyType.TD15EX: 885}


@dataclass(frozen=True, slots=True)
class Header:
    """Hold the checked header of a TDX quote.

    Attributes:
        version: 4 or 5.
        qe_vendor: 16 bytes, Intel's vendor id.
        user_data: 20 bytes; the first 16 name the quoting enclave on some hosts. Informational.
        body_type: What the body is.
        body_offset: Where the body starts: 48 in version 4, 54 in version 5.
    """

    version: int
    qe_vendor: bytes
    user_data: bytes
    body_type: BodyType
    body_offset: int

    @property
    def signed_bytes(self) -> int:
        """Length of the prefix the attestation key signs: header, descriptor and body."""
        return self.body_offset + BODY_BYTES[self.body_type]


def parse_header(data: bytes) -> Header:
    """Parse and check the header, and in version 5 the body descriptor.

    Args:
        data: A quote, at least 48 bytes (54 in version 5).

    Raises:
        QuoteError: ``structure``, ``version``, ``key_type``, ``tee_type``, ``qe_vendor`` or
            ``body_type``.
    """
    if len(data) < HEADER_BYTES:
        raise QuoteError(Check.STRUCTURE, "a quote has a 48-byte header", value=len(data))
    version, key_type, tee_type, _, _, vendor, user_data = _HEADER.unpack_from(data)
    if version not in (_VERSION_4, _VERSION_5):
        raise QuoteError(Check.VERSION, "TDX quotes have version 4 or 5", value=version)
    if key_type != KEY_TYPE_ECDSA_P256:
        raise QuoteError(Check.KEY_TYPE, "the attestation key is ECDSA P-256 (2)", value=key_type)
    if tee_type != TEE_TYPE_TDX:
        raise QuoteError(Check.TEE_TYPE, "the TEE type is TDX (0x81)", value=hex(tee_type))
    if vendor != INTEL_QE_VENDOR:
        raise QuoteError(Check.QE_VENDOR, "the QE vendor is Intel", value=vendor.hex())
    if version == _VERSION_4:
        return Header(version, vendor, user_data, BodyType.TD10, HEADER_BYTES)
    return Header(version, vendor, user_data, *_parse_descriptor(data))


def _parse_descriptor(data: bytes) -> tuple[BodyType, int]:
    end = HEADER_BYTES + _DESCRIPTOR.size
    if len(data) < end:
        raise QuoteError(Check.STRUCTURE, "a v5 quote has a body descriptor", value=len(data))
    number, size = _DESCRIPTOR.unpack_from(data, HEADER_BYTES)
    try:
        body_type = BodyType(number)
    except ValueError:
        raise QuoteError(Check.BODY_TYPE, "the body is a TD report (2-4)", value=number) from None
    if size != BODY_BYTES[body_type]:
        raise QuoteError(
            Check.BODY_TYPE, f"{body_type.name} takes {BODY_BYTES[body_type]} bytes", value=size
        )
    return body_type, end

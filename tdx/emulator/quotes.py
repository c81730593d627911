"""Structurally real quotes, version 4 with TD 1.0 and version 5 with any body, field by field."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import sha256, sha384
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tdx.emulator.documents import sign_raw
from tdx.quote import BODY_BYTES, INTEL_QE_VENDOR, BodyType
from tdx.trust import EMULATED_QE_MRSIGNER, EMULATED_USER_DATA

if TYPE_CHECKING:
    from tdx.emulator.authority import Issued

__all__ = ["QeFields", "QuoteFields", "TdFields", "make_quote"]

_VERSION_5 = 5
_SVN = bytes([5, 1, 2, *([2] * 13)])
_EX_BYTES = BODY_BYTES[BodyType.TD15EX] - BODY_BYTES[BodyType.TD15]


def _measurement(name: str) -> bytes:
    return sha384(f"EMULATED {name}".encode()).digest()


@dataclass(frozen=True, slots=True)
class TdFields:
    """Hold the fields of a TD report body, with the meanings of ``tdx.quote.TdReport``."""

    tee_tcb_svn: bytes = _SVN
    mrseam: bytes = _measurement("MRSEAM")
    mrsignerseam: bytes = bytes(48)
    seam_attributes: bytes = bytes(8)
    td_attributes: int = 1 << 28
    xfam: int = 0x602E7
    mrtd: bytes = _measurement("MRTD")
    mrconfigid: bytes = bytes(48)
    mrowner: bytes = bytes(48)
    mrownerconfig: bytes = bytes(48)
    rtmr: tuple[bytes, ...] = tuple(_measurement(f"RTMR{index}") for index in range(4))
    report_data: bytes = bytes(64)
    tee_tcb_svn2: bytes = _SVN
    mrservicetd: bytes = bytes(48)

    def encode(self, kind: BodyType) -> bytes:
        """Lay out the body."""
        body = b"".join(
            (
                self.tee_tcb_svn,
                self.mrseam,
                self.mrsignerseam,
                self.seam_attributes,
                self.td_attributes.to_bytes(8, "little"),
                self.xfam.to_bytes(8, "little"),
                self.mrtd,
                self.mrconfigid,
                self.mrowner,
                self.mrownerconfig,
                *self.rtmr,
                self.report_data,
            )
        )
        if kind is not BodyType.TD10:
            body += self.tee_tcb_svn2 + self.mrservicetd
        return body + (bytes(_EX_BYTES) if kind is BodyType.TD15EX else b"")


@dataclass(frozen=True, slots=True)
class QeFields:
    """Hold the fields of the quoting enclave's report; ``report_data`` None means the right one."""

    miscselect: bytes = bytes(4)
    attributes: bytes = b"\x11" + bytes(7) + b"\xe7" + bytes(7)
    mrsigner: bytes = EMULATED_QE_MRSIGNER
    isvprodid: int = 2
    isvsvn: int = 6
    report_data: bytes | None = None

    def encode(self, bound: bytes) -> bytes:
        """Lay out the 384 bytes."""
        return b"".join(
            (
                bytes(16),
                self.miscselect,
                bytes(28),
                self.attributes,
                sha256(b"EMULATED QE CODE").digest(),
                bytes(32),
                self.mrsigner,
                bytes(96),
                struct.pack("<HH", self.isvprodid, self.isvsvn),
                bytes(60),
                bound + bytes(32) if self.report_data is None else self.report_data,
            )
        )


@dataclass(frozen=True, slots=True)
class QuoteFields:
    """Hold everything a quote is made of; a mutation replaces one thing.

    Attributes:
        version: 4 or 5.
        kind: Body; version 4 always has TD 1.0.
        key_type: Attestation key type.
        tee_type: TEE type.
        vendor: QE vendor id.
        user_data: Header user data; starts with the marker.
        td: The body.
        qe: The quoting enclave's report.
        auth_data: QE auth data.
        outer_type: Certification data type around the QE report.
        inner_type: Certification data type of the chain.
        attestation_key: 64 bytes to claim instead of the key that signs.
        attestation_signature: 64 bytes to put instead of the signature.
        chain: PEM instead of the hierarchy's.
        padding: What follows the structure.
    """

    version: int = 4
    kind: BodyType = BodyType.TD10
    key_type: int = 2
    tee_type: int = 0x81
    vendor: bytes = INTEL_QE_VENDOR
    user_data: bytes = EMULATED_USER_DATA
    td: TdFields = field(default_factory=TdFields)
    qe: QeFields = field(default_factory=QeFields)
    auth_data: bytes = bytes(range(32))
    outer_type: int = 6
    inner_type: int = 5
    attestation_key: bytes | None = None
    attestation_signature: bytes | None = None
    chain: bytes | None = None
    padding: bytes = b""


def make_quote(fields: QuoteFields, chain: tuple[Issued, Issued, Issued]) -> bytes:
    """Assemble and sign a quote; the attestation key lives for this quote alone.

    Args:
        fields: What it says.
        chain: PCK certificate, PCK CA, root; the PCK key signs the quoting enclave's report.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
    claimed = fields.attestation_key or point
    signed = _header(fields) + fields.td.encode(fields.kind)
    report = fields.qe.encode(sha256(claimed + fields.auth_data).digest())
    pem = "".join(one.pem for one in chain).encode() if fields.chain is None else fields.chain
    certification = b"".join(
        (
            report,
            sign_raw(chain[0].key, report),
            struct.pack("<H", len(fields.auth_data)),
            fields.auth_data,
            struct.pack("<HI", fields.inner_type, len(pem)),
            pem,
        )
    )
    section = b"".join(
        (
            fields.attestation_signature or sign_raw(key, signed),
            claimed,
            struct.pack("<HI", fields.outer_type, len(certification)),
            certification,
        )
    )
    return signed + struct.pack("<I", len(section)) + section + fields.padding


def _header(fields: QuoteFields) -> bytes:
    header = struct.pack(
        "<HHIHH16s20s",
        fields.version,
        fields.key_type,
        fields.tee_type,
        0,
        0,
        fields.vendor,
        fields.user_data,
    )
    if fields.version == _VERSION_5:
        header += struct.pack("<HI", fields.kind, BODY_BYTES[fields.kind])
    return header

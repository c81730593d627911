"""Parse a whole TDX quote: header, body, signatures and certification data, to the last byte.

After the signed prefix: u32 L · 64 signature · 64 attestation key · u16 outer type, must be 6 ·
u32 outer size, must be L - 134 · 384 QE report · 64 its signature · u16 auth size A · A auth data ·
u16 inner type · u32 inner size, must use up the outer one · data.

After L bytes only zero padding may follow: some clouds pad to a fixed size, and anything else is
unsigned room for an attacker. Padding, certificate text and sizes are malleable, so identity is
the hash of the signed prefix, never of the quote's bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import sha256

from tdx.errors import Check, QuoteError
from tdx.quote.body import TdReport, parse_body
from tdx.quote.enclave import QE_REPORT_BYTES, QeReport, parse_qe_report
from tdx.quote.header import Header, parse_header

__all__ = ["MAX_QUOTE_BYTES", "PCK_CHAIN_PEM", "Quote", "parse_quote"]

MAX_QUOTE_BYTES = 16 * 1024
PCK_CHAIN_PEM = 5
_QE_CERTIFICATION = 6
_FIXED_BYTES = 64 + 64 + 6
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_TYPE_AND_SIZE = struct.Struct("<HI")


@dataclass(frozen=True, slots=True)
class Quote:
    """Hold a parsed, unverified quote.

    Attributes:
        header: The header.
        report: The TD report body.
        signed: The raw prefix the attestation key signed; verify over this, never over fields.
        signature: 64 bytes r || s by the attestation key.
        attestation_key: 64 bytes X || Y.
        qe_report: The quoting enclave's report.
        qe_report_raw: Its 384 bytes, which the PCK key signed.
        qe_report_signature: 64 bytes r || s by the PCK key.
        qe_auth_data: Auth data hashed into the QE's report data.
        certification_type: Inner type; 5 is a PCK chain in PEM.
        certification: The inner data.
        padding_bytes: How many zero bytes follow the structure.
    """

    header: Header
    report: TdReport
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    attestation_key: bytes = field(repr=False)
    qe_report: QeReport
    qe_report_raw: bytes = field(repr=False)
    qe_report_signature: bytes = field(repr=False)
    qe_auth_data: bytes = field(repr=False)
    certification_type: int
    certification: bytes = field(repr=False)
    padding_bytes: int

    @property
    def identity(self) -> bytes:
        """SHA-256 of the signed prefix: the only hash of a quote that names it (32 bytes)."""
        return sha256(self.signed).digest()


def parse_quote(data: bytes) -> Quote:
    """Parse a version 4 or 5 TDX quote of at most 16 KiB.

    Raises:
        QuoteError: ``size``, ``structure``, ``trailing_bytes``, ``certification_type`` or a header
            check.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise QuoteError(Check.SIZE, "a quote is at most 16 KiB", value=len(data))
    header = parse_header(data)
    start = header.signed_bytes
    body = _take(data, header.body_offset, start - header.body_offset, "body")
    (length,) = _U32.unpack(_take(data, start, 4, "signature length"))
    section = _take(data, start + 4, length, "signature data")
    padding = data[start + 4 + length :]
    if padding != bytes(len(padding)):
        raise QuoteError(Check.TRAILING_BYTES, "only zeros may follow a quote", value=len(padding))
    certification = _parse_certification(section)
    return Quote(
        header=header,
        report=parse_body(body, header.body_type),
        signed=data[:start],
        signature=section[0:64],
        attestation_key=section[64:128],
        qe_report=parse_qe_report(certification.report),
        qe_report_raw=certification.report,
        qe_report_signature=certification.signature,
        qe_auth_data=certification.auth_data,
        certification_type=certification.inner_type,
        certification=certification.inner,
        padding_bytes=len(padding),
    )


@dataclass(frozen=True, slots=True)
class _Certification:
    report: bytes
    signature: bytes
    auth_data: bytes
    inner_type: int
    inner: bytes


def _parse_certification(section: bytes) -> _Certification:
    outer_type, outer_size = _TYPE_AND_SIZE.unpack(_take(section, 128, 6, "certification header"))
    if outer_type != _QE_CERTIFICATION:
        raise QuoteError(
            Check.CERTIFICATION_TYPE, "the outer certification data has type 6", value=outer_type
        )
    if outer_size != len(section) - _FIXED_BYTES:
        raise QuoteError(
            Check.STRUCTURE, "the certification data fills the signature data", value=outer_size
        )
    report = _take(section, _FIXED_BYTES, QE_REPORT_BYTES, "QE report")
    at = _FIXED_BYTES + QE_REPORT_BYTES
    signature = _take(section, at, 64, "QE report signature")
    (auth_size,) = _U16.unpack(_take(section, at + 64, 2, "QE auth size"))
    auth_data = _take(section, at + 66, auth_size, "QE auth data")
    at += 66 + auth_size
    inner_type, inner_size = _TYPE_AND_SIZE.unpack(_take(section, at, 6, "inner header"))
    inner = section[at + 6 :]
    if inner_size != len(inner):
        raise QuoteError(
            Check.STRUCTURE, "the inner data uses up the certification data", value=inner_size
        )
    return _Certification(report, signature, auth_data, inner_type, inner)


def _take(data: bytes, start: int, size: int, what: str) -> bytes:
    if start + size > len(data):
        raise QuoteError(Check.STRUCTURE, f"the {what} lies inside the quote", value=start + size)
    return data[start : start + size]

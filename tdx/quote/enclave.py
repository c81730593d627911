"""The SGX report of the quoting enclave (384 bytes) that certifies the attestation key."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["QE_REPORT_BYTES", "QeReport", "parse_qe_report"]

QE_REPORT_BYTES = 384
_DEBUG = 0x02
_PRODUCT = struct.Struct("<HH")


@dataclass(frozen=True, slots=True)
class QeReport:
    """Hold the fields of the quoting enclave's report that identify it.

    Attributes:
        cpusvn: 16 bytes.
        miscselect: 4 bytes as laid out in the report.
        attributes: 16 bytes: 8 of flags, 8 of XFRM.
        mrenclave: 32 bytes.
        mrsigner: 32 bytes.
        isvprodid: Product number.
        isvsvn: Security version.
        report_data: 64 bytes: hash of the attestation key and auth data, then zeros.
    """

    cpusvn: bytes
    miscselect: bytes
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    isvprodid: int
    isvsvn: int
    report_data: bytes

    @property
    def debug(self) -> bool:
        """Whether the enclave runs in debug mode, where the host reads its memory."""
        return bool(self.attributes[0] & _DEBUG)


def parse_qe_report(data: bytes) -> QeReport:
    """Parse exactly 384 bytes."""
    isvprodid, isvsvn = _PRODUCT.unpack_from(data, 256)
    return QeReport(
        cpusvn=data[0:16],
        miscselect=data[16:20],
        attributes=data[48:64],
        mrenclave=data[64:96],
        mrsigner=data[128:160],
        isvprodid=isvprodid,
        isvsvn=isvsvn,
        report_data=data[320:384],
    )

"""TDREPORT: the 1024-byte local report of ``/dev/tdx_guest``.

Its MAC verifies only on the CPU package that made it, so it is no evidence for a remote peer; it is
the cheap way to read this machine's own measurements without a quote.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdx.errors import Check, QuoteError

__all__ = ["TDREPORT_BYTES", "TdReportLocal", "parse_tdreport"]

TDREPORT_BYTES = 1024
_TYPE_TDX = 0x81


@dataclass(frozen=True, slots=True)
class TdReportLocal:
    """Hold the readable fields of a TDREPORT.

    Attributes:
        cpusvn: 16 bytes.
        report_data: 64 bytes chosen by the guest.
        td_attributes: 64-bit mask.
        xfam: 64-bit mask.
        mrtd: 48 bytes.
        mrconfigid: 48 bytes.
        mrowner: 48 bytes.
        mrownerconfig: 48 bytes.
        rtmr: Four registers of 48 bytes.
        servtd_hash: 48 bytes.
    """

    cpusvn: bytes
    report_data: bytes
    td_attributes: int
    xfam: int
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr: tuple[bytes, bytes, bytes, bytes]
    servtd_hash: bytes


def parse_tdreport(data: bytes) -> TdReportLocal:
    """Parse exactly 1024 bytes.

    Raises:
        QuoteError: ``structure`` for another length, ``tee_type`` if it is not a TDX report.
    """
    if len(data) != TDREPORT_BYTES:
        raise QuoteError(Check.STRUCTURE, "a TDREPORT has 1024 bytes", value=len(data))
    if data[0] != _TYPE_TDX:
        raise QuoteError(Check.TEE_TYPE, "a TDREPORT has type 0x81", value=hex(data[0]))
    return TdReportLocal(
        cpusvn=data[16:32],
        report_data=data[128:192],
        td_attributes=int.from_bytes(data[512:520], "little"),
        xfam=int.from_bytes(data[520:528], "little"),
        mrtd=data[528:576],
        mrconfigid=data[576:624],
        mrowner=data[624:672],
        mrownerconfig=data[672:720],
        rtmr=(data[720:768], data[768:816], data[816:864], data[864:912]),
        servtd_hash=data[912:960],
    )

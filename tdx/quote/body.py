"""The TD report body: what the TDX module says about a trust domain.

Three sizes exist: TD 1.0 (584 bytes), TD 1.5 (648: adds the SVN of the currently loaded module and
MRSERVICETD) and TD 1.5ex (885: adds migration fields). TD 1.5ex is parsed and refused by policy
unless it opts in.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdx.quote.header import BodyType

__all__ = ["TdReport", "TdReportEx", "parse_body"]


@dataclass(frozen=True, slots=True)
class TdReportEx:
    """Hold the fields that only TD 1.5ex has (TDX partitioning and migration).

    Attributes:
        vmid: Number of the partition, one byte.
        td_id: 32 bytes.
        device_info: 48 bytes.
        init_servtd_hash: 48 bytes, with ``init_servtd_attributes`` of 8.
        init_cpusvn: 16 bytes, with ``init_tee_tcb_svn`` of 16 and ``init_fmspc`` of 12.
        current_servtd_hash: 48 bytes, with ``current_servtd_attributes`` of 8.
    """

    vmid: int
    td_id: bytes
    device_info: bytes
    init_servtd_hash: bytes
    init_servtd_attributes: bytes
    init_cpusvn: bytes
    init_tee_tcb_svn: bytes
    init_fmspc: bytes
    current_servtd_hash: bytes
    current_servtd_attributes: bytes


@dataclass(frozen=True, slots=True)
class TdReport:
    """Hold a TD report body. Nothing in it is believed until ``tdx.verify`` has passed the quote.

    Attributes:
        kind: Which body this is.
        tee_tcb_svn: 16 SVNs at launch; [0] module minor, [1] module major, [2] microcode.
        mrseam: 48 bytes, measurement of the TDX module.
        mrsignerseam: 48 bytes, its signer (zero: Intel).
        seam_attributes: 8 bytes, zero for every released module.
        td_attributes: 64-bit mask; bit 0 is DEBUG.
        xfam: 64-bit mask of extended CPU features.
        mrtd: 48 bytes, measurement of the initial image.
        mrconfigid: 48 bytes chosen by the host.
        mrowner: 48 bytes chosen by the host.
        mrownerconfig: 48 bytes chosen by the host.
        rtmr: Four run-time registers of 48 bytes.
        report_data: 64 bytes chosen by the guest.
        tee_tcb_svn2: 16 SVNs of the module loaded now (TD 1.5), else None.
        mrservicetd: 48 bytes (TD 1.5), else None.
        ex: Migration fields (TD 1.5ex), else None.
    """

    kind: BodyType
    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    td_attributes: int
    xfam: int
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mrservicetd: bytes | None = None
    ex: TdReportEx | None = None


def parse_body(data: bytes, kind: BodyType) -> TdReport:
    """Parse a body whose length the caller has already matched to its kind.

    Args:
        data: Exactly ``BODY_BYTES[kind]`` bytes.
        kind: Which body it is.
    """
    later = kind is not BodyType.TD10
    return TdReport(
        kind=kind,
        tee_tcb_svn=data[0:16],
        mrseam=data[16:64],
        mrsignerseam=data[64:112],
        seam_attributes=data[112:120],
        td_attributes=int.from_bytes(data[120:128], "little"),
        xfam=int.from_bytes(data[128:136], "little"),
        mrtd=data[136:184],
        mrconfigid=data[184:232],
        mrowner=data[232:280],
        mrownerconfig=data[280:328],
        rtmr=(data[328:376], data[376:424], data[424:472], data[472:520]),
        report_data=data[520:584],
        tee_tcb_svn2=data[584:600] if later else None,
        mrservicetd=data[600:648] if later else None,
        ex=_parse_ex(data) if kind is BodyType.TD15EX else None,
    )


def _parse_ex(data: bytes) -> TdReportEx:
    return TdReportEx(
        vmid=data[648],
        td_id=data[649:681],
        device_info=data[681:729],
        init_servtd_hash=data[729:777],
        init_servtd_attributes=data[777:785],
        init_cpusvn=data[785:801],
        init_tee_tcb_svn=data[801:817],
        init_fmspc=data[817:829],
        current_servtd_hash=data[829:877],
        current_servtd_attributes=data[877:885],
    )

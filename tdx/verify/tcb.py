"""Which TCB level a platform, its TDX module and its quoting enclave reach (Intel's EvaluateTcb).

Of the sixteen TEE_TCB_SVN bytes, [1] is the module's major version. From 1 on, bytes 0 and 1 are
judged by the module's own identity, and only bytes 2 to 15 by the platform level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdx.collateral import (
    Level,
    ModuleSigner,
    PlatformLevel,
    QeIdentity,
    TcbInfo,
    TcbStatus,
    converge,
    status_with_relaunch,
)
from tdx.errors import Check, QuoteError

if TYPE_CHECKING:
    from tdx.quote import PckExtension, TdReport

__all__ = ["TcbResult", "check_module", "check_qe_level", "evaluate"]


@dataclass(frozen=True, slots=True)
class TcbResult:
    """Hold the converged result.

    Attributes:
        status: Never better than any matched level.
        tcb_date: Earliest date of the matched levels.
        advisories: Sorted union of their advisories.
    """

    status: TcbStatus
    tcb_date: int
    advisories: tuple[str, ...]


def check_module(report: TdReport, info: TcbInfo) -> None:
    """Check who signed the TDX module, and its attributes (step 11).

    Raises:
        QuoteError: ``module_identity``, ``module_signer`` or ``seam_attributes``.
    """
    signer = _signer(report.tee_tcb_svn, info)
    if report.mrsignerseam != signer.mrsigner:
        raise QuoteError(
            Check.MODULE_SIGNER, "the TDX module's signer fits", value=report.mrsignerseam.hex()
        )
    masked = bytes(
        a & m for a, m in zip(report.seam_attributes, signer.attributes_mask, strict=True)
    )
    # No released module has attributes; Intel's verifier demands zero besides the masked match.
    if any(report.seam_attributes) or masked != signer.attributes:
        raise QuoteError(
            Check.SEAM_ATTRIBUTES,
            "the TDX module's attributes fit and are zero",
            value=report.seam_attributes.hex(),
        )


def check_qe_level(isvsvn: int, identity: QeIdentity) -> Level:
    """Return the quoting enclave's level.

    Raises:
        QuoteError: ``qe_tcb_level`` if its ISVSVN is below all levels.
    """
    for level in identity.levels:
        if isvsvn >= level.isvsvn:
            return level
    raise QuoteError(Check.QE_TCB_LEVEL, "the quoting enclave reaches a TCB level", value=isvsvn)


def evaluate(report: TdReport, pck: PckExtension, info: TcbInfo, qe: Level) -> TcbResult:
    """Evaluate the TCB at launch, and with TD 1.5 also that of the module loaded now (step 12).

    Raises:
        QuoteError: ``tcb_level`` or ``module_identity`` if something reaches no level.
    """
    launch = _evaluate_one(report.tee_tcb_svn, pck, info, qe)
    if report.tee_tcb_svn2 is None:
        return launch
    current = _evaluate_one(report.tee_tcb_svn2, pck, info, qe)
    # The TD runs on the current module: if that one is revoked, no launch status can stand.
    status = (
        TcbStatus.REVOKED
        if current.status is TcbStatus.REVOKED
        else status_with_relaunch(launch.status, current.status)
    )
    return TcbResult(status, launch.tcb_date, launch.advisories)


def _evaluate_one(svn: bytes, pck: PckExtension, info: TcbInfo, qe: Level) -> TcbResult:
    platform = _platform_level(svn, pck, info)
    parts: list[Level] = [qe]
    if svn[1] > 0:
        parts.append(_module_level(svn, info))
    levels = [platform, *parts]
    return TcbResult(
        status=converge(platform.status, [level.status for level in parts]),
        tcb_date=min(level.tcb_date for level in levels),
        advisories=tuple(sorted({one for level in levels for one in level.advisories})),
    )


def _platform_level(svn: bytes, pck: PckExtension, info: TcbInfo) -> PlatformLevel:
    start = 2 if svn[1] > 0 else 0
    for level in info.levels:
        if (
            pck.pcesvn >= level.pcesvn
            and all(a >= b for a, b in zip(pck.component_svns, level.sgx, strict=True))
            and all(a >= b for a, b in zip(svn[start:], level.tdx[start:], strict=True))
        ):
            return level
    raise QuoteError(Check.TCB_LEVEL, "the platform reaches a TCB level", value=svn.hex())


def _module_level(svn: bytes, info: TcbInfo) -> Level:
    name = f"TDX_{svn[1]:02X}"
    identity = info.module_identities.get(name)
    if identity is None:
        raise QuoteError(Check.MODULE_IDENTITY, "the TDX module has an identity", value=name)
    for level in identity.levels:
        if svn[0] >= level.isvsvn:
            return level
    raise QuoteError(Check.TCB_LEVEL, f"module {name} reaches a TCB level", value=svn[0])


def _signer(svn: bytes, info: TcbInfo) -> ModuleSigner:
    if svn[1] == 0:
        return info.module
    name = f"TDX_{svn[1]:02X}"
    identity = info.module_identities.get(name)
    if identity is None:
        raise QuoteError(Check.MODULE_IDENTITY, "the TDX module has an identity", value=name)
    return identity.signer

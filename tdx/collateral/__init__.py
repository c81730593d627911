"""Collateral: TCB Info, QE Identity, CRLs and the bundle file that carries them."""

from tdx.collateral.bundle import MAX_BUNDLE_BYTES, Bundle, expiries
from tdx.collateral.levels import IsvLevel, Level, PlatformLevel
from tdx.collateral.qe_identity import QeIdentity, parse_qe_identity
from tdx.collateral.status import TcbStatus, converge, status_with_relaunch
from tdx.collateral.strict import split_pem
from tdx.collateral.tcb_info import ModuleIdentity, ModuleSigner, TcbInfo, parse_tcb_info

__all__ = [
    "MAX_BUNDLE_BYTES",
    "Bundle",
    "IsvLevel",
    "Level",
    "ModuleIdentity",
    "ModuleSigner",
    "PlatformLevel",
    "QeIdentity",
    "TcbInfo",
    "TcbStatus",
    "converge",
    "expiries",
    "parse_qe_identity",
    "parse_tcb_info",
    "split_pem",
    "status_with_relaunch",
]

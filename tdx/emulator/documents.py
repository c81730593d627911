"""The emulator's TCB Info and QE Identity, and the bundle that carries them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tdx.collateral import Bundle
from tdx.emulator.authority import CrlSpec, Hierarchy, Issued, make_crl
from tdx.trust import EMULATED_FMSPC_PREFIX, EMULATED_QE_MRSIGNER

__all__ = ["BundleRecipe", "isv_level", "make_bundle", "platform_level", "qe_identity", "tcb_info"]

_LATEST = "2026-01-01T00:00:00Z"
_EARLIER = "2024-01-01T00:00:00Z"
_ZERO_SIGNER = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}


@dataclass(frozen=True, slots=True)
class BundleRecipe:
    """Hold everything a bundle is made of; a mutation replaces one thing.

    Attributes:
        hierarchy: Whose chains it carries.
        root_crl: List of the root.
        pck_crl: List of the PCK CA.
        tcb_info: Contents of TCB Info.
        qe_identity: Contents of QE Identity.
        tcb_info_chain: Who signs TCB Info, then its issuers.
        qe_identity_chain: Who signs QE Identity, then its issuers.
        pck_crl_chain: Issuer of the PCK CRL, then the root.
    """

    hierarchy: Hierarchy = field(repr=False)
    root_crl: CrlSpec
    pck_crl: CrlSpec
    tcb_info: Mapping[str, object]
    qe_identity: Mapping[str, object]
    tcb_info_chain: Sequence[Issued]
    qe_identity_chain: Sequence[Issued]
    pck_crl_chain: Sequence[Issued]


def make_bundle(recipe: BundleRecipe) -> Bundle:
    """Sign the documents and lists of a recipe."""
    info = json.dumps(recipe.tcb_info, separators=(",", ":"))
    identity = json.dumps(recipe.qe_identity, separators=(",", ":"))
    return Bundle(
        pck_crl_issuer_chain="".join(one.pem for one in recipe.pck_crl_chain),
        root_ca_crl=make_crl(recipe.root_crl),
        pck_crl=make_crl(recipe.pck_crl),
        tcb_info_issuer_chain="".join(one.pem for one in recipe.tcb_info_chain),
        tcb_info=info,
        tcb_info_signature=sign_raw(recipe.tcb_info_chain[0].key, info.encode()),
        qe_identity_issuer_chain="".join(one.pem for one in recipe.qe_identity_chain),
        qe_identity=identity,
        qe_identity_signature=sign_raw(recipe.qe_identity_chain[0].key, identity.encode()),
    )


def tcb_info(issued_at: int, next_update: int) -> dict[str, object]:
    """Return TCB Info whose first levels are up to date."""
    return {
        "id": "TDX",
        "version": 3,
        "issueDate": _date(issued_at),
        "nextUpdate": _date(next_update),
        "fmspc": (EMULATED_FMSPC_PREFIX + b"\0").hex().upper(),
        "pceId": "0000",
        "tcbType": 0,
        "tcbEvaluationDataNumber": 18,
        "tdxModule": _ZERO_SIGNER,
        "tdxModuleIdentities": [
            {
                "id": "TDX_01",
                **_ZERO_SIGNER,
                "tcbLevels": [isv_level(4), isv_level(2, "OutOfDate", "INTEL-SA-EMULATED-1")],
            }
        ],
        "tcbLevels": [
            platform_level(),
            platform_level("OutOfDate", svn=1, advisory="INTEL-SA-EMULATED-2"),
        ],
    }


def qe_identity(issued_at: int, next_update: int) -> dict[str, object]:
    """Return the identity of the emulated quoting enclave."""
    return {
        "id": "TD_QE",
        "version": 2,
        "issueDate": _date(issued_at),
        "nextUpdate": _date(next_update),
        "tcbEvaluationDataNumber": 18,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15,
        "attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8,
        "mrsigner": EMULATED_QE_MRSIGNER.hex().upper(),
        "isvprodid": 2,
        "tcbLevels": [isv_level(4), isv_level(2, "OutOfDate", "INTEL-SA-EMULATED-3")],
    }


def platform_level(
    status: str = "UpToDate", *, svn: int = 2, module_svn: int = 0, advisory: str | None = None
) -> dict[str, object]:
    """Return a platform level that asks for ``svn`` in every component, the module's two apart."""
    tdx = [module_svn, 0, *([svn] * 14)]
    level: dict[str, object] = {
        "tcb": {
            "sgxtcbcomponents": [{"svn": svn}] * 16,
            "pcesvn": 11,
            "tdxtcbcomponents": [{"svn": one} for one in tdx],
        },
        "tcbDate": _LATEST if status == "UpToDate" else _EARLIER,
        "tcbStatus": status,
    }
    return level if advisory is None else level | {"advisoryIDs": [advisory]}


def isv_level(
    isvsvn: int, status: str = "UpToDate", advisory: str | None = None
) -> dict[str, object]:
    """Return a level of a module or enclave."""
    level: dict[str, object] = {
        "tcb": {"isvsvn": isvsvn},
        "tcbDate": _LATEST if status == "UpToDate" else _EARLIER,
        "tcbStatus": status,
    }
    return level if advisory is None else level | {"advisoryIDs": [advisory]}


def sign_raw(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Sign with ECDSA over SHA-256; return r || s (64 bytes)."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _date(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"

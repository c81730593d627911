"""TD QE Identity version 2: which quoting enclave may certify attestation keys.

Parse only text whose signature has been verified; the signature is over the exact text.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdx.collateral.levels import IsvLevel, parse_isv_levels
from tdx.collateral.strict import load_object
from tdx.collateral.tcb_info import MAX_EVALUATION_NUMBER
from tdx.errors import Check, QuoteError

__all__ = ["QeIdentity", "parse_qe_identity"]

_VERSION = 2
_CHECK = Check.QE_IDENTITY_FORMAT


@dataclass(frozen=True, slots=True)
class QeIdentity:
    """Hold the identity of the TD quoting enclave.

    Attributes:
        issued_at: Unix seconds.
        next_update: Unix seconds; not valid after.
        evaluation_number: ``tcbEvaluationDataNumber``.
        miscselect: 4 bytes, with ``miscselect_mask``.
        miscselect_mask: 4 bytes.
        attributes: 16 bytes, with ``attributes_mask``.
        attributes_mask: 16 bytes.
        mrsigner: 32 bytes.
        isvprodid: Product number.
        levels: ISVSVN levels, best first.
    """

    issued_at: int
    next_update: int
    evaluation_number: int
    miscselect: bytes
    miscselect_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isvprodid: int
    levels: tuple[IsvLevel, ...]


def parse_qe_identity(text: str) -> QeIdentity:
    """Parse the text of a TD QE Identity.

    Raises:
        QuoteError: ``qe_identity_format``.
    """
    fields = load_object(text, _CHECK)
    if fields.text("id") != "TD_QE":
        raise QuoteError(_CHECK, "the identity is that of the TD QE", value=fields.text("id"))
    if fields.number("version", 0xFFFF) != _VERSION:
        raise QuoteError(_CHECK, "QE Identity has version 2", value=fields.number("version", 99))
    return QeIdentity(
        issued_at=fields.instant("issueDate"),
        next_update=fields.instant("nextUpdate"),
        evaluation_number=fields.number("tcbEvaluationDataNumber", MAX_EVALUATION_NUMBER),
        miscselect=fields.hexadecimal("miscselect", 4),
        miscselect_mask=fields.hexadecimal("miscselectMask", 4),
        attributes=fields.hexadecimal("attributes", 16),
        attributes_mask=fields.hexadecimal("attributesMask", 16),
        mrsigner=fields.hexadecimal("mrsigner", 32),
        isvprodid=fields.number("isvprodid", 0xFFFF),
        levels=parse_isv_levels(fields, _CHECK),
    )

"""TCB Info version 3 for TDX: which platform SVNs and TDX modules have which status.

Parse only text whose signature has been verified; the signature is over the exact text.
"""

from __future__ import annotations

from dataclasses import dataclass

from tdx.collateral.levels import IsvLevel, PlatformLevel, parse_isv_levels, parse_platform_levels
from tdx.collateral.strict import Fields, load_object
from tdx.errors import Check, QuoteError

__all__ = ["MAX_EVALUATION_NUMBER", "ModuleIdentity", "ModuleSigner", "TcbInfo", "parse_tcb_info"]

MAX_EVALUATION_NUMBER = 0xFFFFFFFF
_VERSION = 3
_CHECK = Check.TCB_INFO_FORMAT


@dataclass(frozen=True, slots=True)
class ModuleSigner:
    """Say who signs a TDX module and with which attributes.

    Attributes:
        mrsigner: 48 bytes, expected MRSIGNERSEAM.
        attributes: 8 bytes, expected SEAMATTRIBUTES under the mask.
        attributes_mask: 8 bytes.
    """

    mrsigner: bytes
    attributes: bytes
    attributes_mask: bytes


@dataclass(frozen=True, slots=True)
class ModuleIdentity:
    """Hold one major version of the TDX module.

    Attributes:
        identifier: ``TDX_01`` and so on, in capitals.
        signer: Who signs it.
        levels: Its levels, best first.
    """

    identifier: str
    signer: ModuleSigner
    levels: tuple[IsvLevel, ...]


@dataclass(frozen=True, slots=True)
class TcbInfo:
    """Hold TCB Info.

    Attributes:
        issued_at: Unix seconds.
        next_update: Unix seconds; not valid after.
        fmspc: 6 bytes.
        pceid: 2 bytes.
        evaluation_number: ``tcbEvaluationDataNumber``.
        module: Signer of modules with major version 0.
        module_identities: Identities by identifier.
        levels: Platform levels, best first.
    """

    issued_at: int
    next_update: int
    fmspc: bytes
    pceid: bytes
    evaluation_number: int
    module: ModuleSigner
    module_identities: dict[str, ModuleIdentity]
    levels: tuple[PlatformLevel, ...]


def parse_tcb_info(text: str) -> TcbInfo:
    """Parse the text of TCB Info.

    Raises:
        QuoteError: ``tcb_info_format``: id, version or type differ, a field is missing, repeated or
            misshapen, a component list is not sixteen long, a status is unknown.
    """
    fields = load_object(text, _CHECK)
    if fields.text("id") != "TDX":
        raise QuoteError(_CHECK, "TCB Info is for TDX", value=fields.text("id"))
    if fields.number("version", 0xFFFF) != _VERSION:
        raise QuoteError(_CHECK, "TCB Info has version 3", value=fields.number("version", 0xFFFF))
    fields.number("tcbType", 0)
    return TcbInfo(
        issued_at=fields.instant("issueDate"),
        next_update=fields.instant("nextUpdate"),
        fmspc=fields.hexadecimal("fmspc", 6),
        pceid=fields.hexadecimal("pceId", 2),
        evaluation_number=fields.number("tcbEvaluationDataNumber", MAX_EVALUATION_NUMBER),
        module=_signer(fields.inside("tdxModule")),
        module_identities=_identities(fields),
        levels=parse_platform_levels(fields),
    )


def _identities(fields: Fields) -> dict[str, ModuleIdentity]:
    found: dict[str, ModuleIdentity] = {}
    # Absent before TDX 1.5: a module whose major version needs one is then refused.
    for item in fields.each("tdxModuleIdentities") if fields.has("tdxModuleIdentities") else ():
        identifier = item.text("id").upper()
        if identifier in found:
            raise QuoteError(_CHECK, "a module identity appears once", value=identifier)
        found[identifier] = ModuleIdentity(
            identifier, _signer(item), parse_isv_levels(item, _CHECK)
        )
    return found


def _signer(fields: Fields) -> ModuleSigner:
    return ModuleSigner(
        mrsigner=fields.hexadecimal("mrsigner", 48),
        attributes=fields.hexadecimal("attributes", 8),
        attributes_mask=fields.hexadecimal("attributesMask", 8),
    )

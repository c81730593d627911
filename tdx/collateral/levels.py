"""TCB levels: what SVNs a platform, a TDX module or a quoting enclave needs for which status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdx.collateral.status import TcbStatus
from tdx.errors import Check, QuoteError

if TYPE_CHECKING:
    from tdx.collateral.strict import Fields

__all__ = ["IsvLevel", "Level", "PlatformLevel", "parse_isv_levels", "parse_platform_levels"]

_COMPONENTS = 16
_MAX_U16 = 0xFFFF
# Intel judges modules and enclaves by these three only; a fourth would have no defined meaning when
# statuses converge.
_ISV_STATUSES = frozenset({TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED})


@dataclass(frozen=True, slots=True)
class Level:
    """Hold what any level says once it matched.

    Attributes:
        status: Its status.
        tcb_date: Unix seconds; the level answers the advisories published before.
        advisories: Advisory ids that apply to it.
    """

    status: TcbStatus
    tcb_date: int
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlatformLevel(Level):
    """Hold the SVNs a platform needs for a level.

    Attributes:
        sgx: Sixteen component SVNs.
        pcesvn: SVN of the provisioning certification enclave.
        tdx: Sixteen TDX component SVNs.
    """

    sgx: tuple[int, ...]
    pcesvn: int
    tdx: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IsvLevel(Level):
    """Hold the ISVSVN a TDX module or a quoting enclave needs for a level."""

    isvsvn: int


def parse_platform_levels(parent: Fields) -> tuple[PlatformLevel, ...]:
    """Parse ``tcbLevels`` of TCB Info, best first, as Intel's sorted set has them.

    Raises:
        QuoteError: ``tcb_info_format``.
    """
    levels = []
    for item in parent.each("tcbLevels"):
        tcb = item.inside("tcb")
        status, date, advisories = _common(item, Check.TCB_INFO_FORMAT)
        levels.append(
            PlatformLevel(
                status=status,
                tcb_date=date,
                advisories=advisories,
                sgx=_components(tcb, "sgxtcbcomponents"),
                pcesvn=tcb.number("pcesvn", _MAX_U16),
                tdx=_components(tcb, "tdxtcbcomponents"),
            )
        )
    # Of two levels with equal SVNs the worse comes first.
    levels.sort(key=lambda at: (at.sgx, at.pcesvn, at.tdx, at.status.severity), reverse=True)
    return tuple(levels)


def parse_isv_levels(parent: Fields, check: Check) -> tuple[IsvLevel, ...]:
    """Parse ``tcbLevels`` of a module or enclave identity, best first.

    Raises:
        QuoteError: ``check``.
    """
    levels = []
    for item in parent.each("tcbLevels"):
        status, date, advisories = _common(item, check)
        if status not in _ISV_STATUSES:
            raise QuoteError(check, "a module or enclave level is one of three", value=status)
        isvsvn = item.inside("tcb").number("isvsvn", _MAX_U16)
        levels.append(IsvLevel(status, date, advisories, isvsvn))
    levels.sort(key=lambda at: (at.isvsvn, at.status.severity), reverse=True)
    return tuple(levels)


def _common(item: Fields, check: Check) -> tuple[TcbStatus, int, tuple[str, ...]]:
    text = item.text("tcbStatus")
    try:
        status = TcbStatus(text)
    except ValueError:
        raise QuoteError(check, "the TCB status is a known one", value=text) from None
    return status, item.instant("tcbDate"), item.strings("advisoryIDs")


def _components(tcb: Fields, name: str) -> tuple[int, ...]:
    items = tcb.items(name, length=_COMPONENTS)
    svns = [item["svn"] for item in items if type(item) is dict and "svn" in item]
    # bytes() holds each to 0..255 in one step, but would take true for 1.
    if len(svns) != _COMPONENTS or set(map(type, svns)) != {int}:
        raise QuoteError(Check.TCB_INFO_FORMAT, f"{name} holds sixteen numbers")
    try:
        return tuple(bytes(svns))
    except ValueError:
        raise QuoteError(Check.TCB_INFO_FORMAT, f"{name} holds SVNs from 0 to 255") from None

"""TCB statuses: their order, and how platform, module and enclave statuses converge."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

__all__ = ["TcbStatus", "converge", "status_with_relaunch"]


class TcbStatus(StrEnum):
    """Name the statuses from best to worst; ``Revoked`` is never acceptable."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"

    @property
    def severity(self) -> int:
        """Position in the order, 0 for the best."""
        return _ORDER[self]


_ORDER = {status: position for position, status in enumerate(TcbStatus)}

_WITH_CONFIGURATION = frozenset(
    {TcbStatus.CONFIGURATION_NEEDED, TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED}
)
_CURRENT = _WITH_CONFIGURATION | {TcbStatus.UP_TO_DATE, TcbStatus.SW_HARDENING_NEEDED}
_STALE = frozenset({TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED})


def converge(platform: TcbStatus, components: Iterable[TcbStatus]) -> TcbStatus:
    """Combine the platform's status with those of the TDX module and the quoting enclave.

    The result is never better than any part (TDX DCAP, EvaluateTcb): revoked anywhere is revoked,
    out of date anywhere is out of date and keeps the platform's call for configuration.

    Args:
        platform: Status of the matched platform level.
        components: Statuses of module and enclave: UpToDate, OutOfDate or Revoked.
    """
    parts = set(components)
    if TcbStatus.REVOKED in parts or platform is TcbStatus.REVOKED:
        return TcbStatus.REVOKED
    if TcbStatus.OUT_OF_DATE not in parts or platform in _STALE:
        return platform
    if platform in _WITH_CONFIGURATION:
        return TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED
    return TcbStatus.OUT_OF_DATE


def status_with_relaunch(launch: TcbStatus, current: TcbStatus) -> TcbStatus:
    """Say whether restarting the trust domain would help (TD 1.5: module updated under it).

    Args:
        launch: Status by the SVNs at launch.
        current: Status by the SVNs of the module loaded now.
    """
    if launch not in _STALE or current not in _CURRENT:
        return launch
    if launch is TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED or current in _WITH_CONFIGURATION:
        return TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
    return TcbStatus.TD_RELAUNCH_ADVISED

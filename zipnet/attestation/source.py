"""Where this machine's quotes come from, as the operator configured it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from tdx.guest import (
    ConfigfsSource,
    QgsSource,
    connect_unix,
    connect_vsock,
    device_report,
    emulated_report,
)
from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from tdx.guest import QuoteSource

__all__ = ["PlatformConfig", "QuoteSourceKind", "open_source", "require_complete"]

_REGISTERS = 4
_REGISTER_BYTES = 48


class QuoteSourceKind(StrEnum):
    """Ways to a quote."""

    CONFIGFS = "configfs"
    DEVICE = "device"
    EMULATOR = "emulator"


@dataclass(frozen=True, slots=True)
class PlatformConfig:
    """How this machine attests.

    Attributes:
        source: Way to a quote; None on a machine that shows no evidence.
        collateral: File of the collateral bundle this machine's quotes are judged by.
        policy: File of a policy its operator asks of peers besides the group's.
        emulator: Unix socket of ``tdx emulate serve``.
        emulated_mrtd: MRTD (48 bytes) the emulated machine pretends to have measured.
        second_opinion: Whether the ``dcap-qvl`` wheel must accept peers' quotes as well.
    """

    source: QuoteSourceKind | None = None
    collateral: Path | None = None
    policy: Path | None = None
    emulator: Path | None = None
    emulated_mrtd: bytes | None = field(default=None)
    second_opinion: bool = False


def require_complete(config: PlatformConfig) -> None:
    """Refuse a source of quotes without what it needs, before anything is asked of it.

    Raises:
        ConfigError: When an emulator is named without its socket or MRTD, or nothing to judge this
            machine's own quotes by.
    """
    if config.source is QuoteSourceKind.EMULATOR and None in (
        config.emulator,
        config.emulated_mrtd,
    ):
        raise ConfigError(
            "setting TDX_SOURCE is emulator, without TDX_EMULATOR and TDX_EMULATED_MRTD",
            hint="name the socket of `tdx emulate serve`, and 96 hex digits",
        )
    if config.source is not None and config.collateral is None:
        raise ConfigError(
            "setting TDX_COLLATERAL is required where quotes are made",
            hint="write the bundle with `tdx fetch`, and name it here",
        )


def open_source(config: PlatformConfig) -> QuoteSource | None:
    """Return the configured source of quotes; nothing is asked of it yet.

    Raises:
        ConfigError: When an emulator is named without its socket or MRTD.
    """
    match config.source:
        case None:
            return None
        case QuoteSourceKind.CONFIGFS:
            return ConfigfsSource()
        case QuoteSourceKind.DEVICE:
            return QgsSource(device_report(), connect_vsock())
        case QuoteSourceKind.EMULATOR:
            if config.emulator is None or config.emulated_mrtd is None:
                raise ConfigError(
                    "setting TDX_SOURCE is emulator, without TDX_EMULATOR and TDX_EMULATED_MRTD",
                    hint="name the socket of `tdx emulate serve`, and 96 hex digits",
                )
            registers = (bytes(_REGISTER_BYTES),) * _REGISTERS
            report = emulated_report(config.emulated_mrtd, registers)
            return QgsSource(report, connect_unix(config.emulator))

"""Quotes and measurements of the trust domain this process runs in."""

from tdx.guest.configfs import CONFIGFS_REPORTS, ConfigfsSource, OsTree, Tree
from tdx.guest.qgs import (
    QgsSource,
    connect_unix,
    connect_vsock,
    device_report,
    emulated_report,
)
from tdx.guest.registers import MEASUREMENTS, extend_rtmr3, read_register
from tdx.guest.source import QuoteSource

__all__ = [
    "CONFIGFS_REPORTS",
    "MEASUREMENTS",
    "ConfigfsSource",
    "OsTree",
    "QgsSource",
    "QuoteSource",
    "Tree",
    "connect_unix",
    "connect_vsock",
    "device_report",
    "emulated_report",
    "extend_rtmr3",
    "read_register",
]

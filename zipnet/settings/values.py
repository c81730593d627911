"""Text of settings to values: durations, addresses, cadence, and the constants of escape hatches.

Every function here raises :class:`ValueError` with a phrase that says what is wrong *without
quoting the input*; the caller adds the setting's name, the shape of what it got, and the fix.
"""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from typing import Final

from zipnet.access.capability import CapabilityRole

__all__ = [
    "ALLOW_FEW_PARTICIPANTS",
    "ALLOW_PUBLIC_GATEWAY",
    "ALLOW_PUBLIC_METRICS",
    "ALLOW_PUBLISHING_FOR_OTHERS",
    "ALLOW_UNSIGNED_SETTINGS",
    "Endpoint",
    "parse_cover_every",
    "parse_duration_ms",
    "parse_endpoint",
    "parse_endpoints",
    "parse_issuers",
    "parse_mrtd",
    "parse_roles",
    "parse_uids",
    "parse_whole",
]

ALLOW_PUBLIC_METRICS: Final = "I understand that anybody who reaches this port can read it"
"""Value of ``allow_public_metrics`` that lets the HTTP port listen beyond loopback."""

ALLOW_FEW_PARTICIPANTS: Final = "I understand that small rounds hide little"
"""Value of ``allow_few_participants`` that lets production run with fewer than eight clients."""

ALLOW_UNSIGNED_SETTINGS: Final = "I understand that whoever can write this file can change the node"
"""Value of ``allow_unsigned_settings`` that lets production read a settings file nobody signed."""

ALLOW_PUBLIC_GATEWAY: Final = "I understand that anybody can read through this gateway"
"""Value of ``allow_public_gateway`` that lets the gateway listen beyond loopback."""

ALLOW_PUBLISHING_FOR_OTHERS: Final = "I understand that this gateway learns who its authors are"
"""Value of ``allow_publishing_for_others`` that lets other machines publish through it."""

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h)?", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, None: 1000}
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_ISSUER = re.compile(r"issuer1([0-9a-f]{64})")
_MAX_PORT = 65_535
_MAX_ENDPOINTS = 16
_MEASUREMENT_BYTES = 48


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (name or address, IPv6 without brackets) and a port; port 0 means any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the host."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """Write ``host:port``, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(value: object) -> Endpoint:
    """Read ``host:port`` or ``[ipv6]:port``."""
    if isinstance(value, Endpoint):
        return value
    if not isinstance(value, str):
        raise ValueError("not text")  # noqa: TRY004 - pydantic translates ValueError
    host, colon, port = value.strip().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ValueError("not host:port with a port up to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Endpoint(str(ipaddress.IPv6Address(host[1:-1])), int(port))
        except ipaddress.AddressValueError:
            # `from None`: the library's text quotes the input.
            raise ValueError("the host in brackets is no IPv6 address") from None
    if not _HOST.fullmatch(host):
        raise ValueError("the host is neither a name nor an address")
    return Endpoint(host, int(port))


def parse_endpoints(value: object) -> tuple[Endpoint, ...]:
    """Read a list of ``host:port``, or the same as text separated by commas."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not 1 <= len(items) <= _MAX_ENDPOINTS:
        raise ValueError(f"not a list of 1 to {_MAX_ENDPOINTS} addresses")
    endpoints = tuple(parse_endpoint(item) for item in items)
    if any(endpoint.port == 0 for endpoint in endpoints):
        raise ValueError("an address to dial needs a port")
    return endpoints


def parse_duration_ms(value: object) -> int:
    """Read ``2s``, ``500ms``, ``1m`` or a number of seconds; returns milliseconds, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a duration")  # noqa: TRY004 - pydantic translates ValueError
    match = _DURATION.fullmatch(value.strip() if isinstance(value, str) else f"{value:f}")
    if match is None:
        raise ValueError("not a duration")
    milliseconds = float(match[1]) * _UNIT_MS[match[2]]
    if not math.isfinite(milliseconds) or round(milliseconds) < 1:
        raise ValueError("shorter than a millisecond")
    return round(milliseconds)


def parse_cover_every(value: object) -> int:
    """Read a publisher's cadence: ``always`` is 1, N means every N-th round."""
    if value == "always":
        return 1
    number = parse_whole(value)
    if not 1 <= number <= 10_000:  # noqa: PLR2004 - a publisher that rare is no cover for anybody
        raise ValueError("not between 1 and 10000")
    return number


def parse_issuers(value: object) -> tuple[bytes, ...]:
    """Read the keys of token issuers: ``issuer1`` and 64 hexadecimal digits, between commas."""
    keys = tuple(_ISSUER.fullmatch(item) for item in _listed(value))
    if not keys or None in keys:
        raise ValueError("not a list of issuers' keys")
    return tuple(bytes.fromhex(match[1]) for match in keys if match is not None)


def parse_roles(value: object) -> frozenset[CapabilityRole]:
    """Read the roles a node asks a capability for, separated by commas."""
    items = _listed(value)
    if not items or not set(items) <= {str(role) for role in CapabilityRole}:
        raise ValueError("not a list of roles")
    return frozenset(CapabilityRole(item) for item in items)


def parse_uids(value: object) -> tuple[int, ...]:
    """Read numbers of users, separated by commas."""
    return tuple(parse_whole(item) for item in _listed(value))


def _listed(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple | frozenset) or len(items) > _MAX_ENDPOINTS:
        raise ValueError(f"not a list of up to {_MAX_ENDPOINTS}")
    if not all(isinstance(item, str | int) for item in items):
        raise ValueError("not a list of words")
    return tuple(str(item).strip() for item in items)


def parse_whole(value: object) -> int:
    """Read a whole number that is not negative, as a number or as digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:  # noqa: PLR2004
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("not a whole number")
    return value


def parse_mrtd(value: object) -> bytes:
    """Read a measurement of 48 bytes from 96 hexadecimal digits."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("not text")  # noqa: TRY004 - pydantic translates ValueError
    try:
        measurement = bytes.fromhex(value.strip())
    except ValueError:
        raise ValueError("not hexadecimal") from None
    if len(measurement) != _MEASUREMENT_BYTES:
        raise ValueError("not 96 hexadecimal digits")
    return measurement

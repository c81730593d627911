"""Who stands before the wall: what it proved, and what its use is counted under.

Rules:

1. A principal is made from what a handshake or a kernel proved, never from what a request says.
2. Whoever proved an identity is counted under it; an anonymous caller is counted under its network
   prefix (/24 of IPv4, /48 of IPv6), as it could have any number of addresses inside.
3. Keys are for counting. They are never logged, exported or shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from zipnet.wire.handshake import Role

if TYPE_CHECKING:
    from zipnet.protocol.ids import PeerId

__all__ = ["Principal", "PrincipalKind", "local_principal", "peer_principal", "prefix_of"]

_IPV4_PREFIX_BITS: Final = 24
_IPV6_PREFIX_BITS: Final = 48
_UNKNOWN: Final = "unknown"


class PrincipalKind(StrEnum):
    """What a caller is."""

    SERVER = "server"
    AGGREGATOR = "aggregator"
    CLIENT = "client"
    READER = "reader"
    WEB = "web"
    OPERATOR = "operator"


_KIND_OF: Final = {
    Role.SERVER: PrincipalKind.SERVER,
    Role.AGGREGATOR: PrincipalKind.AGGREGATOR,
    Role.CLIENT: PrincipalKind.CLIENT,
    Role.READER: PrincipalKind.READER,
}


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller, as far as it proved itself.

    Attributes:
        kind: What it is.
        key: What its use is counted under.
        prefix: The network it calls from; None where it came by no network, or where the
            descriptor names it, so that its neighbours cannot use up what it may.
        peer: The peer id it proved.
    """

    kind: PrincipalKind
    key: str = field(repr=False)
    prefix: str | None = field(default=None, repr=False)
    peer: PeerId | None = field(default=None, repr=False)


def peer_principal(role: Role, peer: PeerId | None, address: str) -> Principal:
    """Return the principal of a session.

    Args:
        role: What its peer is on this link.
        peer: What it proved; None for an anonymous reader.
        address: ``host:port`` it came from.
    """
    prefix = prefix_of(address)
    kind = _KIND_OF[role]
    named = kind in {PrincipalKind.SERVER, PrincipalKind.AGGREGATOR}
    return Principal(
        kind=kind,
        key=f"{kind}:{prefix if peer is None else peer.hex()}",
        prefix=None if named else prefix,
        peer=peer,
    )


def local_principal(kind: PrincipalKind, name: str) -> Principal:
    """Return the principal of a caller of this machine, such as an operator by user id."""
    return Principal(kind=kind, key=f"{kind}:{name}")


def prefix_of(address: str) -> str:
    """Return the network prefix of ``host:port`` or of a bare host, one word for all others."""
    host = address.strip()
    for candidate in (host, host.rpartition(":")[0]):
        try:
            found = ip_address(candidate.strip("[]").partition("%")[0])
        except ValueError:
            continue
        if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        bits = _IPV6_PREFIX_BITS if isinstance(found, IPv6Address) else _IPV4_PREFIX_BITS
        return str(ip_network((found, bits), strict=False))
    return _UNKNOWN

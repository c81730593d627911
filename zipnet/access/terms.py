"""What a node asks of whoever wants something: for which roles it wants to see a capability.

Row L2. The table below is the whole rule: a request that is not in it needs no capability.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zipnet.access.capability import MAX_ISSUERS, Capability, CapabilityRole
from zipnet.errors import AdmissionError, ConfigError
from zipnet.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GATED", "NO_TERMS", "ROLES_A_NODE_MAY_ASK", "AccessTerms", "require_capability"]

ROLES_A_NODE_MAY_ASK: Final = (
    CapabilityRole.PUBLISH,
    CapabilityRole.AGGREGATE,
    CapabilityRole.READ,
)
"""Roles of the transport port; the others are asked for at the admin socket, always."""

_TAKES_PART = frozenset(ROLES_A_NODE_MAY_ASK)

GATED: Final[Mapping[int, tuple[CapabilityRole, frozenset[CapabilityRole]]]] = MappingProxyType(
    {
        Kind.REGISTER: (CapabilityRole.PUBLISH, frozenset({CapabilityRole.PUBLISH})),
        Kind.SUBMIT_ENVELOPE: (CapabilityRole.PUBLISH, frozenset({CapabilityRole.PUBLISH})),
        Kind.SUBMIT_AGGREGATE: (CapabilityRole.AGGREGATE, frozenset({CapabilityRole.AGGREGATE})),
        Kind.SUBSCRIBE: (CapabilityRole.READ, _TAKES_PART),
        Kind.GET_RECORDS: (CapabilityRole.READ, _TAKES_PART),
    }
)
"""Request → the role whose gate it is behind, and the roles that open it: who takes part reads."""


@dataclass(frozen=True, slots=True)
class AccessTerms:
    """What this node asks for.

    Attributes:
        issuers: Ed25519 keys (32 bytes) that may sign capabilities.
        asked: Roles nobody has here without a capability; empty where none is asked for.
    """

    issuers: tuple[bytes, ...] = ()
    asked: frozenset[CapabilityRole] = frozenset()

    def __post_init__(self) -> None:
        """Refuse terms nobody could meet, or everybody would.

        Raises:
            ConfigError: Roles without issuers, too many issuers, or a role no request is behind.
        """
        if self.asked and not self.issuers:
            raise ConfigError(
                "setting TOKEN_ROLES: no issuer is named, so no token would count",
                hint="set TOKEN_ISSUERS to the keys `zipnet token keygen` printed",
            )
        if len(self.issuers) > MAX_ISSUERS or len(set(self.issuers)) != len(self.issuers):
            raise ConfigError(
                f"setting TOKEN_ISSUERS: up to {MAX_ISSUERS} keys, each once",
                hint="remove the issuers that are no longer needed",
            )
        if not self.asked <= set(ROLES_A_NODE_MAY_ASK):
            raise ConfigError(
                "setting TOKEN_ROLES: only publish, aggregate and read are asked for at this port",
                hint="the admin socket and the export ask for the other roles by themselves",
            )


NO_TERMS: Final = AccessTerms()
"""A node that asks nobody for a capability."""


def require_capability(
    terms: AccessTerms, capability: Capability | None, kind: int, *, now_s: float
) -> None:
    """Refuse a request that is behind a gate for which nothing was shown.

    Args:
        terms: What this node asks for.
        capability: What the session showed, verified and not revoked; None for nothing.
        kind: Frame kind of the request.
        now_s: Seconds since 1970.

    Raises:
        AdmissionError: ``capability_missing``, ``capability_expired`` or ``capability_role``.
    """
    gate = GATED.get(kind)
    if gate is None or gate[0] not in terms.asked:
        return
    if capability is None:
        raise AdmissionError("this needs a capability", code="capability_missing")
    if now_s >= capability.expires_s:
        raise AdmissionError("the capability has expired", code="capability_expired")
    if not gate[1] & capability.roles:
        raise AdmissionError("the capability does not grant this", code="capability_role")

"""Who may call which admin verb: the whole table, deny by default (row L16).

Rules:

1. A verb that is not in the table does not exist.
2. What only looks needs one capability where the node has issuers at all; where it has none, being
   let onto the socket is enough. What changes anything always needs a capability.
3. What destroys or cannot be taken back needs capabilities of two operators: two tokens that were
   minted apart. Two that one holder made out of his own have one ancestor, and count as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zipnet.access.capability import CapabilityRole
from zipnet.errors import AdmissionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zipnet.access.capability import Capability

__all__ = ["VERBS", "VerbTerms", "authorize_verb"]

_LOOKING = frozenset({CapabilityRole.ADMIN_READ, CapabilityRole.ADMIN_WRITE})
_WRITING = frozenset({CapabilityRole.ADMIN_WRITE})
_TAKING = frozenset({CapabilityRole.ARCHIVE, CapabilityRole.ADMIN_READ})


@dataclass(frozen=True, slots=True)
class VerbTerms:
    """What a verb asks for.

    Attributes:
        roles: Any of these roles.
        operators: From how many operators.
        looks: Whether it changes nothing.
    """

    roles: frozenset[CapabilityRole]
    operators: int = 1
    looks: bool = False


VERBS: Final[Mapping[str, VerbTerms]] = MappingProxyType(
    {
        "status": VerbTerms(_LOOKING, looks=True),
        "export": VerbTerms(_TAKING, looks=True),
        "drain": VerbTerms(_WRITING),
        "safe-mode": VerbTerms(_WRITING, operators=2),
        "revoke": VerbTerms(_WRITING, operators=2),
        "rotate": VerbTerms(_WRITING, operators=2),
        "shutdown": VerbTerms(_WRITING, operators=2),
    }
)


def authorize_verb(verb: str, shown: Sequence[Capability], *, has_issuers: bool) -> None:
    """Refuse a call that the capabilities shown do not allow.

    Args:
        verb: What is asked for.
        shown: Capabilities that were verified and are not revoked.
        has_issuers: Whether this node knows an issuer at all.

    Raises:
        AdmissionError: ``unknown_verb``, ``no_issuers``, ``capability_missing`` or
            ``second_operator_missing``.
    """
    terms = VERBS.get(verb)
    if terms is None:
        raise AdmissionError("there is no such verb", code="unknown_verb")
    if not has_issuers:
        if terms.looks:
            return
        raise AdmissionError(
            "this node knows no issuer of capabilities, so nobody may change anything",
            code="no_issuers",
            hint="set TOKEN_ISSUERS",
        )
    fitting = {item.ids[0] for item in shown if item.roles & terms.roles}
    if not fitting:
        roles = " or ".join(sorted(terms.roles))
        raise AdmissionError(
            f"this verb needs a capability of role {roles}", code="capability_missing"
        )
    if len(fitting) < terms.operators:
        raise AdmissionError(
            "this verb needs the capabilities of two operators", code="second_operator_missing"
        )

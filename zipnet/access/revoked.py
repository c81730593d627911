"""What was revoked, as one node knows it (row Z26)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.protocol.revocation import Revocation, RevokedKind

if TYPE_CHECKING:
    from collections.abc import Container

    from zipnet.access.capability import Capability
    from zipnet.protocol.ids import PeerId

__all__ = ["RevokedBook"]


class RevokedBook:
    """Revoked peers and capabilities; nothing ever leaves it."""

    def __init__(self) -> None:
        self._statements: dict[tuple[RevokedKind, bytes], bytes] = {}

    @property
    def statements(self) -> tuple[bytes, ...]:
        """Every statement, in the order it came."""
        return tuple(self._statements.values())

    def add(self, revocation: Revocation, statement: bytes) -> bool:
        """Take a statement that was checked; False when its target is revoked already."""
        key = (revocation.kind, revocation.target)
        if key in self._statements:
            return False
        self._statements[key] = statement
        return True

    def has(self, revocation: Revocation) -> bool:
        """Tell whether the target of a statement is revoked."""
        return (revocation.kind, revocation.target) in self._statements

    def missing_in(self, others: Container[tuple[RevokedKind, bytes]]) -> list[bytes]:
        """Return the statements whose target ``others`` does not have."""
        return [one for key, one in self._statements.items() if key not in others]

    def has_peer(self, peer: PeerId | None) -> bool:
        """Tell whether a peer was revoked."""
        return peer is not None and (RevokedKind.PEER, peer) in self._statements

    def has_capability(self, capability: Capability | None) -> bool:
        """Tell whether a capability, or one it was attenuated from, was revoked."""
        if capability is None:
            return False
        return any((RevokedKind.TOKEN, one) in self._statements for one in capability.ids)

"""The committee secrets a server holds while one takes another's place (decision 0009).

Rules:

1. The group id is made of the founding secret's fingerprint and stays. A version of the descriptor
   may name another secret by its fingerprint; from its adoption on that one is *in force*.
2. A handshake is proved with the secret in force, and believed under any secret that is held: the
   one in force, the one before until the version after, and one that no version has named yet.
   Servers that adopt a version a moment apart stay linked.
3. A secret that an older version than the one before named is wiped and believed no more.
4. What salts a round's commitment is the secret in force under the round's own version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.protocol.ids import committee_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.ids import Digest
    from zipnet.protocol.secret import Secret

__all__ = ["CommitteeSecrets"]


class CommitteeSecrets:
    """What one server holds. ``repr`` shows nothing of it.

    Args:
        descriptor: The version in force, with those before it.
        secrets: What the server was given.
    """

    def __init__(self, descriptor: TrustedDescriptor, secrets: Iterable[Secret]) -> None:
        self._descriptor = descriptor
        self._held: dict[Digest, Secret] = {}
        for secret in secrets:
            self.add(secret)
        self.use(descriptor)

    def add(self, secret: Secret) -> Digest:
        """Hold one more and return its fingerprint; what rule 3 wiped, or is held, is wiped."""
        fingerprint = committee_fingerprint(secret, self._descriptor.descriptor.instance)
        known = self._held.get(fingerprint)
        if known is None and fingerprint not in self._over():
            self._held[fingerprint] = secret
        elif known is not secret:
            secret.close()
        return fingerprint

    def use(self, descriptor: TrustedDescriptor) -> None:
        """Go by a version of the descriptor from now on (rules 1 and 3)."""
        self._descriptor = descriptor
        for old in self._over():
            secret = self._held.pop(old, None)
            if secret is not None:
                secret.close()

    def _over(self) -> set[Digest]:
        """What an older version than the one before named, and no later one (rule 3)."""
        versions = (*self._descriptor.earlier, self._descriptor)
        named = [item.descriptor.secret_fingerprint for item in versions]
        return {*named[:-2]} - {*named[-2:]}

    def __len__(self) -> int:
        """How many are held."""
        return len(self._held)

    def holds(self, descriptor: TrustedDescriptor) -> bool:
        """Whether the secret is here that a version names."""
        return descriptor.descriptor.secret_fingerprint in self._held

    @property
    def in_force(self) -> Secret | None:
        """The secret in force; None where it has not been given to this server yet."""
        return self._held.get(self._descriptor.descriptor.secret_fingerprint)

    @property
    def believed(self) -> tuple[Secret, ...]:
        """What a handshake may be proved with, the one in force first (rule 2)."""
        first = self.in_force
        rest = [secret for secret in self._held.values() if secret is not first]
        return tuple(rest) if first is None else (first, *rest)

    def of_round(self, version: int) -> Secret | None:
        """Return the secret of rounds held under a version; None where it is not here (rule 4).

        Raises:
            VerificationError: When that version is not known here.
        """
        named = self._descriptor.at(version).descriptor.secret_fingerprint
        return self._held.get(named)

    def __repr__(self) -> str:
        """Show how many there are."""
        return f"<CommitteeSecrets {len(self._held)}>"

"""A client's side of attestation: what it demands of the committee, and what it shows.

protocol.md §7. A publisher in a gated group encapsulates to no server whose platform it has not
judged, and shows its own evidence to every server before the evidence they have seen lapses.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from zipnet.admission import EvidenceView, boot_id_of, decode_evidence, kem_key_view
from zipnet.errors import ConfigError, RemoteProtocolError
from zipnet.protocol.attestation import AttestationMode, Gate
from zipnet.transport.session import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.attestation import PlatformAttestor, PlatformConfig
    from zipnet.ports import Attestor
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.identity import Identity

__all__ = ["ClientAttestation", "open_client_attestor"]

_JITTER_SHARE = 16
_DRAWN = secrets.SystemRandom()


def open_client_attestor(
    descriptor: TrustedDescriptor, config: PlatformConfig | None, boot_id: bytes
) -> PlatformAttestor | None:
    """Return what judges nodes and shows this client's evidence; None where nothing is asked.

    Raises:
        ConfigError: When the group gates its clients and this one has no source of quotes.
    """
    terms = descriptor.descriptor.attestation
    if terms.mode is AttestationMode.OFF:
        return None
    # Here, not above: clients of a group that attests nothing load neither quotes nor logging.
    from zipnet.attestation import PlatformAttestor, PlatformConfig  # noqa: PLC0415

    attestor = PlatformAttestor(terms, config or PlatformConfig(), boot_id=boot_id)
    if terms.policy_for(Gate.CLIENT) is not None and not attestor.can_show:
        raise ConfigError(
            "this group admits attested clients only, and no source of quotes was given",
            hint="set TDX_SOURCE and TDX_COLLATERAL, or pass platform= to the publisher",
        )
    return attestor


class ClientAttestation:
    """What one publisher has to do with attestation.

    Args:
        descriptor: The group.
        attestor: Judges and shows.
        identity: The publisher.
        boot_id: 16 random bytes drawn for this publisher.
    """

    def __init__(
        self,
        descriptor: TrustedDescriptor,
        attestor: Attestor,
        identity: Identity,
        boot_id: bytes,
    ) -> None:
        self._descriptor = descriptor
        self._attestor = attestor
        self._view = EvidenceView(
            group=descriptor.group,
            role=Role.CLIENT,
            identity=identity.public,
            boot_id=boot_id_of(boot_id),
        )

    @property
    def shows(self) -> bool:
        """Whether the group asks evidence of its clients."""
        return self._attestor.terms.policy_for(Gate.CLIENT) is not None

    def use_descriptor(self, descriptor: TrustedDescriptor) -> None:
        """Judge the servers of a later version of the descriptor."""
        self._descriptor = descriptor

    def require_vouched(self, announcements: Sequence[bytes], evidence: Sequence[bytes]) -> None:
        """Refuse KEM keys that no judged platform of the committee vouches for.

        Raises:
            RemoteProtocolError: When some evidence is missing.
            AdmissionError: When some is refused; its code says why.
        """
        committee = self._descriptor.committee
        if not len(announcements) == len(evidence) == len(committee):
            raise RemoteProtocolError("not every key of the committee comes with evidence")
        for identity, announcement, shown in zip(committee, announcements, evidence, strict=True):
            view = kem_key_view(self._descriptor.group, identity, announcement)
            self._attestor.judge(shown, view)

    async def show(self) -> bytes | None:
        """Return this client's evidence, None where none is asked.

        Raises:
            AdmissionError: When this machine cannot make any.
        """
        return await self._attestor.show(self._view) if self.shows else None

    async def wait_due(self) -> None:
        """Return when the servers should see fresh evidence, a little after it can be made."""
        evidence = decode_evidence(await self._attestor.show(self._view))
        life_s = evidence.not_after - evidence.not_before
        due = evidence.not_before + 2 * life_s // 3
        # Drawn, so that clients who registered together do not call together for ever.
        due_s = max(0, due - self._attestor.now()) + _DRAWN.uniform(0, life_s / _JITTER_SHARE)
        await asyncio.sleep(due_s)

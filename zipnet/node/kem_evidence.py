"""Evidence that vouches for the committee's KEM keys, for clients that gate the committee.

protocol.md §7. A client talks to one server but encapsulates to every server's key, so each key
comes with evidence of the platform that holds it: a ticket whose quote covers the signed
announcement. Servers fetch each other's, judge it, and keep it until it is due for renewal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.admission import kem_key_view
from zipnet.errors import AdmissionError, RemoteProtocolError, TransportError
from zipnet.protocol.ids import Digest, ServerIndex, content_digest
from zipnet.wire.messages import GetKemEvidence, KemEvidence, Kind, decode

if TYPE_CHECKING:
    from zipnet.admission import EvidenceView
    from zipnet.node.mesh import CommitteeMesh
    from zipnet.ports import Attestor
    from zipnet.protocol.descriptor import TrustedDescriptor

__all__ = ["KemEvidenceKeeper"]

_FETCH_TIMEOUT_S = 5.0


class KemEvidenceKeeper:
    """Has the current evidence for every announced key.

    Args:
        attestor: Shows this server's, judges the others'.
        descriptor: The group.
        server: This server.
        mesh: The way to the others.
    """

    def __init__(
        self,
        attestor: Attestor,
        descriptor: TrustedDescriptor,
        server: ServerIndex,
        mesh: CommitteeMesh,
    ) -> None:
        self._attestor = attestor
        self._descriptor = descriptor
        self._server = server
        self._mesh = mesh
        self._kept: dict[ServerIndex, tuple[Digest, bytes, int]] = {}

    def use_descriptor(self, descriptor: TrustedDescriptor) -> None:
        """Go by a later version of the descriptor."""
        self._descriptor = descriptor

    async def own(self, announcement: bytes) -> bytes:
        """Return this server's evidence for its announced key.

        Raises:
            AdmissionError: When this machine cannot make any now.
        """
        return await self._attestor.show(self._view(self._server, announcement))

    async def of(self, server: ServerIndex, announcement: bytes) -> bytes:
        """Return a server's evidence for its announced key, judged.

        Raises:
            AdmissionError: With code ``not_ready`` when it cannot be had now.
        """
        if server == self._server:
            return await self.own(announcement)
        digest = content_digest(announcement)
        kept = self._kept.get(server)
        if kept is not None and kept[0] == digest and self._attestor.now() < kept[2]:
            return kept[1]
        try:
            answer = await self._mesh.request(
                server,
                Kind.GET_KEM_EVIDENCE,
                GetKemEvidence(announcement=digest),
                timeout_s=_FETCH_TIMEOUT_S,
            )
            evidence = decode(answer, KemEvidence).evidence
            judgement = self._attestor.judge(evidence, self._view(server, announcement))
        except (AdmissionError, RemoteProtocolError, TransportError) as error:
            raise AdmissionError(
                "the committee's keys are not all vouched for at the moment",
                code="not_ready",
                retry_after=0.5,
            ) from error
        self._kept[server] = (digest, evidence, judgement.renew_at)
        return evidence

    def _view(self, server: ServerIndex, announcement: bytes) -> EvidenceView:
        descriptor = self._descriptor
        return kem_key_view(descriptor.group, descriptor.committee[server], announcement)

"""How long each registered client's evidence lasts, as this server alone has judged it.

protocol.md §7. Every server judges the evidence a registration names, and afterwards the evidence
clients show when they call again; who lets it lapse is retired from the registry.

Rules:

1. Nobody is counted on another server's word: evidence is judged here, or the client is retired.
2. A server that was away cannot have seen what clients showed meanwhile: for one lifetime after
   its start, clients it holds no evidence of are left alone.
3. Nothing about a client is logged; refusals are counted by reason.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from zipnet.admission import EvidenceView, decode_evidence
from zipnet.errors import AdmissionError, RemoteProtocolError
from zipnet.observe.log import get_logger
from zipnet.wire.handshake import Role

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from zipnet.machines.registry import RegistryView
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.ports import Attestor
    from zipnet.protocol.identity import PublicIdentity
    from zipnet.protocol.ids import GroupId, PeerId, RegistryIndex

__all__ = ["ClientEvidenceKeeper"]

_LOOK_S = 1.0

_log = get_logger(__name__)


class ClientEvidenceKeeper:
    """Judges clients' evidence for one server, and says whose has lapsed.

    Args:
        attestor: Judges.
        group: The group.
        metrics: Where lapses are counted.
    """

    def __init__(self, attestor: Attestor, group: GroupId, metrics: NodeMetrics) -> None:
        self._attestor = attestor
        self._group = group
        self._metrics = metrics
        self._until: dict[PeerId, int] = {}
        self._grace_until = attestor.now() + attestor.terms.lifetime_s

    def judge(self, identity: PublicIdentity, evidence: bytes) -> None:
        """Judge evidence a client shows now.

        Raises:
            AdmissionError: When it is refused.
        """
        judgement = self._attestor.judge(evidence, self._view(identity))
        self.seen(identity.peer_id, judgement.not_after)

    @property
    def excuses_absence(self) -> bool:
        """Whether rule 2 still excuses clients this server holds no evidence of."""
        return self._attestor.now() <= self._grace_until

    def admits(self, identity: PublicIdentity, evidence: bytes) -> bool:
        """Whether a registration's evidence passes."""
        try:
            shown = decode_evidence(evidence)
            # One that has lapsed since is judged at its last moment: was it ever good?
            late = min(self._attestor.now(), shown.not_after)
            now = late if self.excuses_absence else None
            judgement = self._attestor.judge(evidence, self._view(identity), now=now)
        except (AdmissionError, RemoteProtocolError) as error:
            reason = error.code if isinstance(error, AdmissionError) else error.reason
            self._metrics.rejected.inc(reason)
            _log.warning("registration_refused", reason=reason)
            return False
        if judgement.not_after >= self._attestor.now():
            self.seen(identity.peer_id, judgement.not_after)
        return True

    def seen(self, peer: PeerId, until: int) -> None:
        """Note that a client's evidence was judged and lasts until then, Unix seconds."""
        self._until[peer] = max(until, self._until.get(peer, 0))

    def lapsed(self, registry: RegistryView) -> list[RegistryIndex]:
        """Return the indexes of active clients whose evidence has lapsed."""
        now = self._attestor.now()
        active = registry.active_peers
        late = [
            index
            for peer, index in active.items()
            if self._until.get(peer, self._grace_until) < now
        ]
        for peer in [p for p, until in self._until.items() if until < now and p not in active]:
            del self._until[peer]
        return late

    async def run(
        self,
        registry: Callable[[], RegistryView],
        retire: Callable[[RegistryIndex], Awaitable[None]],
    ) -> None:
        """Retire who lets evidence lapse, until cancelled."""
        told: set[RegistryIndex] = set()
        while True:
            late = self.lapsed(registry())
            for index in late:
                if index not in told:
                    self._metrics.rejected.inc("evidence_lapsed")
                    _log.info("client_retired", reason="evidence_lapsed")
                    await retire(index)
            told = set(late)
            await asyncio.sleep(_LOOK_S)

    def _view(self, identity: PublicIdentity) -> EvidenceView:
        return EvidenceView(group=self._group, role=Role.CLIENT, identity=identity)

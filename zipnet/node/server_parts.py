"""What the parts of a committee server share; built once by ``zipnet.node.server``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zipnet.node.round_traces import RoundTraces
from zipnet.observe.tracing import NO_TRACES

if TYPE_CHECKING:
    from zipnet.machines.server import ServerMachine
    from zipnet.node.capabilities import SessionCapabilities
    from zipnet.node.client_evidence import ClientEvidenceKeeper
    from zipnet.node.kem_evidence import KemEvidenceKeeper
    from zipnet.node.live_descriptor import LiveDescriptor
    from zipnet.node.mesh import CommitteeMesh
    from zipnet.node.record_keeper import RecordKeeper
    from zipnet.node.revocations import NodeRevocations
    from zipnet.node.seating import Seating
    from zipnet.node.server_driver import EventQueue
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.ports import Blobs, Consensus, Journal
    from zipnet.protocol.committee_secrets import CommitteeSecrets
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.pads import PadEngine
    from zipnet.storage.custody import KeyCustody

__all__ = ["ServerParts"]


@dataclass(frozen=True, slots=True)
class ServerParts:
    """Everything a running server works with.

    Attributes:
        live: The descriptor in force.
        committee_secrets: Salt the participant commitments; never leave the process.
        revocations: What was revoked, and the cutting off.
        capabilities: What sessions showed.
        kem_evidence: What vouches for announced KEM keys; None where the group asks for nothing.
        client_evidence: Judges clients' evidence; None where clients are not gated.
        rounds: The rounds' traces.
    """

    machine: ServerMachine
    live: LiveDescriptor
    identity: Identity
    committee_secrets: CommitteeSecrets = field(repr=False)
    consensus: Consensus
    mesh: CommitteeMesh
    custody: KeyCustody
    engine: PadEngine
    releases: Journal
    blobs: Blobs
    keeper: RecordKeeper
    metrics: NodeMetrics
    events: EventQueue
    seating: Seating
    revocations: NodeRevocations
    capabilities: SessionCapabilities
    kem_evidence: KemEvidenceKeeper | None = None
    client_evidence: ClientEvidenceKeeper | None = None
    rounds: RoundTraces = field(default_factory=lambda: RoundTraces(NO_TRACES), repr=False)

    @property
    def descriptor(self) -> TrustedDescriptor:
        """The version of the descriptor in force at this node."""
        return self.live.current

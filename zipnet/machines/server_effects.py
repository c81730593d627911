"""What can happen to a committee server, and what its machine may ask for.

Events are named for what happened, effects for what to do. Duties of whoever drives the machine:

1. Effects of one step run in list order. Nothing after :class:`KeepAggregate`,
   :class:`PersistRelease` or :class:`StepChains` runs before what they write is durable. A snapshot
   of the machine's state is kept only after all effects of the step that led to it.
2. Effects that take time (:class:`Unblind`, :class:`AssembleRecord`, :class:`AdmitClient`,
   :class:`Fetch`) answer later with their event; key custody works them off in the order asked.
3. Where one of those three fails the node is in safe mode: no later effect runs.
4. Blobs that arrive are checked against their digest before their event is fed in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zipnet.machines.committee_outcomes import RoundAborted, RoundSealed
    from zipnet.machines.guard import Released
    from zipnet.protocol.command import Command
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.header import RoundHeader, SignedHeader
    from zipnet.protocol.ids import Digest, RegistryIndex, RoundNumber, ServerIndex
    from zipnet.protocol.participants import Participants
    from zipnet.protocol.registration import RegistryChange
    from zipnet.protocol.revocation import Revocation

__all__ = [
    "AdmitClient",
    "AggregateArrived",
    "AnnounceKemKey",
    "AssembleRecord",
    "CatchUpRecords",
    "ClientAdmitted",
    "ClientNotAdmitted",
    "Committed",
    "DescriptorGiven",
    "Effect",
    "EnforceRevocation",
    "Event",
    "Fetch",
    "Instant",
    "KeepAggregate",
    "KemKeyReady",
    "KemTurnDue",
    "LinksChanged",
    "OpenRoundWith",
    "PartialArrived",
    "PersistRelease",
    "Propose",
    "PublishAborted",
    "PublishOpened",
    "RecordAssembled",
    "RefuseRelease",
    "Restored",
    "RetireChain",
    "RetireOtherChains",
    "SharePartial",
    "StandingChanged",
    "StepChains",
    "StoreRecord",
    "TimerFired",
    "Unblind",
    "UnblindFailed",
    "Unblinded",
    "UseDescriptor",
]


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment: ``monotonic`` seconds for intervals, ``wall_ms`` since 1970 for what is stated."""

    monotonic: float
    wall_ms: int


# -- events ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Committed:
    """The log grew by these commands, in this order."""

    commands: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Restored:
    """A snapshot stands for all commands so far; nothing before it will be handed out.

    Attributes:
        index: How many commands it stands for.
        state: As ``zipnet.machines.committee_snapshot`` writes it.
    """

    index: int
    state: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StandingChanged:
    """This node now leads or follows, and has or has not seen everything that is committed."""

    leads: bool
    caught_up: bool


@dataclass(frozen=True, slots=True)
class LinksChanged:
    """These other servers have a live link to this one."""

    connected: frozenset[ServerIndex]


@dataclass(frozen=True, slots=True)
class AggregateArrived:
    """An aggregate blob is at hand."""

    digest: Digest
    round: RoundNumber
    header_hash: Digest
    participants: Participants


@dataclass(frozen=True, slots=True)
class PartialArrived:
    """A server's partial blob is at hand."""

    server: ServerIndex
    digest: Digest


@dataclass(frozen=True, slots=True)
class Unblinded:
    """This server's own partial for a round is computed and held back."""

    round: RoundNumber
    partial: Digest


@dataclass(frozen=True, slots=True)
class UnblindFailed:
    """A chain this round needs is not held here."""

    round: RoundNumber


@dataclass(frozen=True, slots=True)
class RecordAssembled:
    """All partials are folded in; this is the record this server signs."""

    round: RoundNumber
    record: Digest
    schedule: Digest
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientAdmitted:
    """This server holds the client's chain."""

    index: RegistryIndex


@dataclass(frozen=True, slots=True)
class ClientNotAdmitted:
    """This server cannot hold the client's chain: bad registration, or its KEM key is gone."""

    index: RegistryIndex


@dataclass(frozen=True, slots=True)
class KemKeyReady:
    """The key of an epoch was made and its announcement blob shared."""

    epoch: int
    announcement: Digest


@dataclass(frozen=True, slots=True)
class KemTurnDue:
    """The operator wants a new KEM key now, before its epoch is over."""


@dataclass(frozen=True, slots=True)
class DescriptorGiven:
    """The operator gave this server a later version of the descriptor; it has been checked."""

    descriptor: TrustedDescriptor


@dataclass(frozen=True, slots=True)
class TimerFired:
    """Time went by."""


Event = (
    Committed
    | Restored
    | StandingChanged
    | LinksChanged
    | AggregateArrived
    | PartialArrived
    | Unblinded
    | UnblindFailed
    | RecordAssembled
    | ClientAdmitted
    | ClientNotAdmitted
    | KemKeyReady
    | KemTurnDue
    | DescriptorGiven
    | TimerFired
)

# -- effects -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Propose:
    """Sign a command and put it into the committee's log."""

    command: Command


@dataclass(frozen=True, slots=True)
class OpenRoundWith:
    """Sign a header as its opener and propose to open the round."""

    header: RoundHeader


@dataclass(frozen=True, slots=True)
class KeepAggregate:
    """Make the chosen aggregate durable here: after the release it must never be lost."""

    round: RoundNumber
    aggregate: Digest


@dataclass(frozen=True, slots=True)
class PersistRelease:
    """Make a release durable; what follows in the list waits for it."""

    released: Released


@dataclass(frozen=True, slots=True)
class Unblind:
    """Compute this server's partial for exactly these participants."""

    header: RoundHeader
    aggregate: Digest
    participants: Participants


@dataclass(frozen=True, slots=True)
class RefuseRelease:
    """The guard said no."""

    round: RoundNumber
    reason: str


@dataclass(frozen=True, slots=True)
class SharePartial:
    """From now on this server's partial may leave it."""

    round: RoundNumber
    partial: Digest


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get a blob from one of these servers."""

    digest: Digest
    holders: tuple[ServerIndex, ...]


@dataclass(frozen=True, slots=True)
class AssembleRecord:
    """XOR the aggregate with all partials, build the record's content and make it durable."""

    header: RoundHeader
    sequence: int
    aggregate: Digest
    partials: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """Store the sealed record durably, then serve and publish it.

    Its content is what :class:`AssembleRecord` made, in this process or an earlier one; a server
    that was away, or saw the round differently, fetches the record as for :class:`CatchUpRecords`.
    """

    sealed: RoundSealed


@dataclass(frozen=True, slots=True)
class CatchUpRecords:
    """Fetch and verify records up to, not including, this sequence from other servers."""

    next_sequence: int


@dataclass(frozen=True, slots=True)
class StepChains:
    """Step every chain past this round, erase the old keys, and make that durable."""

    round: RoundNumber


@dataclass(frozen=True, slots=True)
class AdmitClient:
    """Fetch and verify a registration, open its ciphertext and begin the client's chain."""

    change: RegistryChange


@dataclass(frozen=True, slots=True)
class RetireChain:
    """Erase the chain of a retired index once no open round needs it, and its registration."""

    index: RegistryIndex
    registration: Digest | None


@dataclass(frozen=True, slots=True)
class RetireOtherChains:
    """Erase, as by :class:`RetireChain`, every chain but those of these indexes."""

    kept: frozenset[RegistryIndex]


@dataclass(frozen=True, slots=True)
class AnnounceKemKey:
    """Have a KEM key for an epoch and share its announcement; answer with :class:`KemKeyReady`.

    Attributes:
        epoch: The epoch that is due.
        announced: The newest epoch this server ever announced, -1 for none. Where the key of
            ``epoch`` is not held and ``epoch`` was announced already, the key is made for
            ``announced + 1``, so that one epoch never has two keys.
    """

    epoch: int
    announced: int


@dataclass(frozen=True, slots=True)
class PublishOpened:
    """Tell subscribers that a round opened."""

    signed: SignedHeader


@dataclass(frozen=True, slots=True)
class PublishAborted:
    """Tell subscribers that a round was given up."""

    aborted: RoundAborted


@dataclass(frozen=True, slots=True)
class EnforceRevocation:
    """Cut off what was revoked, keep the statement for restarts, and tell the aggregators."""

    revocation: Revocation
    statement: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UseDescriptor:
    """Go on under this version: keep it, and dial and admit whom it names."""

    descriptor: TrustedDescriptor


Effect = (
    Propose
    | OpenRoundWith
    | KeepAggregate
    | PersistRelease
    | Unblind
    | RefuseRelease
    | SharePartial
    | Fetch
    | AssembleRecord
    | StoreRecord
    | CatchUpRecords
    | StepChains
    | AdmitClient
    | RetireChain
    | RetireOtherChains
    | AnnounceKemKey
    | PublishOpened
    | PublishAborted
    | EnforceRevocation
    | UseDescriptor
)

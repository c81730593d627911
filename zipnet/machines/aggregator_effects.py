"""What can happen to an aggregator, and what its machine may ask for.

Events are named for what happened, effects for what to do. Duties of whoever drives the machine:

1. Effects of one step are performed in list order.
2. Events of a submission carry a ``ticket`` of the driver's choice; exactly one :class:`Accept` or
   :class:`Refuse` of the same step answers it.
3. :class:`TimerFired` is fed at or after each moment :class:`ArmTimer` named; sooner does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zipnet.protocol.aggregate import Aggregate
    from zipnet.protocol.descriptor import AggregatorEntry, TrustedDescriptor
    from zipnet.protocol.envelope import Envelope
    from zipnet.protocol.header import SignedHeader
    from zipnet.protocol.ids import Digest, PeerId, RoundNumber
    from zipnet.protocol.registration import RegistryChange

__all__ = [
    "Accept",
    "ArmTimer",
    "ChildAggregate",
    "DescriptorChanged",
    "Distrust",
    "Effect",
    "EnvelopeReceived",
    "Event",
    "FetchRegistry",
    "HeaderReceived",
    "PeerGone",
    "PeerHere",
    "Refuse",
    "RegistryReceived",
    "RelayHeader",
    "RoundOver",
    "SendAggregate",
    "SourceChanged",
    "TimerFired",
]

# -- events ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """Headers and registry changes now come from another server than before."""


@dataclass(frozen=True, slots=True)
class HeaderReceived:
    """A server pushed a signed header; nothing about it has been checked."""

    signed: SignedHeader


@dataclass(frozen=True, slots=True)
class RegistryReceived:
    """A server sent the registry changes that follow ``from_version``."""

    from_version: int
    changes: tuple[RegistryChange, ...]


@dataclass(frozen=True, slots=True)
class PeerHere:
    """A client, or a child aggregator, has a live session with this node."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class PeerGone:
    """The session of such a peer ended."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class EnvelopeReceived:
    """The client that proved to be ``source`` sent an envelope."""

    source: PeerId
    envelope: Envelope
    ticket: int


@dataclass(frozen=True, slots=True)
class ChildAggregate:
    """The aggregator that proved to be ``source`` sent an aggregate blob with this digest."""

    source: PeerId
    digest: Digest
    aggregate: Aggregate
    ticket: int


@dataclass(frozen=True, slots=True)
class RoundOver:
    """A verified record says that a round is over."""

    round: RoundNumber


@dataclass(frozen=True, slots=True)
class DescriptorChanged:
    """A later version of the descriptor is in force; this node's own entry in it."""

    descriptor: TrustedDescriptor
    entry: AggregatorEntry


@dataclass(frozen=True, slots=True)
class TimerFired:
    """Time went by."""


Event = (
    SourceChanged
    | HeaderReceived
    | RegistryReceived
    | PeerHere
    | PeerGone
    | EnvelopeReceived
    | ChildAggregate
    | RoundOver
    | DescriptorChanged
    | TimerFired
)

# -- effects -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FetchRegistry:
    """Ask the server for the registry changes that follow ``from_version``."""

    from_version: int


@dataclass(frozen=True, slots=True)
class Distrust:
    """What the present source said is wrong: take another server.

    Attributes:
        reason: Why, snake_case.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class RelayHeader:
    """Tell this node's own subscribers that the round is open here."""

    signed: SignedHeader


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """Feed :class:`TimerFired` at this monotonic time, in seconds."""

    at: float


@dataclass(frozen=True, slots=True)
class Accept:
    """The submission counts, or is a copy of one that does."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The submission does not count.

    Attributes:
        ticket: Whose.
        reason: Why, snake_case: the refusal that crosses the wire.
    """

    ticket: int
    reason: str


@dataclass(frozen=True, slots=True)
class SendAggregate:
    """Folding is over: send the blob to the parent, or to every server where there is none.

    Attributes:
        round: The round.
        count: How many clients are in it.
        own: How many of them sent their envelope to this node itself.
        blob: The encoded aggregate.
    """

    round: RoundNumber
    count: int
    own: int
    blob: bytes = field(repr=False)


Effect = FetchRegistry | Distrust | RelayHeader | ArmTimer | Accept | Refuse | SendAggregate

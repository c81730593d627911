"""What happens to a publisher (events) and what it wants done (effects).

Times are the driver's monotonic seconds. A ticket is the driver's own number for one message; the
machine never sees the message itself, only its fragments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from zipnet.protocol.registration import NO_EVIDENCE

if TYPE_CHECKING:
    from zipnet.machines.outgoing import Receipt
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.envelope import Envelope
    from zipnet.protocol.header import SignedHeader
    from zipnet.protocol.ids import Digest, MessageId, RegistryIndex, RoundNumber
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.protocol.slots import Fragment

__all__ = [
    "AbortReceived",
    "AnnouncementsReceived",
    "ArmTimer",
    "CountCrowd",
    "CrowdCounted",
    "Delivered",
    "DescriptorChanged",
    "EnvelopeAccepted",
    "EnvelopeRefused",
    "EnvelopeUnsent",
    "Failed",
    "FetchRecords",
    "HeaderReceived",
    "MessageQueued",
    "MessageWithdrawn",
    "Progressed",
    "PublisherEffect",
    "PublisherEvent",
    "RecordReceived",
    "Refuse",
    "RegisterAgain",
    "RegistrationAccepted",
    "RegistrationFailed",
    "SendEnvelope",
    "SendRegistration",
    "Stopped",
    "TimerFired",
]


@dataclass(frozen=True, slots=True)
class AnnouncementsReceived:
    """A server showed the committee's KEM announcements.

    Attributes:
        blobs: One signed announcement per server, in server order.
        wall_ms: Wall clock now, milliseconds since 1970; the registration's serial.
        evidence: Content digest of the evidence the registration goes with, where one is due.
    """

    blobs: tuple[bytes, ...] = field(repr=False)
    wall_ms: int
    evidence: Digest = NO_EVIDENCE


@dataclass(frozen=True, slots=True)
class RegistrationAccepted:
    """The committee committed this client's registration."""

    index: RegistryIndex
    version: int
    first_round: RoundNumber


@dataclass(frozen=True, slots=True)
class RegistrationFailed:
    """The registration that was sent came to nothing; its secrets are of no more use."""


@dataclass(frozen=True, slots=True)
class HeaderReceived:
    """A relay passed on a signed round header; not yet verified.

    Attributes:
        signed: The header.
        wall_ms: Wall clock now, milliseconds since 1970; None where age plays no part.
    """

    signed: SignedHeader
    wall_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RecordReceived:
    """A record arrived and verified."""

    record: VerifiedRecord


@dataclass(frozen=True, slots=True)
class AbortReceived:
    """A relay says that a round was given up: a hint, nobody signs it."""

    round: RoundNumber
    why: int


@dataclass(frozen=True, slots=True)
class CrowdCounted:
    """How many clients are registered: the least that any committee server says."""

    registered: int


@dataclass(frozen=True, slots=True)
class EnvelopeAccepted:
    """The aggregator took the envelope of a round."""

    round: RoundNumber


@dataclass(frozen=True, slots=True)
class EnvelopeUnsent:
    """The envelope of a round was thrown away before a byte of it left."""

    round: RoundNumber


@dataclass(frozen=True, slots=True)
class EnvelopeRefused:
    """The aggregator refused the envelope of a round with a refusal code."""

    round: RoundNumber
    code: str


@dataclass(frozen=True, slots=True)
class MessageQueued:
    """The user wants a message broadcast before ``deadline``."""

    ticket: int
    fragments: tuple[Fragment, ...] = field(repr=False)
    deadline: float


@dataclass(frozen=True, slots=True)
class MessageWithdrawn:
    """The user no longer waits for a message; no further envelope shall carry any of it."""

    ticket: int


@dataclass(frozen=True, slots=True)
class DescriptorChanged:
    """A later version of the descriptor is in force; it has been checked."""

    descriptor: TrustedDescriptor


@dataclass(frozen=True, slots=True)
class Stopped:
    """The publisher ends, for the reason given; no message can be confirmed any more."""

    why: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time of the last :class:`ArmTimer` has come."""


PublisherEvent = (
    AnnouncementsReceived
    | RegistrationAccepted
    | RegistrationFailed
    | HeaderReceived
    | RecordReceived
    | AbortReceived
    | CrowdCounted
    | EnvelopeAccepted
    | EnvelopeUnsent
    | EnvelopeRefused
    | MessageQueued
    | MessageWithdrawn
    | DescriptorChanged
    | Stopped
    | TimerFired
)


@dataclass(frozen=True, slots=True)
class SendRegistration:
    """Send this signed registration to the server that showed the announcements."""

    blob: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendEnvelope:
    """Send this envelope to the aggregator at monotonic time ``at``, once."""

    envelope: Envelope
    at: float


@dataclass(frozen=True, slots=True)
class FetchRecords:
    """Get the records from this sequence number on; the machine is behind."""

    from_sequence: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """Every fragment of a message stands in a verified record."""

    ticket: int
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Failed:
    """A message's deadline passed, or the publisher stopped.

    Attributes:
        ticket: Which message.
        message_id: Its random id.
        left: Whether any part of it ever left in an envelope.
        text: What is known, in one line.
        hint: What to do about it; empty where the driver knows best.
    """

    ticket: int
    message_id: MessageId
    left: bool
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Progressed:
    """Something became of a message that is still on its way.

    Attributes:
        ticket: Which message.
        stage: ``sent`` (an aggregator took an envelope with part of it) or ``broadcast`` (a
            verified record shows part of it).
        round: The round it happened in.
        placed: Fragments that verified records show so far.
        fragments: Fragments it has.
    """

    ticket: int
    stage: Literal["sent", "broadcast"]
    round: RoundNumber
    placed: int
    fragments: int


@dataclass(frozen=True, slots=True)
class CountCrowd:
    """Ask the committee how many clients are registered."""


@dataclass(frozen=True, slots=True)
class RegisterAgain:
    """The registration is of no more use; get fresh announcements."""

    why: str


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """Fire :class:`TimerFired` at this time; replaces the timer armed before."""

    at: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """Something that arrived was not acted upon; ``reason`` is an error's stable code."""

    reason: str
    text: str


PublisherEffect = (
    SendRegistration
    | SendEnvelope
    | FetchRecords
    | CountCrowd
    | Delivered
    | Progressed
    | Failed
    | RegisterAgain
    | ArmTimer
    | Refuse
)

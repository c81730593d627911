"""The publisher: one client's part in every round (protocol.md §4, §5, §8).

Rules:

1. A header is acted upon once, in increasing round order, and only if its opener signed it, it is
   of this group and descriptor version, its roster is allowed, the registration is good for it,
   and it agrees with the last verified record where that one is known (§6 "open", §8.4).
2. At most one envelope per round number: the chains are stepped past it and the guard takes the
   number before the envelope exists (§4.5, §8.1). There is no retransmission.
3. Message, reservation and cover take the same path: same size, same work, drawn delay (§5).
4. Slots are taken from the last verified record alone, and only while the header names exactly
   that record and its schedule.
5. A fragment counts as broadcast when a verified record shows it, as lost when the record of its
   round does not, or a signed header says its round had none; lost ones are reserved for again.
6. Every message ends in one ``Delivered`` or one ``Failed`` that says what is known (§8.8).
7. While ``Withholding`` has a reason, rounds are filled as if there were nothing to say.

Longer than most: it is one transition table, whose books are kept by five smaller modules.

Aborts told by relays are hints for error texts only. Fetching, timing, failover and verification of
records belong to the driver (``zipnet.sdk.publisher``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, assert_never

from zipnet.errors import ConfigError, LocalProtocolError, ProtocolError, VerificationError
from zipnet.machines.client_chains import ClientChains, RoundGuard
from zipnet.machines.cover import Cover
from zipnet.machines.outgoing import Outgoing, QueuedMessage
from zipnet.machines.publisher_events import (
    AbortReceived,
    AnnouncementsReceived,
    ArmTimer,
    CountCrowd,
    CrowdCounted,
    Delivered,
    DescriptorChanged,
    EnvelopeAccepted,
    EnvelopeRefused,
    EnvelopeUnsent,
    Failed,
    FetchRecords,
    HeaderReceived,
    MessageQueued,
    MessageWithdrawn,
    Progressed,
    PublisherEffect,
    PublisherEvent,
    RecordReceived,
    Refuse,
    RegisterAgain,
    RegistrationAccepted,
    RegistrationFailed,
    SendEnvelope,
    SendRegistration,
    Stopped,
    TimerFired,
)
from zipnet.machines.registering import PendingRegistration, prepare_registration
from zipnet.machines.round_vector import SlotClaims
from zipnet.machines.trust import TrustPolicy
from zipnet.machines.withholding import Withholding
from zipnet.protocol.command import AbortReason
from zipnet.protocol.envelope import seal_envelope
from zipnet.protocol.header import verify_header
from zipnet.protocol.record import require_extends, require_version_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.ids import Digest, RoundNumber
    from zipnet.protocol.pads import PadEngine
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["PublisherMachine", "PublisherPolicy"]

_NOT_REGISTERED = "not_registered"
_MAX_RESERVATIONS = 64


@dataclass(frozen=True, slots=True)
class PublisherPolicy:
    """How a publisher takes part.

    Attributes:
        cover: Which rounds to take part in, whether or not there is something to say.
        reservations: Most slots asked for in one round.
        jitter_s: Bound of the drawn delay before an envelope leaves, in seconds.
        min_registered: Fewest registered clients before the first message.
        settle_rounds: Rounds with cover before the first message.
        min_anonymity_set: Fewest participants of the last round while messages may leave.
        trust: What is asked of every round.
    """

    cover: Cover = field(default_factory=Cover)
    reservations: int = 4
    jitter_s: float = 0.1
    min_registered: int = 0
    settle_rounds: int = 0
    min_anonymity_set: int = 0
    trust: TrustPolicy = field(default_factory=TrustPolicy)

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ConfigError: When a value is out of range.
        """
        if not 1 <= self.reservations <= _MAX_RESERVATIONS:
            raise ConfigError(
                f"reservations is {self.reservations}, 1 to {_MAX_RESERVATIONS} are allowed"
            )
        if self.jitter_s < 0:
            raise ConfigError("jitter_s must not be negative")
        if min(self.min_registered, self.settle_rounds, self.min_anonymity_set) < 0:
            raise ConfigError("min_registered, settle_rounds, min_anonymity_set: 0 or more")


class PublisherMachine:
    """The publisher's decisions; performs nothing itself.

    Args:
        descriptor: The instance, verified.
        identity: The client's identity; signs registrations and envelopes.
        draw: Source of random bytes.
        pads: Calibrated pad engine.
        policy: How to take part.
    """

    def __init__(
        self,
        descriptor: TrustedDescriptor,
        identity: Identity,
        *,
        draw: Callable[[int], bytes],
        pads: PadEngine,
        policy: PublisherPolicy | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._identity = identity
        self._draw = draw
        self._pads = pads
        self._policy = policy or PublisherPolicy()
        self._guard = RoundGuard()
        self._claims = SlotClaims(descriptor.params, self._policy.reservations, draw)
        self._outgoing = Outgoing()
        self._trust = self._policy.trust.bind(descriptor)
        self._withholding = Withholding(
            min_registered=self._policy.min_registered,
            settle_rounds=self._policy.settle_rounds,
            min_anonymity_set=self._policy.min_anonymity_set,
        )
        self._pending: PendingRegistration | None = None
        self._registered: RegistrationAccepted | None = None
        self._chains: ClientChains | None = None
        self._serial = 0
        self._last: VerifiedRecord | None = None
        self._trouble = ""
        self._fragments_placed = 0
        self._spoke: set[RoundNumber] = set()
        self._fruitless = 0
        self._decided_until: RoundNumber | None = None
        self._early: RoundHeader | None = None

    @property
    def registered(self) -> bool:
        """Whether a registration is in force as far as this client knows."""
        return self._registered is not None

    @property
    def registering(self) -> bool:
        """Whether a registration that was made still waits for its answer."""
        return self._pending is not None

    @property
    def fragments_placed(self) -> int:
        """How many fragments verified records have shown so far: a measure of progress."""
        return self._fragments_placed

    @property
    def fruitless_records(self) -> int:
        """How many records in a row lack what this client put into their rounds.

        Rounds in which it had nothing to say, or withheld it, do not count: nothing of them shows.
        """
        return self._fruitless

    def forget_fruitless(self) -> None:
        """Count anew, for another way into the network."""
        self._fruitless = 0

    @property
    def rounds_covered(self) -> int:
        """How many rounds the registration in force took part in."""
        return self._withholding.covered

    @property
    def decided_until(self) -> RoundNumber | None:
        """The last final round when this client first took part; None before.

        Whatever an earlier process sent under this identity or another stands in a record up to
        that round, or was lost: later rounds were opened after this registration.
        """
        return self._decided_until

    @property
    def last_record(self) -> VerifiedRecord | None:
        """The newest verified record."""
        return self._last

    def step(self, event: PublisherEvent, now: float) -> list[PublisherEffect]:
        """Take one event and return what to do, in order.

        Raises:
            GuardError: When a round number would be used twice: a bug, and never to go on from.
        """
        effects = self._dispatch(event, now)
        return effects + self._expire(now, timer=isinstance(event, TimerFired))

    def close(self) -> None:
        """Wipe every key; the machine takes part in nothing afterwards."""
        self._drop_registration()
        self._drop_pending()
        self._claims.close()

    def _dispatch(self, event: PublisherEvent, now: float) -> list[PublisherEffect]:  # noqa: C901, PLR0911, PLR0912 - the transition table
        match event:
            case HeaderReceived():
                return self._on_header(event, now)
            case RecordReceived():
                return self._on_record(event)
            case AnnouncementsReceived():
                return self._on_announcements(event)
            case RegistrationAccepted():
                return self._on_registration_accepted(event, now)
            case RegistrationFailed():
                self._drop_pending()
                return []
            case MessageQueued():
                return self._on_message_queued(event)
            case MessageWithdrawn():
                self._outgoing.drop(event.ticket)
                return self._arm()
            case CrowdCounted():
                self._withholding.counted(event.registered)
                return []
            case EnvelopeAccepted():
                return self._on_envelope_accepted(event)
            case EnvelopeUnsent():
                self._outgoing.unsent(event.round)
                return []
            case DescriptorChanged():
                return self._on_descriptor(event)
            case EnvelopeRefused():
                return self._on_envelope_refused(event)
            case AbortReceived():
                return self._on_abort(event)
            case Stopped():
                self._trouble = event.why
                return self._fail(self._outgoing.expired(float("inf")))
            case TimerFired():
                return []
            case _:
                assert_never(event)

    # Registration -------------------------------------------------------------------------------

    def _on_announcements(self, event: AnnouncementsReceived) -> list[PublisherEffect]:
        self._drop_pending()
        self._serial = max(self._serial + 1, event.wall_ms)
        try:
            self._pending = prepare_registration(
                event.blobs,
                self._descriptor,
                self._identity,
                serial=self._serial,
                draw=self._draw,
                evidence=event.evidence,
            )
        except (ProtocolError, VerificationError) as error:
            return self._refuse(error.reason, str(error))
        return [SendRegistration(self._pending.blob)]

    def _on_registration_accepted(
        self, event: RegistrationAccepted, now: float
    ) -> list[PublisherEffect]:
        if self._pending is None:
            return self._refuse("local_protocol", "a registration was accepted that was not sent")
        self._drop_registration()
        self._chains = ClientChains(
            self._descriptor.group,
            self._pending.shared,
            first_round=event.first_round,
            max_skip_rounds=self._descriptor.params.max_skip_rounds,
        )
        self._pending = None
        self._registered = event
        self._withholding.joined()
        early, self._early = self._early, None
        if early is None or early.round <= self._guard.last:
            return [CountCrowd()]
        return [*self._take_part(early, now), CountCrowd()]

    def _on_envelope_accepted(self, event: EnvelopeAccepted) -> list[PublisherEffect]:
        self._withholding.took_part()
        return [
            self._progress(message, "sent", event.round)
            for message in self._outgoing.aboard(event.round)
        ]

    def _on_envelope_refused(self, event: EnvelopeRefused) -> list[PublisherEffect]:
        effects = self._refuse("refused", f"round {event.round}: {event.code}")
        if event.code == _NOT_REGISTERED and event.round == self._guard.last:
            self._drop_registration()
            effects.append(RegisterAgain(event.code))
        return effects

    def _on_descriptor(self, event: DescriptorChanged) -> list[PublisherEffect]:
        """Ask the user's policy again; where a server was replaced, no registration reaches it."""
        trust = self._policy.trust.bind(event.descriptor)
        replaced = event.descriptor.committee != self._descriptor.committee
        self._descriptor, self._trust, self._early = event.descriptor, trust, None
        if not replaced:
            return []
        self._drop_registration()
        self._drop_pending()
        return [RegisterAgain("descriptor_changed")]

    def _drop_registration(self) -> None:
        if self._chains is not None:
            self._chains.wipe()
        self._chains = None
        self._registered = None

    def _drop_pending(self) -> None:
        if self._pending is not None:
            self._pending.wipe()
        self._pending = None

    # Rounds -------------------------------------------------------------------------------------

    def _on_header(self, event: HeaderReceived, now: float) -> list[PublisherEffect]:
        if event.signed.header.round <= self._guard.last:
            return []
        try:
            header = verify_header(event.signed, self._descriptor.committee_keys)
            self._require_allowed(header)
            self._trust.require_roster(header)
            self._trust.require_recent(header, event.wall_ms)
        except (ProtocolError, VerificationError) as error:
            return self._refuse(error.reason, str(error))
        # A signed header says which later rounds had no record: their fragments may go again.
        self._outgoing.abandon_after(header.previous_final)
        self._claims.forget_between(header.previous_final, header.round)
        # The answer to a registration may come after the round it is already good for.
        self._early = header if self._registered is None else None
        count: list[PublisherEffect] = [CountCrowd()] if self._wants_count() else []
        return self._behind(header) + self._take_part(header, now) + count

    def _wants_count(self) -> bool:
        # Asked for by every client alike, with or without something to say.
        return self._registered is not None and self._withholding.wants_count

    def _require_allowed(self, header: RoundHeader) -> None:
        # 1. Of this group, under the descriptor this client was given (protocol.md §3).
        if header.group != self._descriptor.group:
            raise VerificationError("round header belongs to another group")
        version = self._descriptor.descriptor.version
        if header.descriptor_version != version:
            raise VerificationError(
                f"round {header.round} runs under descriptor version {header.descriptor_version}, "
                f"this client has version {version}",
                hint="get the current descriptor from the operator",
            )
        # 2. With a roster the descriptor allows (§8.4).
        self._descriptor.require_roster(header.roster)
        # 3. On top of the record chain this client has verified (§6 "open").
        if self._last is None:
            return
        if header.previous_final < self._last.round:
            raise VerificationError(f"round {header.round} goes back behind a verified record")
        if header.previous_final == self._last.round and (
            header.previous_record != self._last.hash
            or header.schedule != self._last.record.content.schedule
        ):
            raise VerificationError(f"round {header.round} is built on a forked record")

    def _behind(self, header: RoundHeader) -> list[PublisherEffect]:
        if self._last is None or header.previous_final <= self._last.round:
            return []
        return [FetchRecords(self._last.sequence + 1)]

    def _take_part(self, header: RoundHeader, now: float) -> list[PublisherEffect]:
        registration, chains = self._registered, self._chains
        if registration is None or chains is None:
            return []
        if header.registry_version < registration.version:
            return []
        if header.round < registration.first_round or not self._policy.cover.takes_part(header):
            return []
        try:
            pad_keys = chains.take_pad_keys(header)
        except LocalProtocolError as error:  # too far ahead: the number is not taken by this
            self._drop_registration()
            return [*self._refuse(error.reason, str(error)), RegisterAgain(error.reason)]
        self._guard.claim(header.round)
        if self._decided_until is None:
            self._decided_until = header.previous_final
        body = self._fill(header, header.hash)
        self._pads.apply_many(body, pad_keys)
        for key in pad_keys:
            key[:] = bytes(len(key))
        envelope = seal_envelope(header, registration.index, bytes(body), self._identity)
        return [SendEnvelope(envelope, now + self._delay_s())]

    def _fill(self, header: RoundHeader, header_hash: Digest) -> bytearray:
        granted = self._claims.granted(header, self._last)
        withheld = self._withholding.reason(self._last) is not None
        boarded = self._outgoing.board(header.round, [] if withheld else granted)
        wanted = 0 if withheld else self._outgoing.waiting_count()
        if boarded or wanted:
            self._spoke.add(header.round)
        return self._claims.fill(header.round, header_hash, boarded, wanted=wanted)

    def _delay_s(self) -> float:
        drawn = int.from_bytes(self._draw(8), "big") / (1 << 64)
        return drawn * self._policy.jitter_s

    # Records ------------------------------------------------------------------------------------

    def _on_record(self, event: RecordReceived) -> list[PublisherEffect]:
        record, last = event.record, self._last
        if last is not None and record.sequence <= last.sequence:
            if record.sequence == last.sequence and record.hash != last.hash:
                return self._refuse("verification", f"record {record.sequence} exists twice")
            return []
        if last is not None and record.sequence > last.sequence + 1:
            if self._outgoing.rounds_in_flight:
                # Whether something of ours was broadcast stands in the records between.
                return [FetchRecords(last.sequence + 1)]
            if record.round <= last.round:
                return self._refuse("verification", f"record {record.sequence} goes back in rounds")
            try:
                require_version_from(record, last)
            except VerificationError as error:
                return self._refuse(error.reason, str(error))
        elif last is not None:
            try:
                require_extends(record, last)
            except VerificationError as error:
                return self._refuse(error.reason, str(error))
        return self._accept(record)

    def _accept(self, record: VerifiedRecord) -> list[PublisherEffect]:
        self._last = record
        if self._early is not None and self._early.round <= record.round:
            self._early = None
        self._claims.forget_before(record.round)
        effects: list[PublisherEffect] = []
        landed = self._outgoing.land(record)
        if landed:
            self._fruitless = 0
        elif record.round in self._spoke:
            self._fruitless += 1
        self._spoke = {number for number in self._spoke if number > record.round}
        for message, placed in landed:
            self._fragments_placed += placed
            effects.append(self._progress(message, "broadcast", record.round))
            effects += self._delivered(message)
        return effects + (self._arm() if effects else [])

    def _delivered(self, message: QueuedMessage) -> list[PublisherEffect]:
        receipt = message.receipt()
        if receipt is None:
            return []
        self._outgoing.deliver(message.ticket)
        return [Delivered(message.ticket, receipt)]

    def _progress(
        self, message: QueuedMessage, stage: Literal["sent", "broadcast"], number: RoundNumber
    ) -> Progressed:
        placed, fragments = len(message.placed), len(message.fragments)
        return Progressed(message.ticket, stage, number, placed, fragments)

    def _on_abort(self, event: AbortReceived) -> list[PublisherEffect]:
        if self._early is not None and self._early.round <= event.round:
            self._early = None
        if event.why in AbortReason.__members__.values():
            why = AbortReason(event.why).name.lower()
            self._trouble = f"round {event.round} was given up: {why}"
        return []

    # Messages -----------------------------------------------------------------------------------

    def _on_message_queued(self, event: MessageQueued) -> list[PublisherEffect]:
        message = QueuedMessage(event.ticket, event.fragments, event.deadline)
        # One that was given up may stand in records by now.
        return self._delivered(self._outgoing.add(message)) + self._arm()

    def _arm(self) -> list[PublisherEffect]:
        deadline = self._outgoing.next_deadline()
        return [] if deadline is None else [ArmTimer(deadline)]

    def _expire(self, now: float, *, timer: bool) -> list[PublisherEffect]:
        expired = self._outgoing.expired(now)
        # A timer that fired a little early is armed again.
        return self._fail(expired) + (self._arm() if expired or timer else [])

    def _fail(self, messages: list[QueuedMessage]) -> list[PublisherEffect]:
        for message in messages:
            self._outgoing.drop(message.ticket)
        withheld = self._withholding.reason(self._last)
        # Before the registration stands, a wait for others is not what keeps it.
        hint = withheld.hint if withheld and self._registered is not None else ""
        return [
            Failed(m.ticket, m.message_id, left=bool(m.left_in), text=self._known(m), hint=hint)
            for m in messages
        ]

    def _known(self, message: QueuedMessage) -> str:
        if message.placed:
            known = f"{len(message.placed)} of {len(message.fragments)} fragments were broadcast"
        elif message.left_in:
            known = "it left in an envelope, and no record shows it"
        elif self._registered is None:
            known = "this client is not registered yet"
        elif (withheld := self._withholding.reason(self._last)) is not None:
            known = withheld.text
        else:
            known = "no round offered it a slot"
        return f"{known}; {self._trouble}" if self._trouble else known

    def _refuse(self, reason: str, text: str) -> list[PublisherEffect]:
        self._trouble = text
        return [Refuse(reason, text)]

"""Runs the publisher machine: what it asks for is done here, what happens is told to it.

Rules:

1. Everything a relay says is checked before the machine hears of it: records are verified, headers
   are checked by the machine itself, aborts are hints.
2. Registration goes to a committee server, envelopes to one aggregator, missing records come from a
   committee server over a link that does not say who asks.
3. A link that ends, lies, falls silent or loses what it was given makes way for the next node.
4. Every envelope the machine asks for is sent at most once, at the time it was drawn for.
5. What a user's progress callback does comes after the envelope is gone: it cannot delay one.
6. A later version of the descriptor is taken from whichever node names it first, as its operator's
   signature allows.

The decisions are ``zipnet.machines.publisher``'s; the user's side is ``zipnet.sdk.publisher``.
Longer than most modules: a task for each kind of link, an arm for each effect.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from zipnet.errors import (
    AdmissionError,
    NotSent,
    PublishError,
    RemoteProtocolError,
    TransportError,
    Unknown,
    VerificationError,
    ZipnetError,
)
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
from zipnet.protocol.header import SignedHeader
from zipnet.protocol.ids import RegistryIndex, RoundNumber, content_digest
from zipnet.protocol.registration import NO_EVIDENCE
from zipnet.sdk.crowd import count_crowd
from zipnet.sdk.joining import require_agreed
from zipnet.sdk.links import LINK_ERRORS, Dialer, Trouble, Turns, serving, silence_s
from zipnet.transport.session import Role
from zipnet.transport.versions import know_version
from zipnet.wire.messages import (
    MAX_RECORDS_PER_PAGE,
    GetKemKeys,
    GetRecords,
    KemKeys,
    Kind,
    Records,
    RecordSealed,
    Register,
    Registered,
    RoundAborted,
    RoundOpened,
    SubmitEnvelope,
    Subscribe,
    Subscribed,
    VersionAdopted,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zipnet.machines.outgoing import Receipt
    from zipnet.machines.publisher import PublisherMachine
    from zipnet.machines.publisher_events import PublisherEffect, PublisherEvent
    from zipnet.protocol.descriptor import NodeEntry, TrustedDescriptor
    from zipnet.protocol.ids import MessageId
    from zipnet.protocol.slots import Fragment
    from zipnet.sdk.attestation import ClientAttestation
    from zipnet.sdk.verifier import RecordVerifier
    from zipnet.transport.session import Session
    from zipnet.wire.frames import Frame

__all__ = ["Draft", "PublisherDriver"]

_REGISTER_TIMEOUT_S = 15.0
_REGISTER_AGAIN_S = 10.0
_FRUITLESS_RECORDS = 8
_SHOW_AGAIN_S = 2.0
_SHOW_ATTEMPTS = 8
_COUNT_AGAIN_S = 1.0
_MAX_SENDS = 256


@dataclass(frozen=True, slots=True)
class Draft:
    """A message cut to fit, and what makes it that message.

    Attributes:
        message: What is to be said.
        salt: 8 bytes that go with it; the same message and salt have the same id.
        fragments: It, cut into slots.
    """

    message: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    fragments: tuple[Fragment, ...] = field(repr=False)

    @property
    def message_id(self) -> MessageId:
        """The message's id."""
        return self.fragments[0].message_id


class PublisherDriver:
    """Performs the effects of one publisher machine.

    Args:
        descriptor: The instance.
        dialer: How nodes are reached, as the client itself.
        machine: The decisions.
        verifier: Turns record bytes into verified records.
        on_trouble: Told about everything that went wrong and is being dealt with.
        attestation: What it has to do with evidence; None where the group asks for none.
    """

    def __init__(
        self,
        descriptor: TrustedDescriptor,
        dialer: Dialer,
        machine: PublisherMachine,
        verifier: RecordVerifier,
        *,
        on_trouble: Trouble,
        attestation: ClientAttestation | None = None,
    ) -> None:
        self._attestation = attestation
        self.registered = asyncio.Event()
        self.took_part = asyncio.Event()
        self._descriptor = descriptor
        self._dialer = dialer
        self._machine = machine
        self._verifier = verifier
        self._on_trouble = on_trouble
        self._loop = asyncio.get_running_loop()
        # One envelope per round at most, taken out at once: it cannot grow.
        self._outbox: asyncio.Queue[SendEnvelope] = asyncio.Queue(_MAX_SENDS)
        self._session: Session | None = None
        self._waiters: dict[int, tuple[asyncio.Future[Receipt], Draft]] = {}
        self._watchers: dict[int, Callable[[Progressed], None]] = {}
        self._last_ticket = 0
        self._timer: asyncio.TimerHandle | None = None
        self._registration_due = asyncio.Event()
        self._registration_due.set()
        self._registered_at = float("-inf")
        self._fetch_due = asyncio.Event()
        self._reads_by_name = False
        self._count_due = asyncio.Event()
        self._fetch_from = 0
        self._last_header_at = self._loop.time()
        self._turns: dict[str, tuple[TrustedDescriptor, Turns]] = {}
        self._hindered = ""  # what kept this client from the network last

    # What the user's side calls -----------------------------------------------------------------

    def queue(
        self, draft: Draft, deadline: float, on_progress: Callable[[Progressed], None] | None
    ) -> tuple[int, asyncio.Future[Receipt]]:
        """Queue a message; the future ends in a receipt or in a PublishError."""
        self._last_ticket += 1
        ticket = self._last_ticket
        future: asyncio.Future[Receipt] = self._loop.create_future()
        self._waiters[ticket] = (future, draft)
        if on_progress is not None:
            self._watchers[ticket] = on_progress
        self._step(MessageQueued(ticket, draft.fragments, deadline))
        return ticket, future

    def withdraw(self, ticket: int) -> None:
        """Stop sending a message nobody waits for any more."""
        if self._forget(ticket) is not None:
            self._step(MessageWithdrawn(ticket))

    def _forget(self, ticket: int) -> tuple[asyncio.Future[Receipt], Draft] | None:
        self._watchers.pop(ticket, None)
        return self._waiters.pop(ticket, None)

    def stop(self, why: str) -> None:
        """End every waiting message with what is known about it."""
        self._step(Stopped(why))
        if self._timer is not None:
            self._timer.cancel()

    async def run(self) -> None:
        """Keep registered, subscribed and up to date until cancelled.

        Raises:
            ExceptionGroup: When every node refuses for good, or the machine's guard stopped it.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_registered())
            group.create_task(self._keep_shown())
            group.create_task(self._keep_subscribed())
            group.create_task(self._keep_up_to_date())
            group.create_task(self._keep_sending())
            group.create_task(self._keep_counting())

    # Events in, effects out ---------------------------------------------------------------------

    def _step(self, event: PublisherEvent) -> list[PublisherEffect]:
        effects = self._machine.step(event, self._loop.time())
        for effect in effects:
            self._perform(effect)
        return effects

    def _perform(self, effect: PublisherEffect) -> None:  # noqa: C901, PLR0912 - one arm per effect
        match effect:
            case SendEnvelope():
                try:
                    self._outbox.put_nowait(effect)
                except asyncio.QueueFull:  # rounds open faster than this process gets to run
                    unsent = EnvelopeUnsent(effect.envelope.round)
                    self._loop.call_soon(self._step, unsent)
            case Delivered():
                waiting = self._forget(effect.ticket)
                if waiting is not None and not waiting[0].done():
                    waiting[0].set_result(effect.receipt)
            case Progressed():
                if effect.ticket in self._watchers:
                    self._loop.call_soon(self._watchers[effect.ticket], effect)
            case CountCrowd():
                self._count_due.set()
            case Failed():
                self._fail(effect)
            case FetchRecords():
                self._fetch_from = effect.from_sequence
                self._fetch_due.set()
            case RegisterAgain():
                self.registered.clear()
                self._registration_due.set()
            case ArmTimer():
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = self._loop.call_at(effect.at, self._step, TimerFired())
            case Refuse():
                self._on_trouble(VerificationError(effect.text))
            case SendRegistration():
                pass  # the task that brought the announcements sends it
            case _:
                assert_never(effect)

    def _fail(self, effect: Failed) -> None:
        waiting = self._forget(effect.ticket)
        if waiting is None or waiting[0].done():
            return
        future, draft = waiting
        outcome: type[PublishError] = Unknown if effect.left else NotSent
        hint = (
            "publish it again with its salt: whoever reads is told of it once"
            if effect.left
            else f"nothing of it left this process; {effect.hint or 'it can be sent again'}"
        )
        apart = f"; {self._hindered}" if self._session is None and self._hindered else ""
        future.set_exception(
            outcome(
                f"message was not confirmed: {effect.text}{apart}",
                message_id=effect.message_id,
                message=draft.message,
                salt=draft.salt,
                hint=hint,
            )
        )
        future.exception()  # a caller that was cancelled never looks

    # Versions of the descriptor -----------------------------------------------------------------

    async def _know_version(self, session: Session, version: int) -> None:
        """Rule 6."""
        known = self._verifier.descriptor
        new = await know_version(session, known, version)
        if new is known or new.version < self._verifier.descriptor.version:
            return
        if new.version != known.version:
            # A registration that is due now is due for a reason that is signed.
            self._registered_at = float("-inf")
            self._step(DescriptorChanged(new))
        self._descriptor = new
        self._verifier.use_descriptor(new)
        self._dialer = self._dialer.under(new)
        if self._attestation is not None:
            self._attestation.use_descriptor(new)

    def _turns_of(self, what: str, *nodes: Sequence[NodeEntry]) -> Turns:
        """Whose turn it is among the nodes of the version in force."""
        kept = self._turns.get(what)
        if kept is None or kept[0] is not self._descriptor:
            kept = (self._descriptor, Turns(*nodes, on_trouble=self._on_trouble))
            self._turns[what] = kept
        return kept[1]

    def _server_turns(self, what: str) -> Turns:
        return self._turns_of(what, self._descriptor.descriptor.servers)

    # Registration -------------------------------------------------------------------------------

    async def _keep_registered(self) -> None:
        while True:
            await self._registration_due.wait()
            self._registration_due.clear()
            # An aggregator that lies about the registry can make a client ask only this often.
            since = self._loop.time() - self._registered_at
            await asyncio.sleep(max(_REGISTER_AGAIN_S - since, 0.0))
            while True:
                turns = self._server_turns("register")
                try:
                    await self._register(turns.current())
                except LINK_ERRORS as error:
                    self._hindered = str(error)
                    await turns.failed(error)
                else:
                    self._hindered = ""
                    turns.succeeded()
                    break

    async def _register(self, node: NodeEntry) -> None:
        session = await self._dialer.open(node, expected_role=Role.SERVER)
        async with serving(session):
            answer = await session.request(Kind.GET_KEM_KEYS, encode(GetKemKeys()))
            keys = decode(answer.payload, KemKeys)
            evidence = None
            if self._attestation is not None:
                self._attestation.require_vouched(keys.announcements, keys.evidence)
                evidence = await self._attestation.show()
            named = NO_EVIDENCE if evidence is None else content_digest(evidence)
            wall_ms = time.time_ns() // 1_000_000
            effects = self._step(AnnouncementsReceived(tuple(keys.announcements), wall_ms, named))
            prepared = [effect.blob for effect in effects if isinstance(effect, SendRegistration)]
            if not prepared:
                # A server that came with a later version signs what this one cannot check.
                await self._know_version(session, self._descriptor.version + 1)
                raise RemoteProtocolError(f"{node.name} showed KEM keys that do not verify")
            register = encode(Register(registration=prepared[0], evidence=evidence))
            try:
                answer = await session.request(
                    Kind.REGISTER, register, timeout_s=_REGISTER_TIMEOUT_S
                )
                accepted = decode(answer.payload, Registered)
                await require_agreed(
                    accepted,
                    node,
                    register,
                    descriptor=self._descriptor,
                    dialer=self._dialer,
                    on_trouble=self._on_trouble,
                    timeout_s=_REGISTER_TIMEOUT_S,
                )
            except ZipnetError:
                self._step(RegistrationFailed())
                raise
        if not self._machine.registering:
            return  # a version that came meanwhile made it void, and another one due
        self._registered_at = self._loop.time()
        self._step(
            RegistrationAccepted(
                RegistryIndex(accepted.index), accepted.version, RoundNumber(accepted.first_round)
            )
        )
        self.registered.set()

    async def _keep_shown(self) -> None:
        """Show every server fresh evidence before what it has seen lapses."""
        if self._attestation is None or not self._attestation.shows:
            return
        while True:
            await self.registered.wait()
            try:
                await self._attestation.wait_due()
            except AdmissionError as error:  # no quote just now
                self._on_trouble(error)
                await asyncio.sleep(_SHOW_AGAIN_S)
                continue
            async with asyncio.TaskGroup() as group:
                for node in self._descriptor.descriptor.servers:
                    group.create_task(self._show_to(node))

    async def _show_to(self, node: NodeEntry) -> None:
        for _ in range(_SHOW_ATTEMPTS):
            try:
                session = await self._dialer.open(node, expected_role=Role.SERVER)
            except LINK_ERRORS as error:
                self._on_trouble(error)
                await asyncio.sleep(_SHOW_AGAIN_S)
            else:
                await session.close()
                return

    # The aggregator -----------------------------------------------------------------------------

    async def _keep_subscribed(self) -> None:
        while True:
            await self.registered.wait()
            entries = self._descriptor.descriptor.aggregators
            parents = {entry.parent for entry in entries}
            leaves = [e.node for e in entries if e.node.name not in parents]
            inner = [e.node for e in entries if e.node.name in parents]
            turns = self._turns_of("subscribe", leaves, inner)
            try:
                await self._follow(turns)
            except LINK_ERRORS as error:
                self._session = None
                self._hindered = str(error)
                self._register_again_if_unknown(error)
                await turns.failed(error)
            finally:
                self._session = None

    async def _follow(self, turns: Turns) -> None:
        session = await self._dialer.open(turns.current(), expected_role=Role.AGGREGATOR)
        primed = asyncio.Event()

        async def on_frame(frame: Frame) -> None:
            await primed.wait()  # pushes come after the state they build on
            await self._on_push(session, frame)

        async with serving(session, on_frame) as served:
            answer = await session.request(Kind.SUBSCRIBE, encode(Subscribe(from_sequence=None)))
            await self._on_subscribed(session, decode(answer.payload, Subscribed))
            self._session = session
            self._last_header_at = self._loop.time()
            self._machine.forget_fruitless()
            if self._machine.registered:
                turns.succeeded()
            primed.set()
            await self._until_useless(served)
        raise session.ended_by or TransportError("the aggregator ended the link")

    async def _until_useless(self, served: asyncio.Task[None]) -> None:
        """Return when the link has ended; raises when it lives and is of no use."""
        allowed_s = silence_s(self._descriptor)
        while not served.done():
            left_s = self._last_header_at + allowed_s - self._loop.time()
            if left_s <= 0:
                raise TransportError(f"no round was opened for {allowed_s:g} s")
            if (fruitless := self._machine.fruitless_records) >= _FRUITLESS_RECORDS:
                raise TransportError(f"{fruitless} records came without what was sent")
            await asyncio.wait({served}, timeout=min(left_s, 1.0))

    async def _on_subscribed(self, session: Session, state: Subscribed) -> None:
        if state.last_record is not None:
            await self._on_record(session, state.last_record)
        if state.open_round is not None:
            await self._on_header(session, state.open_round)

    async def _on_push(self, session: Session, frame: Frame) -> None:
        match frame.kind:
            case Kind.ROUND_OPENED:
                await self._on_header(session, decode(frame.payload, RoundOpened).header)
            case Kind.RECORD_SEALED:
                await self._on_record(session, decode(frame.payload, RecordSealed).record)
            case Kind.ROUND_ABORTED:
                aborted = decode(frame.payload, RoundAborted)
                self._step(AbortReceived(RoundNumber(aborted.round), aborted.why))
            case Kind.VERSION_ADOPTED:
                adopted = decode(frame.payload, VersionAdopted)
                await self._know_version(session, adopted.version)
            case _:
                raise RemoteProtocolError(f"frame kind {frame.kind} is no push for a client")

    async def _on_header(self, session: Session, data: bytes) -> None:
        signed = SignedHeader.decode(data)
        await self._know_version(session, signed.header.descriptor_version)
        self._step(HeaderReceived(signed, time.time_ns() // 1_000_000))
        self._last_header_at = self._loop.time()

    async def _on_record(self, session: Session, data: bytes) -> None:
        await self._know_version(session, self._verifier.version_of(data))
        self._step(RecordReceived(await self._verifier.verify(data)))

    async def _keep_sending(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._send_envelope(await self._outbox.get()))

    async def _send_envelope(self, effect: SendEnvelope) -> None:
        envelope = effect.envelope
        await asyncio.sleep(effect.at - self._loop.time())
        session = self._session
        if session is None:
            self._step(EnvelopeUnsent(envelope.round))
            return
        payload = encode(
            SubmitEnvelope(
                round=envelope.round,
                header_hash=envelope.header_hash,
                sender=envelope.sender,
                body=envelope.body,
                signature=envelope.signature,
            )
        )
        try:
            await session.request(Kind.SUBMIT_ENVELOPE, payload)
        except AdmissionError as error:
            self._step(EnvelopeRefused(envelope.round, error.code))
        except ZipnetError as error:
            # Whether it arrived is not known; the record will tell. It is not sent again.
            self._on_trouble(error)
        else:
            self._step(EnvelopeAccepted(envelope.round))
            self.took_part.set()

    def _register_again_if_unknown(self, error: ZipnetError) -> None:
        since = self._loop.time() - self._registered_at
        unknown = isinstance(error, AdmissionError) and error.code == "not_registered"
        if unknown and since > _REGISTER_AGAIN_S:  # fresh ones take a moment to reach everybody
            self.registered.clear()
            self._registration_due.set()

    # The crowd ----------------------------------------------------------------------------------

    async def _keep_counting(self) -> None:
        while True:
            await self._count_due.wait()
            self._count_due.clear()
            counted = await count_crowd(self._descriptor, self._dialer, self._on_trouble)
            if counted is None:
                self._count_due.set()
            else:
                self._step(CrowdCounted(counted))
            await asyncio.sleep(_COUNT_AGAIN_S)

    # Missing records ----------------------------------------------------------------------------

    async def _keep_up_to_date(self) -> None:
        while True:
            await self._fetch_due.wait()
            self._fetch_due.clear()
            turns = self._server_turns("fetch")
            try:
                await self._fetch(turns.current())
            except LINK_ERRORS as error:
                self._fetch_due.set()
                # Nobody reads unnamed where readers need a capability.
                gated = isinstance(error, AdmissionError) and error.code == "capability_missing"
                if gated and self._dialer.capability is not None:
                    self._reads_by_name = True
                await turns.failed(error)
            else:
                turns.succeeded()

    async def _fetch(self, node: NodeEntry) -> None:
        dialer = self._dialer if self._reads_by_name else self._dialer.anonymous()
        session = await dialer.open(node, expected_role=Role.SERVER)
        async with serving(session):
            while True:
                asked = self._fetch_from
                request = GetRecords(from_sequence=asked, limit=MAX_RECORDS_PER_PAGE)
                answer = await session.request(Kind.GET_RECORDS, encode(request))
                page = decode(answer.payload, Records)
                for data in page.records:
                    await self._on_record(session, data)
                last = self._machine.last_record
                reached = 0 if last is None else last.sequence + 1
                if page.records and reached <= asked:
                    raise RemoteProtocolError(f"{node.name} sent records that lead nowhere")
                self._fetch_from = reached
                if not page.records or reached >= page.next_sequence:
                    return

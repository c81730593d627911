"""Publishing from a program: ``async with Publisher(...)``, ``await publisher.publish(b"…")``.

Example::

    async with Publisher(descriptor, transport="quic") as publisher:
        receipt = await publisher.publish(b"hello", timeout=60)
        print(receipt.round, receipt.slots, receipt.participants)

Rules:

1. From entering to leaving the block the client takes part in rounds: with a message, or with cover
   that nobody can tell from one (protocol.md §5).
2. ``publish`` ends in a receipt built from verified records, or in an error that says what is
   known: ``NotSent``, ``Unknown`` or ``Refused`` (§8.8). The message comes back with the error.
3. Without an identity a fresh one is drawn; with one, every start registers anew, so that no pad of
   an earlier run can recur (§4.5).
4. Nothing real leaves before enough others are registered and this client has taken part with cover
   (§5.5); acts that weaken anonymity are warned of before they are done.
5. A message is its bytes and its salt: published again with the same salt it is the same message,
   and whoever reads is told of it once.
6. With an outbox a message is on disk before any of it leaves, until its outcome was told.
7. No signal handler, no logging set-up, no thread left after the block.

Long because most of it is what a user reads: the docstrings of the one class they meet.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import warnings
from typing import TYPE_CHECKING, Literal, Self

from zipnet.errors import (
    AnonymityWarning,
    LocalProtocolError,
    NotSent,
    PublishError,
    Refused,
    ZipnetError,
)
from zipnet.machines.cover import Cover
from zipnet.machines.publisher import PublisherMachine, PublisherPolicy
from zipnet.machines.trust import TrustPolicy
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import RoundNumber
from zipnet.protocol.pads import PadEngine
from zipnet.protocol.secret import Secret
from zipnet.protocol.slots import SALT_BYTES, fragment_message, max_message_bytes
from zipnet.sdk.attestation import ClientAttestation, open_client_attestor
from zipnet.sdk.driver import Draft, PublisherDriver
from zipnet.sdk.links import Dialer, Trouble, client_transport, silence_s
from zipnet.sdk.recovery import find_broadcast
from zipnet.sdk.sending import Progress, Sending
from zipnet.sdk.verifier import RecordVerifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from zipnet.attestation import PlatformConfig
    from zipnet.machines.outgoing import Receipt
    from zipnet.ports import Transport
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.ids import PeerId
    from zipnet.sdk.outbox import Outbox, Stored

__all__ = ["Publisher", "PublisherConditions"]

_JITTER_SHARE = 0.25
_SMALL_CROWD = 8
_LEAVING_ROUNDS = 3
_LINGER_POLL_S = 0.05
_NOT_RUNNING = "the publisher is not running: use it inside `async with`"


class PublisherConditions:
    """What can be waited for: ``await publisher.when.registered()``."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def registered(self) -> None:
        """Return as soon as the committee has this client in its registry.

        Raises:
            ZipnetError: What made the publisher give up.
        """
        await self._publisher._reached("registered")  # noqa: SLF001 - its other half

    async def took_part(self) -> None:
        """Return as soon as an aggregator has accepted one envelope of this client.

        Raises:
            ZipnetError: What made the publisher give up.
        """
        await self._publisher._reached("took_part")  # noqa: SLF001 - its other half

    async def closed(self) -> None:
        """Return as soon as the publisher was closed.

        Raises:
            ZipnetError: What made the publisher give up, if it did.
        """
        await self._publisher._ended()  # noqa: SLF001 - its other half


class Publisher:
    """A client of one instance, from registration to receipts.

    Example::

        descriptor = zipnet.load_descriptor("acme.toml", operator="zp1…")
        async with zipnet.Publisher(descriptor, linger_rounds=3) as publisher:
            receipt = await publisher.publish(b"hello", timeout=60)
            print(receipt.round, receipt.slots, receipt.participants)

    From entering to leaving the block it takes part in rounds, with a message or with cover. Every
    ``publish`` ends in a receipt or in ``NotSent``, ``Unknown`` or ``Refused``.

    Args:
        descriptor: The instance, verified.
        identity: The client's identity; None draws a fresh one for this run.
        transport: ``quic``, ``tls``, or an adapter of the Transport port.
        proxy: ``socks5://host:port`` all links go through, such as Tor's; needs ``tls``.
        cover: Which rounds to take part in: ``zipnet.always()``, ``every(n)``, ``window(...)``.
        min_anonymity_set: Fewest participants of the last round while messages may leave; 0 asks
            for no more than the group does.
        settle_rounds: Rounds with cover before the first message.
        linger_rounds: Rounds with cover after the last message before leaving the block.
        trust: What is asked of every round beyond the descriptor.
        outbox: Where messages are kept until they have an outcome; None keeps them in memory only.
        max_queued: Messages under way at once; further ``publish`` calls wait.
        max_queued_bytes: Their bytes.
        reservations: Most slots asked for in one round.
        jitter_s: Bound of the drawn delay of envelopes; None derives it from the fold deadline.
        servers_at: Host and port of each committee server, where the descriptor's do not apply.
        platform: Where this machine's TDX quotes come from, in a group that gates its clients.
        capability: Token shown to servers and aggregators after the handshake, where the group's
            nodes ask for one. Its ids say to them whose it is, as the session does; it is never in
            an envelope, nor in anything that is broadcast.
        on_trouble: Told about refusals and broken links while the publisher goes on.
        on_warning: Told before acts that weaken anonymity; None issues ``AnonymityWarning``, which
            a warnings filter can turn into an error.

    Attributes:
        when: Conditions to wait for.
    """

    def __init__(  # noqa: PLR0913 - options, each with a default
        self,
        descriptor: TrustedDescriptor,
        *,
        identity: Identity | None = None,
        transport: Literal["quic", "tls"] | Transport = "quic",
        proxy: str | None = None,
        cover: Cover = Cover(),  # noqa: B008 - frozen
        min_anonymity_set: int = 0,
        settle_rounds: int = 1,
        linger_rounds: int = 0,
        trust: TrustPolicy = TrustPolicy(),  # noqa: B008 - frozen
        outbox: Outbox | None = None,
        max_queued: int = 64,
        max_queued_bytes: int = 4 * 1024 * 1024,
        reservations: int = 4,
        jitter_s: float | None = None,
        servers_at: Sequence[tuple[str, int]] | None = None,
        platform: PlatformConfig | None = None,
        capability: bytes | None = None,
        on_trouble: Trouble | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        self.when = PublisherConditions(self)
        self._descriptor = descriptor
        self._policy = PublisherPolicy(
            cover=cover,
            reservations=reservations,
            jitter_s=_jitter_s(descriptor) if jitter_s is None else jitter_s,
            min_registered=descriptor.params.min_participants,
            settle_rounds=settle_rounds,
            min_anonymity_set=min_anonymity_set,
            trust=trust,
        )
        trust.bind(descriptor)  # mistakes are told here, not in the background
        self._outbox = outbox
        self._outbox_turn = asyncio.Lock()
        self._linger_rounds = linger_rounds
        self._max_queued = (max_queued, max_queued_bytes)
        self._on_warning = on_warning
        self._talked_at: int | None = None
        self._transport = client_transport(transport, descriptor, proxy)
        self._servers_at = servers_at
        self._capability = capability
        self._boot_id = secrets.token_bytes(16)
        self._attestor = open_client_attestor(descriptor, platform, self._boot_id)
        self._on_trouble = on_trouble or (lambda _error: None)
        self._own_identity = identity is None
        self._identity = identity or _fresh_identity()
        self._driver: PublisherDriver | None = None
        self._machine: PublisherMachine | None = None
        self._sending: Sending | None = None
        self._running: asyncio.Task[None] | None = None
        self._gave_up: ZipnetError | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def peer_id(self) -> PeerId:
        """Peer id this client registers under."""
        return self._identity.peer_id

    async def __aenter__(self) -> Self:
        """Start registering and taking part, in the background.

        Raises:
            LocalProtocolError: When this publisher was started before.
        """
        if self._running is not None:
            raise LocalProtocolError("a publisher can be started once only")
        params = self._descriptor.params
        machine = PublisherMachine(
            self._descriptor,
            self._identity,
            draw=secrets.token_bytes,
            pads=PadEngine.calibrate(time.perf_counter, body_bytes=params.body_bytes),
            policy=self._policy,
        )
        verifier = RecordVerifier(self._descriptor)
        self._cleanup.callback(verifier.close)
        self._cleanup.callback(machine.close)
        if self._own_identity:
            self._cleanup.callback(self._identity.close)
        dialer = Dialer(
            self._descriptor,
            self._transport,
            self._identity,
            self._boot_id,
            self._servers_at,
            attestor=self._attestor,
            capability=self._capability,
        )
        attestation = None
        if self._attestor is not None:
            attestation = ClientAttestation(
                self._descriptor, self._attestor, self._identity, self._boot_id
            )
        self._machine = machine
        self._driver = PublisherDriver(
            self._descriptor,
            dialer,
            machine,
            verifier,
            on_trouble=self._on_trouble,
            attestation=attestation,
        )
        count, size = self._max_queued
        self._sending = Sending(self._driver, max_queued=count, max_queued_bytes=size)
        self._running = asyncio.create_task(self._run(self._driver))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave: messages still under way end with what is known, links close, keys are wiped.

        With ``linger_rounds`` a block that ends well first takes part in that many more rounds.
        """
        try:
            if error is None:
                await self._linger()
        finally:
            await self.close()

    async def _linger(self) -> None:
        """Take part with cover after talking, for as long as was asked and rounds go on."""
        if self._talked_at is None or self._running is None or self._machine is None:
            return
        until = self._talked_at + self._linger_rounds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._linger_rounds * silence_s(self._descriptor)):
                while self._machine.rounds_covered < until and not self._running.done():
                    await asyncio.wait({self._running}, timeout=_LINGER_POLL_S)
        if self._machine.rounds_covered - self._talked_at < _LEAVING_ROUNDS:
            self._warn(
                "leaving right after talking ties this client to what was said: linger a while"
            )

    async def close(self) -> None:
        """Leave at once, without lingering. Idempotent."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        self._cleanup.close()

    async def publish(
        self,
        data: bytes,
        *,
        timeout: float = 60.0,  # noqa: ASYNC109 - a deadline that yields an outcome, not a cancellation
        salt: bytes | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Receipt:
        """Broadcast a message anonymously and wait for the proof that it was.

        Several calls may run at once. A call that is cancelled withdraws its message.

        Args:
            data: 1 byte up to ``max_message_bytes`` of the group; long ones take several slots.
            timeout: Seconds after which the message is given up; waiting for room counts.
            salt: 8 bytes; the same data with the same salt is the same message. None draws them.
            on_progress: Told when part of the message was sent or broadcast.

        Raises:
            LocalProtocolError: When the message is empty or too long; nothing was sent.
            NotSent: When time ran out before any part of it left, or the publisher is closed.
            Unknown: When part of it left and no verified record shows all of it. Publish it again
                with ``error.salt``: readers are told of it once, however often it is broadcast.
            Refused: When the network refused this client for good.
        """
        if self._sending is None or self._running is None or self._machine is None:
            raise LocalProtocolError(_NOT_RUNNING)
        draft = self._draft(data, salt)
        if self._running.done():
            raise self._ended_with(draft)
        self._warn_before_talking()
        number = await self._store(draft)
        try:
            return await self._send(draft, timeout, on_progress)
        finally:
            if number is not None:
                await self._strike(number)

    async def _send(
        self,
        draft: Draft,
        timeout_s: float,
        on_progress: Callable[[Progress], None] | None,
    ) -> Receipt:
        if self._sending is None or self._machine is None:
            raise LocalProtocolError(_NOT_RUNNING)
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            receipt = await self._sending.send(draft, deadline, on_progress)
        except PublishError as error:
            if self._gave_up is not None:
                raise self._ended_with(draft) from error
            raise
        self._talked_at = self._machine.rounds_covered
        return receipt

    async def recover(self, *, timeout: float = 600.0) -> list[Receipt | PublishError]:  # noqa: ASYNC109 - as for publish
        """Bring to an end what an earlier process left in the outbox.

        Messages that were broadcast are found in the log; the others are sent again, under their
        own ids. Each has its outcome in the list, oldest first, and is then struck out.

        Args:
            timeout: Seconds for each message that has to be sent again.

        Raises:
            LocalProtocolError: When the publisher does not run or has no outbox.
            ZipnetError: What made the publisher give up; the messages stay in the outbox.
        """
        if self._outbox is None or self._machine is None:
            raise LocalProtocolError("there is no outbox to recover from")
        stored = self._outbox.pending()
        if not stored:
            return []
        await self.when.took_part()
        found = await find_broadcast(
            stored,
            self._descriptor,
            self._transport,
            until=self._machine.decided_until or RoundNumber(0),
            servers_at=self._servers_at,
            capability=self._capability,
            on_trouble=self._on_trouble,
        )

        async def finish(one: Stored) -> Receipt | PublishError:
            outcome: Receipt | PublishError | None = found.get(one.number)
            if outcome is None:
                try:
                    outcome = await self._send(self._draft(one.message, one.salt), timeout, None)
                except PublishError as error:
                    outcome = error
            return outcome

        outcomes = list(await asyncio.gather(*(finish(one) for one in stored)))
        # Not before all have ended: what is struck out and not told yet would be lost by a crash.
        for one in stored:
            await self._strike(one.number)
        return outcomes

    async def _store(self, draft: Draft) -> int | None:
        outbox, since = self._outbox, self._next_sequence()
        if outbox is None:
            return None
        stored: list[int] = []
        try:
            await self._in_outbox(
                lambda: stored.append(outbox.put(draft.message, draft.salt, since))
            )
        except asyncio.CancelledError:
            for number in stored:  # the caller took the message back
                await self._strike(number)
            raise
        return stored[0]

    async def _strike(self, number: int) -> None:
        outbox, since = self._outbox, self._next_sequence()
        if outbox is not None:
            await self._in_outbox(lambda: outbox.strike(number, since))

    async def _in_outbox(self, call: Callable[[], None]) -> None:
        """Run one call at a time in a thread; it is waited for even where the caller is cancelled.

        A thread goes on whatever becomes of the task: the next call must not meet it in the file.
        """
        async with self._outbox_turn:
            working = asyncio.ensure_future(asyncio.to_thread(call))
            cancelled: asyncio.CancelledError | None = None
            while not working.done():
                try:
                    await asyncio.wait({working})
                except asyncio.CancelledError as error:
                    cancelled = error
            if cancelled is not None:
                working.exception()  # nobody is left to be told
                raise cancelled
            working.result()

    def _next_sequence(self) -> int | None:
        last = None if self._machine is None else self._machine.last_record
        return None if last is None else last.sequence + 1

    def _draft(self, data: bytes, salt: bytes | None) -> Draft:
        chosen = secrets.token_bytes(SALT_BYTES) if salt is None else salt
        try:
            fragments = fragment_message(data, self._descriptor.params, lambda _size: chosen)
        except LocalProtocolError as error:
            most = max_message_bytes(self._descriptor.params)
            hint = f"publish 1 to {most} bytes, with a salt of {SALT_BYTES} bytes or none"
            raise LocalProtocolError(str(error), hint=hint) from error
        return Draft(data, chosen, tuple(fragments))

    def _ended_with(self, draft: Draft) -> PublishError:
        """The outcome of a message that comes when nothing runs any more."""
        why: ZipnetError | None = self._gave_up
        outcome: type[PublishError] = Refused
        hint = None if why is None else why.hint
        if why is None:
            why, hint = LocalProtocolError("the publisher was closed"), "open a new publisher"
            outcome = NotSent
        ended = outcome(
            str(why),
            message_id=draft.message_id,
            message=draft.message,
            salt=draft.salt,
            hint=hint or "the operator of the instance knows why; nothing was sent",
        )
        ended.__cause__ = why
        return ended

    def _warn_before_talking(self) -> None:
        if self._machine is None:
            return
        last = self._machine.last_record
        crowd = None if last is None else last.record.content.participants
        if crowd is not None and crowd < _SMALL_CROWD:
            self._warn(f"the last round had {crowd} participants: the author is one of so few")
        if self._machine.rounds_covered == 0 and self._policy.settle_rounds == 0:
            self._warn("talking in the first round after joining ties this client to what is said")

    def _warn(self, text: str) -> None:
        if self._on_warning is not None:
            self._on_warning(text)
        else:
            warnings.warn(text, AnonymityWarning, stacklevel=3)

    async def _run(self, driver: PublisherDriver) -> None:
        try:
            await driver.run()
        except BaseExceptionGroup as group:
            self._gave_up = _first_error(group)
        finally:
            why = self._gave_up
            driver.stop(str(why) if why else "the publisher was closed")

    async def _reached(self, what: Literal["registered", "took_part"]) -> None:
        if self._driver is None or self._running is None:
            raise LocalProtocolError(_NOT_RUNNING)
        event: asyncio.Event = getattr(self._driver, what)
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait({waiting, self._running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not event.is_set():
            raise self._gave_up or LocalProtocolError("the publisher was closed")

    async def _ended(self) -> None:
        if self._running is None:
            raise LocalProtocolError(_NOT_RUNNING)
        await asyncio.wait({self._running})
        if self._gave_up is not None:
            raise self._gave_up


def _fresh_identity() -> Identity:
    with Secret.random(secrets.token_bytes) as secret:
        return Identity.from_secret(secret)


def _jitter_s(descriptor: TrustedDescriptor) -> float:
    """A quarter of the time the lowest aggregators wait for envelopes."""
    entries = descriptor.descriptor.aggregators
    levels = 1 + max(descriptor.aggregator_height(e.node.name) for e in entries if not e.parent)
    return _JITTER_SHARE * descriptor.descriptor.cadence.fold_deadline_ms / 1000 / levels


def _first_error(group: BaseExceptionGroup[BaseException]) -> ZipnetError:
    """The first error of ours in a group; anything else is a bug and is raised as it is."""
    for error in group.exceptions:
        if isinstance(error, ZipnetError):
            return error
        if isinstance(error, BaseExceptionGroup):
            return _first_error(error)
    raise group

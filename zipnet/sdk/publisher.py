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
4. No signal handler, no logging set-up, no thread left after the block.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Literal, Self

from zipnet.errors import LocalProtocolError, Refused, ZipnetError
from zipnet.machines.publisher import PublisherMachine, PublisherPolicy
from zipnet.protocol.identity import Identity
from zipnet.protocol.pads import PadEngine
from zipnet.protocol.secret import Secret
from zipnet.protocol.slots import fragment_message
from zipnet.sdk.driver import PublisherDriver
from zipnet.sdk.links import Dialer, Trouble, client_transport
from zipnet.sdk.verifier import RecordVerifier

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from zipnet.machines.outgoing import Receipt
    from zipnet.ports import Transport
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.ids import PeerId

__all__ = ["Publisher", "PublisherConditions"]

_JITTER_SHARE = 0.25
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

    Args:
        descriptor: The instance, verified.
        identity: The client's identity; None draws a fresh one for this run.
        transport: ``quic``, ``tls``, or an adapter of the Transport port.
        cadence: 1 takes part in every round; n in two out of every 2·n.
        reservations: Most slots asked for in one round.
        jitter_s: Bound of the drawn delay of envelopes; None derives it from the fold deadline.
        servers_at: Host and port of each committee server, where the descriptor's do not apply.
        on_trouble: Told about refusals and broken links while the publisher goes on.

    Attributes:
        when: Conditions to wait for.
    """

    def __init__(
        self,
        descriptor: TrustedDescriptor,
        *,
        identity: Identity | None = None,
        transport: Literal["quic", "tls"] | Transport = "quic",
        cadence: int = 1,
        reservations: int = 4,
        jitter_s: float | None = None,
        servers_at: Sequence[tuple[str, int]] | None = None,
        on_trouble: Trouble | None = None,
    ) -> None:
        self.when = PublisherConditions(self)
        self._descriptor = descriptor
        self._policy = PublisherPolicy(
            cadence=cadence,
            reservations=reservations,
            jitter_s=_jitter_s(descriptor) if jitter_s is None else jitter_s,
        )
        self._transport = (
            client_transport(transport, descriptor) if isinstance(transport, str) else transport
        )
        self._servers_at = servers_at
        self._on_trouble = on_trouble or (lambda _error: None)
        self._own_identity = identity is None
        self._identity = identity or _fresh_identity()
        self._driver: PublisherDriver | None = None
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
            secrets.token_bytes(16),
            self._servers_at,
        )
        self._driver = PublisherDriver(
            self._descriptor, dialer, machine, verifier, on_trouble=self._on_trouble
        )
        self._running = asyncio.create_task(self._run(self._driver))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave: messages still under way end with what is known, links close, keys are wiped."""
        await self.close()

    async def close(self) -> None:
        """Do what leaving the block does. Idempotent."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        self._cleanup.close()

    async def publish(self, data: bytes, *, timeout: float = 60.0) -> Receipt:  # noqa: ASYNC109 - a deadline that yields an outcome, not a cancellation
        """Broadcast a message anonymously and wait for the proof that it was.

        Args:
            data: 1 byte up to ``max_message_bytes`` of the group; long ones take several slots.
            timeout: Seconds after which the message is given up.

        Raises:
            LocalProtocolError: When the message is empty or too long; nothing was sent.
            NotSent: When time ran out before any part of it left.
            Unknown: When part of it left and no verified record shows all of it.
            Refused: When the network refused this client for good.
        """
        if self._driver is None or self._running is None:
            raise LocalProtocolError(_NOT_RUNNING)
        fragments = fragment_message(data, self._descriptor.params, secrets.token_bytes)
        if self._running.done():
            raise self._refused(data, fragments[0].message_id)
        deadline = asyncio.get_running_loop().time() + timeout
        ticket, future = self._driver.queue(data, fragments, deadline)
        try:
            return await future
        except asyncio.CancelledError:
            self._driver.withdraw(ticket)
            raise
        except ZipnetError as error:
            if self._gave_up is not None:
                raise self._refused(data, fragments[0].message_id) from error
            raise

    def _refused(self, data: bytes, message_id: bytes) -> ZipnetError:
        why = self._gave_up or LocalProtocolError("the publisher was closed")
        refused = Refused(str(why), message_id=message_id, message=data, hint=why.hint)
        refused.__cause__ = why
        return refused

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

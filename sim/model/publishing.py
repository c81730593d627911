"""A client of the model: the shipped publisher machine, and a driver on the modelled network."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from sim.model.fabric import Port, Processor
from sim.model.group import Group, registration_bytes
from zipnet.errors import ZipnetError
from zipnet.machines.cover import Cover
from zipnet.machines.publisher import PublisherMachine, PublisherPolicy
from zipnet.machines.publisher_events import (
    AbortReceived,
    AnnouncementsReceived,
    ArmTimer,
    CountCrowd,
    CrowdCounted,
    Delivered,
    EnvelopeAccepted,
    EnvelopeRefused,
    Failed,
    FetchRecords,
    HeaderReceived,
    MessageQueued,
    PublisherEffect,
    PublisherEvent,
    RecordReceived,
    Refuse,
    RegisterAgain,
    RegistrationAccepted,
    SendEnvelope,
    SendRegistration,
    TimerFired,
)
from zipnet.machines.registering import PendingRegistration
from zipnet.protocol.ids import ServerIndex
from zipnet.protocol.secret import Secret
from zipnet.protocol.slots import fragment_message

if TYPE_CHECKING:
    from sim.model.aggregating import ModelAggregator
    from sim.model.world import World
    from zipnet.protocol.header import RoundHeader, SignedHeader
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.ids import Digest, RegistryIndex, RoundNumber
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["ENVELOPE_FIXED", "ModelClient", "ModelPublisher"]

ENVELOPE_FIXED = 190
"""Bytes of a SUBMIT_ENVELOPE message besides the body."""

_ASK = 64


class ModelPublisher(PublisherMachine):
    """The shipped publisher, whose key agreement is derived instead of drawn.

    Attributes:
        name: The client's name.
        spoke: Rounds in which it had something to say, which its envelope must not show.
        boarded: Rounds whose envelope carried part of a message.
    """

    def __init__(
        self, group: Group, name: str, identity: Identity, *, policy: PublisherPolicy
    ) -> None:
        super().__init__(
            group.descriptor,
            identity,
            draw=group.draw(name),
            pads=group.engine,
            policy=policy,
        )
        self._origin = group
        self.name = name
        self.spoke: set[int] = set()
        self.boarded: set[int] = set()

    @property
    def serial(self) -> int:
        """Serial of the newest registration."""
        return self._serial

    @property
    def index(self) -> RegistryIndex | None:
        """Registry index, None while there is no registration."""
        return None if self._registered is None else self._registered.index

    def _fill(self, header: RoundHeader, header_hash: Digest) -> bytearray:
        if self._outgoing.waiting_count():
            self.spoke.add(header.round)
        body = super()._fill(header, header_hash)
        if header.round in self._outgoing.rounds_in_flight:
            self.boarded.add(header.round)
        return body

    def _on_announcements(self, event: AnnouncementsReceived) -> list[PublisherEffect]:
        self._drop_pending()
        self._serial = max(self._serial + 1, event.wall_ms)
        group, name = self._origin, self.name
        shared = {
            ServerIndex(i): (0, Secret(group.shared(name, self._serial, ServerIndex(i))))
            for i in range(len(group.servers))
        }
        blob = bytes(group.registration(name, self._serial))
        self._pending = PendingRegistration(blob, shared)
        return [SendRegistration(blob)]


class ModelClient:
    """One client: machine, link, processor."""

    def __init__(
        self,
        world: World,
        name: str,
        leaf: ModelAggregator,
        *,
        port: Port,
        identity: Identity,
    ) -> None:
        scenario = world.scenario
        self.world = world
        self.name = name
        self.leaf = leaf
        self.port = port
        self.identity = identity
        self.processor = Processor()
        policy = PublisherPolicy(
            cover=Cover(), reservations=scenario.reservations, jitter_s=scenario.jitter_s
        )
        kind = world.hooks.publisher_type or ModelPublisher
        self.machine = kind(world.group, name, identity, policy=policy)
        self.queued: dict[int, tuple[float, int]] = {}
        self._pads_s = 0.0

    # -- what happens --------------------------------------------------------------------------

    def found(self, wall_ms: int) -> None:
        """Prepare the registration that the set-up commits; nothing is sent."""
        self.machine.step(AnnouncementsReceived((), wall_ms), 0.0)

    def enter(self, index: RegistryIndex, version: int, first_round: RoundNumber) -> None:
        """Take over the registration that was made in the set-up."""
        self.step(RegistrationAccepted(index, version, first_round))

    def step(self, event: PublisherEvent) -> None:
        """Feed the machine and do what it asks for."""
        now = asyncio.get_running_loop().time()
        for effect in self.machine.step(event, now):
            self._perform(effect, now)

    def opened(self, signed: SignedHeader) -> None:
        """A header arrived."""
        world, costs = self.world, self.world.costs
        slots = world.scenario.reservations
        roster = len(signed.header.roster)
        size = world.scenario.wire_body_bytes
        work = costs.ed25519_verify + costs.seal(roster, size, slots, roster)
        self._pads_s = self.processor.reserve(work)
        self.step(HeaderReceived(signed, world.wall_ms()))

    def sealed(self, record: VerifiedRecord, size: int) -> None:
        """A record arrived: it counts once this client has verified it."""
        del size
        self.processor.run(self.world.record_work, lambda: self._verified(record))

    def _verified(self, record: VerifiedRecord) -> None:
        if self.port.online:
            self.step(RecordReceived(record))

    def aborted(self, number: RoundNumber, why: int) -> None:
        """Somebody says that a round was given up."""
        self.step(AbortReceived(number, why))

    def say(self, message: bytes, ticket: int) -> None:
        """Queue a message."""
        world = self.world
        loop = asyncio.get_running_loop()
        fragments = tuple(fragment_message(message, world.group.params, self.machine._draw))  # noqa: SLF001 - the client's own source
        world.truth[fragments[0].message_id] = self.name
        self.queued[ticket] = loop.time(), len(message)
        world.note("message_queued", self.name, value=len(message))
        self.step(MessageQueued(ticket, fragments, loop.time() + world.scenario.limit_s))

    def register(self) -> None:
        """Ask for a registration, as at the first start or after a return."""
        self.step(AnnouncementsReceived((), self.world.wall_ms()))

    # -- effects -------------------------------------------------------------------------------

    def _perform(  # noqa: C901 - the table of effects
        self, effect: PublisherEffect, now: float
    ) -> None:
        loop = asyncio.get_running_loop()
        match effect:
            case SendEnvelope():
                at = max(effect.at, self._pads_s)
                loop.call_at(at, self._send, effect, self.port.life)
            case SendRegistration():
                self._register(effect.blob)
            case RegisterAgain():
                self.world.note("registration_lost", self.name, note=effect.why)
                loop.call_later(0.2, self.register)
            case FetchRecords():
                self._fetch(effect.from_sequence)
            case CountCrowd():
                self.step(CrowdCounted(self.world.registered()))
            case Delivered():
                queued, size = self.queued.pop(effect.ticket)
                number = int(effect.receipt.round)
                self.world.delivered(self.name, number, now - queued, size)
            case ArmTimer():
                if effect.at < self.world.scenario.limit_s:
                    loop.call_at(effect.at, self.step, TimerFired())
            case Failed():
                self.world.note("message_failed", self.name, note=effect.text)
            case Refuse():
                self.world.note("client_refused", self.name, note=effect.reason)
            case _:
                pass

    def _send(self, effect: SendEnvelope, life: int) -> None:
        if not self.port.online or life != self.port.life:
            return
        envelope = effect.envelope
        size = self.world.scenario.wire_body_bytes + ENVELOPE_FIXED
        self.world.note("envelope_sent", self.name, round_number=envelope.round, keep=False)
        leaf = self.leaf

        def arrive() -> None:
            leaf.envelope(self, envelope)

        self.world.fabric.send(self.port, leaf.port, "envelope", size, arrive)

    def answered(self, number: RoundNumber, refusal: str | None) -> None:
        """The aggregator said what became of the envelope."""
        if refusal is None:
            self.step(EnvelopeAccepted(number))
        else:
            self.step(EnvelopeRefused(number, refusal))

    def _fetch(self, start: int) -> None:
        def there() -> None:
            for record, size in self.leaf.records_from(start):
                self.world.fabric.send(
                    self.leaf.port, self.port, "records", size, partial(self._verified, record)
                )

        self.world.fabric.send(self.port, self.leaf.port, "ask", _ASK, there)

    def _register(self, blob: bytes) -> None:
        world = self.world
        server = world.first_reachable(self.name)
        if server is None:
            asyncio.get_running_loop().call_later(1.0, self.register)
            return
        size = registration_bytes(len(world.servers))
        serial = self.machine.serial
        world.registrations[world.group.registration(self.name, serial)] = self.name, serial
        self.processor.run(
            world.costs.encapsulate * len(world.servers) + world.costs.hybrid_sign,
            lambda: world.fabric.send(
                self.port,
                server.port,
                "register",
                size,
                lambda: server.register(self, blob, serial),
            ),
        )

    def registered(self, index: RegistryIndex, version: int, first_round: RoundNumber) -> None:
        """The committee took the registration."""
        try:
            self.step(RegistrationAccepted(index, version, first_round))
        except ZipnetError as error:
            self.world.note("client_refused", self.name, note=error.reason)
        self.world.note("client_registered", self.name, value=float(index))

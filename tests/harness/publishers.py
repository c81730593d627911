"""Publisher machines wired to a harness committee by hand: every message can be lost or delayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.harness.committee import HarnessCommittee, make_draw, make_identity, pad_engine
from zipnet.machines.publisher import PublisherMachine, PublisherPolicy
from zipnet.machines.publisher_events import (
    AnnouncementsReceived,
    Delivered,
    Failed,
    HeaderReceived,
    MessageQueued,
    PublisherEffect,
    PublisherEvent,
    RecordReceived,
    RegistrationAccepted,
    SendEnvelope,
    SendRegistration,
)
from zipnet.protocol.slots import fragment_message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zipnet.protocol.envelope import Envelope

__all__ = ["HarnessPublisher", "play_round"]


class HarnessPublisher:
    """One publisher machine with its outputs sorted by kind.

    Attributes:
        machine: The machine under test.
        envelopes: Every envelope it ever wanted sent, in order.
        delivered: Receipts by ticket; ``failed`` holds the failures.
        effects: Everything it asked for, in order.
    """

    def __init__(
        self,
        committee: HarnessCommittee,
        label: str,
        *,
        policy: PublisherPolicy | None = None,
        seed: int = 1,
    ) -> None:
        self.committee = committee
        self.draw = make_draw(label, seed)
        self.identity = make_identity(label, seed)
        self.machine = PublisherMachine(
            committee.descriptor, self.identity, draw=self.draw, pads=pad_engine(), policy=policy
        )
        self.now = 0.0
        self.wall_ms = 1_000
        self.tickets = 0
        self.effects: list[PublisherEffect] = []
        self.envelopes: list[Envelope] = []
        self.delivered: dict[int, Delivered] = {}
        self.failed: dict[int, Failed] = {}

    def feed(self, event: PublisherEvent) -> list[PublisherEffect]:
        """Step the machine and sort what it asks for."""
        effects = self.machine.step(event, self.now)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, SendEnvelope):
                self.envelopes.append(effect.envelope)
            elif isinstance(effect, Delivered):
                assert effect.ticket not in self.delivered, "one message, one receipt"
                self.delivered[effect.ticket] = effect
            elif isinstance(effect, Failed):
                self.failed[effect.ticket] = effect
        return effects

    def register(self) -> RegistrationAccepted:
        """Register at the committee, at once."""
        self.wall_ms += 1
        blobs = tuple(self.committee.announcements())
        (sent,) = self.feed(AnnouncementsReceived(blobs, self.wall_ms))
        assert isinstance(sent, SendRegistration)
        accepted = RegistrationAccepted(*self.committee.register(sent.blob))
        self.feed(accepted)
        return accepted

    def queue(self, message: bytes, *, deadline: float = 1e9) -> int:
        """Queue a message and return its ticket."""
        self.tickets += 1
        fragments = fragment_message(message, self.committee.params, self.draw)
        self.feed(MessageQueued(self.tickets, tuple(fragments), deadline))
        return self.tickets

    def show_header(self) -> list[Envelope]:
        """Show the open round's header; returns the envelopes asked for (one at most)."""
        signed = self.committee.open_header
        assert signed is not None
        effects = self.feed(HeaderReceived(signed))
        return [e.envelope for e in effects if isinstance(e, SendEnvelope)]

    def show_record(self, sequence: int = -1) -> list[PublisherEffect]:
        """Show a sealed record, the latest by default."""
        return self.feed(RecordReceived(self.committee.verified[sequence]))


def play_round(
    committee: HarnessCommittee, publishers: Iterable[HarnessPublisher], *, seal: bool = True
) -> None:
    """Play one round without any trouble; give it up in the end if ``seal`` is off."""
    committee.open_round()
    publishers = list(publishers)
    for publisher in publishers:
        for envelope in publisher.show_header():
            committee.submit(envelope)
    if not seal:
        committee.abort()
        return
    committee.seal()
    for publisher in publishers:
        publisher.show_record()

"""``RoundAborted`` is not signed: whoever relays it can make it up. Believing it must cost nothing.

A client keeps it as a hint for error texts; an aggregator passes it on and folds on; a reader does
not take it for a sign that the server it follows is still with the committee.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee
from tests.harness.fake_network import FakeNetwork
from tests.harness.publishers import HarnessPublisher
from zipnet.machines.publisher_events import (
    AbortReceived,
    Delivered,
    EnvelopeAccepted,
    Failed,
    HeaderReceived,
    PublisherEffect,
    PublisherEvent,
    RecordReceived,
    Refuse,
    SendEnvelope,
    SendRegistration,
    TimerFired,
)
from zipnet.protocol.ids import RoundNumber
from zipnet.sdk import links
from zipnet.sdk.reader import Reader
from zipnet.wire.messages import Kind, RoundAborted, encode

if TYPE_CHECKING:
    from zipnet.errors import ZipnetError
    from zipnet.protocol.record import VerifiedRecord

WHYS = (0, 1, 2, 3, 4, 5, 6, 255)


def _essence(effect: PublisherEffect) -> object:
    """Everything an effect says, but texts, and what hangs on the registration's random signature."""
    match effect:
        case Refuse() | Failed():
            return replace(effect, text="")
        case SendRegistration():
            return "registration"
        case SendEnvelope():
            return "envelope", effect.envelope.round, effect.envelope.sender, effect.at
        case Delivered():
            places = [(p.round, p.sequence) for p in effect.receipt.placements]
            return "delivered", effect.ticket, places
        case _:
            return effect


class _Fed(HarnessPublisher):
    """A publisher that is told of aborts around every event, or is not."""

    forges = False

    def feed(self, event: PublisherEvent) -> list[PublisherEffect]:
        self._forge()
        effects = super().feed(event)
        self._forge()
        return effects

    def _forge(self) -> None:
        if not self.forges:
            return
        last = self.committee.last_opened
        for number in (1, last - 1, last, last + 1, (1 << 64) - 1):
            for why in WHYS:
                super().feed(AbortReceived(RoundNumber(max(number, 0)), why))


class _Forged(_Fed):
    forges = True


def _story(kind: type[_Fed]) -> tuple[list[object], list[object]]:
    """Messages, a lost record, a given-up round, a message that expires: what one client did."""
    committee = HarnessCommittee()
    one = kind(committee, "one")
    crowd = [one, *(HarnessPublisher(committee, name) for name in ("two", "three"))]
    for publisher in crowd:
        publisher.register()
    one.queue(b"x" * (committee.params.fragment_bytes * 5))
    one.queue(b"too late", deadline=50.0)
    for number in range(9):
        signed = committee.open_round()
        for publisher in crowd:
            for effect in publisher.feed(HeaderReceived(signed)):
                envelope = getattr(effect, "envelope", None)
                if envelope is not None:
                    committee.submit(envelope)
                    publisher.feed(EnvelopeAccepted(envelope.round))
        if number in (1, 4):
            committee.abort()
            continue
        committee.seal()
        for publisher in crowd:
            publisher.feed(RecordReceived(committee.verified[-1]))
    one.now = 60.0
    one.feed(TimerFired())
    one.queue(b"never sent", deadline=61.0)
    one.now = 62.0
    one.feed(TimerFired())
    shown = [
        (record.round, sorted(record.record.content.states), len(record.fragments))
        for record in committee.verified
    ]
    return [_essence(effect) for effect in one.effects], list(shown)


@pytest.mark.spec("8.8")
def test_aborts_made_up_by_a_relay_change_nothing_a_client_does() -> None:
    told, shown = _story(_Forged)
    untold, shown_untold = _story(_Fed)
    assert told == untold
    assert shown == shown_untold
    assert len(shown) == 7
    assert any(isinstance(effect, Failed) for effect in told), "the story has no failure in it"


def test_an_abort_that_is_only_told_starts_nothing() -> None:
    one = _Forged(HarnessCommittee(), "one")
    one.register()
    one.queue(b"hello")
    assert one.feed(AbortReceived(RoundNumber(1), 1)) == []


async def test_a_follower_leaves_a_server_that_tells_of_aborts_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "_SILENCE_S", 0.3)
    monkeypatch.setattr(links, "_SILENT_ROUNDS", 0)
    troubles: list[ZipnetError] = []
    async with FakeNetwork() as network:
        crowd = [HarnessPublisher(network.committee, name) for name in ("one", "two")]
        for publisher in crowd:
            publisher.register()
        descriptor = network.committee.descriptor
        async with Reader(descriptor, transport="tls", on_trouble=troubles.append) as reader:
            records = reader.records()

            async def following() -> VerifiedRecord:
                return await anext(records)

            waiting = asyncio.create_task(following())
            await network.until(lambda: any(network.nodes[f"s{i}"].subscribers for i in range(3)))
            (liar,) = [s for s in ("s0", "s1", "s2") if network.nodes[s].subscribers]
            network.nodes[liar].muted |= {Kind.RECORD_SEALED, Kind.ROUND_OPENED}
            lying = asyncio.create_task(_tell_of_aborts(network, liar))
            network.committee.open_round()
            for publisher in crowd:
                for envelope in publisher.show_header():
                    network.committee.submit(envelope)
            network.committee.seal()
            async with asyncio.timeout(10):
                assert (await waiting).sequence == 0
            lying.cancel()
    assert any("told of nothing" in str(error) for error in troubles)


async def _tell_of_aborts(network: FakeNetwork, name: str) -> None:
    payload = encode(RoundAborted(round=1, why=1))
    while True:
        for session in list(network.nodes[name].subscribers):
            with contextlib.suppress(Exception):
                await session.push(Kind.ROUND_ABORTED, payload)
        await asyncio.sleep(0.02)

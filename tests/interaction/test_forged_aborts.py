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

from tests.harness.committee import HarnessCommittee, make_draw
from tests.harness.fake_network import FakeNetwork
from tests.harness.publishers import HarnessPublisher, play_round
from zipnet.machines.publisher_events import (
    AbortReceived,
    EnvelopeAccepted,
    Failed,
    MessageQueued,
    PublisherEffect,
    PublisherEvent,
    Refuse,
    SendEnvelope,
    SendRegistration,
    TimerFired,
)
from zipnet.protocol.ids import RoundNumber
from zipnet.protocol.slots import fragment_message
from zipnet.sdk import links
from zipnet.sdk.reader import Reader
from zipnet.wire.messages import Kind, RoundAborted, encode

if TYPE_CHECKING:
    from zipnet.errors import ZipnetError
    from zipnet.protocol.record import VerifiedRecord

WHYS = (0, 1, 2, 3, 4, 5, 6, 255)


class _Recorder(HarnessPublisher):
    """A publisher whose events are kept, with the time they came at."""

    def __init__(self, committee: HarnessCommittee, label: str) -> None:
        super().__init__(committee, label)
        self.events: list[tuple[float, PublisherEvent]] = []

    def feed(self, event: PublisherEvent) -> list[PublisherEffect]:
        self.events.append((self.now, event))
        return super().feed(event)

    def say(self, message: bytes, deadline: float) -> None:
        """Queue a message without drawing from the machine's own randomness."""
        self.tickets += 1
        draw = make_draw(f"salt-{self.tickets}")
        fragments = fragment_message(message, self.committee.params, draw)
        self.feed(MessageQueued(self.tickets, tuple(fragments), deadline))


def _told_of_aborts(one: _Recorder) -> list[PublisherEffect]:
    """What the same client does when a relay makes up aborts before and after every event."""
    twin = HarnessPublisher(one.committee, "one")
    for now, event in one.events:
        for number in (0, 1, one.committee.last_opened, 1 << 40, (1 << 64) - 1):
            for why in WHYS:
                twin.feed(AbortReceived(RoundNumber(number), why))
        twin.now = now
        twin.feed(event)
    return twin.effects


def _essence(effect: PublisherEffect) -> object:
    """What an effect says but texts; encapsulations and hybrid signatures are never the same."""
    if isinstance(effect, SendRegistration):
        return "registration"
    if isinstance(effect, SendEnvelope):
        return effect.envelope.round, effect.envelope.sender, effect.at
    return replace(effect, text="") if isinstance(effect, Refuse | Failed) else effect


@pytest.mark.spec("8.8")
def test_aborts_made_up_by_a_relay_change_nothing_a_client_does() -> None:
    committee = HarnessCommittee()
    one = _Recorder(committee, "one")
    crowd = [one, *(HarnessPublisher(committee, name) for name in ("two", "three"))]
    for publisher in crowd:
        publisher.register()
    one.say(b"x" * (committee.params.fragment_bytes * 5), 1e9)
    one.say(b"short", 1e9)
    for number in range(9):
        play_round(committee, crowd, seal=number not in (1, 4))
        if one.envelopes:
            one.feed(EnvelopeAccepted(one.envelopes[-1].round))
    one.say(b"never sent", 61.0)
    one.now = 62.0
    one.feed(TimerFired())
    told = [_essence(effect) for effect in _told_of_aborts(one)]
    assert told == [_essence(effect) for effect in one.effects]
    assert sorted(one.delivered) == [1, 2]
    assert sorted(one.failed) == [3]
    assert len(one.envelopes) == 9


def test_an_abort_that_is_only_told_starts_nothing() -> None:
    one = HarnessPublisher(HarnessCommittee(), "one")
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

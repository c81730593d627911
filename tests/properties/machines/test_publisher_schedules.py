"""Random schedules of rounds, losses, aborts, replays and reorderings around publisher machines.

Promises: one envelope per round and client, no pad used twice, every message delivered exactly once
and read exactly once, whatever happens on the way.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import SMALL, HarnessCommittee
from tests.harness.publishers import HarnessPublisher
from zipnet.machines.client_chains import ClientChains
from zipnet.machines.publisher_events import HeaderReceived, SendEnvelope
from zipnet.machines.reader import Message, ReaderMachine, RecordArrived

if TYPE_CHECKING:
    from zipnet.protocol.envelope import Envelope
    from zipnet.protocol.header import RoundHeader, SignedHeader

SEEDS = int(os.environ.get("ZIPNET_PUBLISHER_SEEDS", "12"))
_ROUNDS = 30
_SETTLING = 40


class _Schedule:
    """One random life of a committee and a few publishers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.committee = HarnessCommittee(seed=1 + seed % 200)
        self.publishers = [
            HarnessPublisher(self.committee, f"client-{i}", seed=1 + seed % 200) for i in range(4)
        ]
        self.sent: dict[tuple[int, int], bytes] = {}
        self.headers: list[SignedHeader] = []
        self.sent_messages: list[tuple[HarnessPublisher, int, bytes]] = []
        for publisher in self.publishers:
            publisher.register()

    def play(self, *, trouble: bool) -> None:
        chance = self.random.random
        if trouble and chance() < 0.1:
            self.random.choice(self.publishers).register()
        if trouble and chance() < 0.3:
            self._queue()
        self.headers.append(self.committee.open_round())
        for number, publisher in enumerate(self.publishers):
            if trouble and chance() < 0.1:
                continue  # the header never reached this one
            self._submit(number, publisher.show_header(), lost=trouble and chance() < 0.15)
            if trouble and chance() < 0.3:  # a relay replays what it has seen
                effects = publisher.feed(HeaderReceived(self.random.choice(self.headers)))
                again = [e.envelope for e in effects if isinstance(e, SendEnvelope)]
                self._submit(number, again, lost=False)
        enough = self.committee.participants >= SMALL.min_participants
        if not enough or (trouble and chance() < 0.2):
            self.committee.abort()
            return
        self.committee.seal(tamper=self._jam if trouble and chance() < 0.2 else None)
        for publisher in self.publishers:
            if not trouble or chance() >= 0.15:
                self._show_records(publisher, shuffled=trouble)

    def _queue(self) -> None:
        publisher = self.random.choice(self.publishers)
        message = self.random.randbytes(self.random.randint(1, SMALL.fragment_bytes * 6))
        self.sent_messages.append((publisher, publisher.queue(message), message))

    def _submit(self, number: int, envelopes: list[Envelope], *, lost: bool) -> None:
        for envelope in envelopes:
            assert (number, envelope.round) not in self.sent, "two envelopes for one round"
            self.sent[number, envelope.round] = envelope.body
            if not lost:
                self.committee.submit(envelope)

    def _show_records(self, publisher: HarnessPublisher, *, shuffled: bool) -> None:
        last = publisher.machine.last_record
        missing = list(range(0 if last is None else last.sequence, len(self.committee.verified)))
        if shuffled and self.random.random() < 0.3:
            self.random.shuffle(missing)
        for sequence in missing:
            publisher.show_record(sequence)

    def _jam(self, body: bytearray) -> None:
        for _ in range(self.random.randint(1, 4)):
            body[self.random.randrange(len(body))] ^= self.random.randint(1, 255)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.spec("8.1")
@pytest.mark.spec("8.8")
def test_any_schedule_keeps_one_envelope_per_round_and_delivers_exactly_once(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    pads: Counter[bytes] = Counter()
    take = ClientChains.take_pad_keys

    def recording(self: ClientChains, header: RoundHeader) -> list[bytearray]:
        keys = take(self, header)
        pads.update(bytes(key) for key in keys)
        return keys

    monkeypatch.setattr(ClientChains, "take_pad_keys", recording)
    schedule = _Schedule(seed)
    for _ in range(_ROUNDS):
        schedule.play(trouble=True)
    for _ in range(_SETTLING):
        if all(t in p.delivered for p, t, _ in schedule.sent_messages):
            break
        schedule.play(trouble=False)
    # One pad, one use: no pad key was ever taken twice by anybody, nor applied twice by a server.
    assert max(pads.values()) == 1
    assert sum(pads.values()) == 3 * sum(len(p.envelopes) for p in schedule.publishers)
    assert max(Counter(schedule.committee.pad_uses).values()) == 1
    for publisher in schedule.publishers:
        rounds = [envelope.round for envelope in publisher.envelopes]
        assert rounds == sorted(set(rounds))
    # Every message has one receipt, the receipt is true, and readers get the message once.
    reader = ReaderMachine()
    read = Counter(
        effect.payload
        for record in schedule.committee.verified
        for effect in reader.step(RecordArrived(record))
        if isinstance(effect, Message)
    )
    placed: Counter[tuple[bytes, int]] = Counter()
    for record in schedule.committee.verified:
        placed.update((f.message_id, f.index) for f in record.fragments.values())
    for publisher, ticket, message in schedule.sent_messages:
        receipt = publisher.delivered[ticket].receipt
        for index, placement in enumerate(receipt.placements):
            record = schedule.committee.verified[placement.sequence]
            assert record.hash == placement.record_hash
            assert record.fragments[placement.slot].message_id == receipt.message_id
            assert placed[receipt.message_id, index] == 1, "a fragment was broadcast twice"
        assert read[message] == 1
    assert schedule.sent_messages, "the schedule must have something to say"

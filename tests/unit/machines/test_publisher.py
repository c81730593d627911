from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.committee import SMALL, HarnessCommittee
from tests.harness.publishers import HarnessPublisher, play_round
from zipnet.errors import ConfigError, GuardError
from zipnet.machines.cover import every
from zipnet.machines.publisher import PublisherMachine, PublisherPolicy
from zipnet.machines.publisher_events import (
    AbortReceived,
    AnnouncementsReceived,
    ArmTimer,
    EnvelopeRefused,
    EnvelopeUnsent,
    FetchRecords,
    HeaderReceived,
    MessageWithdrawn,
    PublisherEffect,
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
from zipnet.protocol.command import AbortReason
from zipnet.protocol.header import SignedHeader, sign_header
from zipnet.protocol.ids import Digest, GroupId, RegistryIndex, RoundNumber, ServerIndex
from zipnet.protocol.record import Record, VerifiedRecord, verify_record
from zipnet.protocol.reservation import read_vector
from zipnet.protocol.slots import SlotState

if TYPE_CHECKING:
    from zipnet.machines.outgoing import Receipt


@pytest.fixture
def committee() -> HarnessCommittee:
    return HarnessCommittee()


@pytest.fixture
def crowd(committee: HarnessCommittee) -> list[HarnessPublisher]:
    """Three registered publishers; the first is the one under test."""
    publishers = [HarnessPublisher(committee, f"client-{i}") for i in range(3)]
    for publisher in publishers:
        publisher.register()
    return publishers


def _receipt(publisher: HarnessPublisher, ticket: int) -> Receipt:
    return publisher.delivered[ticket].receipt


def _refusals(effects: list[PublisherEffect]) -> list[str]:
    return [effect.reason for effect in effects if isinstance(effect, Refuse)]


class TestTakingPart:
    def test_cover_is_sent_every_round_and_unblinds_to_nothing(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        for _ in range(3):
            play_round(committee, crowd)
        for record in committee.verified:
            assert record.record.content.participants == 3
            assert set(record.record.content.states) == {SlotState.EMPTY}
            assert not any(record.record.content.reservations)

    def test_a_message_is_reserved_for_then_sent_then_proved(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        ticket = crowd[0].queue(b"hello")
        play_round(committee, crowd)
        assert not crowd[0].delivered
        play_round(committee, crowd)
        receipt = _receipt(crowd[0], ticket)
        (placement,) = receipt.placements
        record = committee.verified[1]
        assert (receipt.round, receipt.sequence, receipt.participants) == (2, 1, 3)
        assert placement.record_hash == record.hash
        assert record.fragments[placement.slot].message_id == receipt.message_id
        assert receipt.record_hashes == (record.hash,)

    @pytest.mark.spec("5")
    def test_message_reservation_and_cover_look_alike(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        crowd[0].queue(b"hello")
        for _ in range(3):  # reservation, message, cover
            play_round(committee, crowd)
        sizes = {len(e.body) for p in crowd for e in p.envelopes}
        assert sizes == {SMALL.body_bytes}
        assert [len(p.envelopes) for p in crowd] == [3, 3, 3]

    def test_long_messages_take_several_slots_and_rounds_in_order(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        first = crowd[0].queue(b"x" * (SMALL.fragment_bytes * 5))  # six with the salt
        second = crowd[0].queue(b"after")
        for _ in range(3):
            play_round(committee, crowd)
        receipt = _receipt(crowd[0], first)
        assert len(receipt.placements) == 6
        assert [p.round for p in receipt.placements] == [2, 2, 2, 2, 3, 3]
        assert len(set(receipt.slots[:4])) == 4
        assert _receipt(crowd[0], second).round == 3

    def test_delays_are_drawn_and_bounded(self, committee: HarnessCommittee) -> None:
        policy = PublisherPolicy(jitter_s=0.5)
        publisher = HarnessPublisher(committee, "jitter", policy=policy)
        publisher.register()
        publisher.now = 100.0
        delays: list[float] = []
        for _ in range(30):
            committee.open_round()
            effects = publisher.feed(HeaderReceived(committee.open_header))  # type: ignore[arg-type]
            delays += [e.at - 100.0 for e in effects if isinstance(e, SendEnvelope)]
            committee.abort()
        assert len(delays) == 30
        assert all(0 <= delay <= 0.5 for delay in delays)
        assert len(set(delays)) == 30
        assert max(delays) - min(delays) > 0.2

    def test_cadence_depends_on_the_round_alone(self, committee: HarnessCommittee) -> None:
        policy = PublisherPolicy(cover=every(3))
        silent = HarnessPublisher(committee, "silent", policy=policy)
        talking = HarnessPublisher(committee, "talking", policy=policy)
        others = [HarnessPublisher(committee, f"other-{i}") for i in range(2)]
        for publisher in (silent, talking, *others):
            publisher.register()
        ticket = talking.queue(b"hello")
        for _ in range(18):
            play_round(committee, [silent, talking, *others])
        assert [e.round for e in silent.envelopes] == [e.round for e in talking.envelopes]
        assert [e.round for e in silent.envelopes] == [1, 6, 7, 12, 13, 18]
        assert ticket in talking.delivered

    @pytest.mark.parametrize(
        "wrong",
        [{"min_registered": -1}, {"reservations": 0}, {"reservations": 65}, {"jitter_s": -1.0}],
    )
    def test_policies_out_of_range_are_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            PublisherPolicy(**wrong)


class TestOneEnvelopePerRound:
    def test_a_header_shown_again_gives_no_second_envelope(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        committee.open_round()
        assert len(crowd[0].show_header()) == 1
        assert crowd[0].show_header() == []

    @pytest.mark.spec("8.1")
    def test_a_second_header_for_a_round_gives_no_second_envelope(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        header = committee.open_round().header
        assert len(crowd[0].show_header()) == 1
        other = replace(header, opened_at_ms=header.opened_at_ms + 1)
        assert crowd[0].feed(HeaderReceived(sign_header(other, committee.identities[0]))) == []

    def test_a_machine_that_forgot_would_run_into_guard_and_chains(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        header = committee.open_round().header
        crowd[0].show_header()
        machine = crowd[0].machine
        with pytest.raises(GuardError):
            machine._take_part(header, 0.0)
        machine._guard = type(machine._guard)()  # even with the guard gone the key is erased
        with pytest.raises(GuardError):
            machine._take_part(header, 0.0)

    @pytest.mark.spec("4.5")
    def test_registering_again_never_reopens_a_round(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        committee.open_round()
        assert len(crowd[0].show_header()) == 1
        again = crowd[0].register()
        assert again.first_round == 2
        assert crowd[0].show_header() == []
        committee.abort()
        committee.open_round()
        (envelope,) = crowd[0].show_header()
        assert envelope.sender == again.index
        committee.submit(envelope)

    def test_rounds_before_the_registration_is_good_are_left_out(
        self, committee: HarnessCommittee
    ) -> None:
        committee.open_round()
        publisher = HarnessPublisher(committee, "late")
        publisher.register()  # first_round 2
        assert publisher.show_header() == []
        committee.abort()
        committee.open_round(registry_version=0)
        assert publisher.show_header() == []
        committee.abort()
        committee.open_round()
        assert len(publisher.show_header()) == 1

    @pytest.mark.parametrize(
        ("meanwhile", "envelopes"),
        [("nothing", 1), ("given up", 0), ("sealed", 0), ("shown again", 1)],
    )
    def test_a_round_that_opened_before_the_answer_to_a_registration_is_taken_part_in(
        self,
        committee: HarnessCommittee,
        crowd: list[HarnessPublisher],
        meanwhile: str,
        envelopes: int,
    ) -> None:
        late = HarnessPublisher(committee, "late")
        blobs = tuple(committee.announcements())
        (sent,) = late.feed(AnnouncementsReceived(blobs, 1_001))
        assert isinstance(sent, SendRegistration)
        answer = RegistrationAccepted(*committee.register(sent.blob))
        committee.open_round()
        assert late.show_header() == []
        if meanwhile == "given up":
            late.feed(AbortReceived(committee.abort(), AbortReason.NO_AGGREGATE))
        elif meanwhile == "sealed":
            for publisher in crowd:
                for envelope in publisher.show_header():
                    committee.submit(envelope)
            committee.seal()
            late.show_record()
        found = [e.envelope for e in late.feed(answer) if isinstance(e, SendEnvelope)]
        if meanwhile == "shown again":
            assert late.show_header() == []
        assert len(found) == envelopes
        for envelope in found:
            assert envelope.sender == answer.index
            committee.submit(envelope)

    def test_rounds_too_far_ahead_ask_for_a_new_registration(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        far = committee.next_header(round=RoundNumber(SMALL.max_skip_rounds + 2))
        effects = crowd[0].feed(HeaderReceived(sign_header(far, committee.identities[0])))
        assert any(isinstance(e, RegisterAgain) for e in effects)
        assert not crowd[0].machine.registered
        assert not crowd[0].envelopes
        # The number itself was not taken: with a new registration the next real round counts.
        crowd[0].register()
        committee.open_round()
        assert len(crowd[0].show_header()) == 1


class TestHeaders:
    def _show(
        self, committee: HarnessCommittee, publisher: HarnessPublisher, **changes: object
    ) -> list[PublisherEffect]:
        header = committee.next_header(**changes)
        return publisher.feed(HeaderReceived(sign_header(header, committee.identities[0])))

    @pytest.mark.parametrize(
        ("title", "changes", "reason"),
        [
            ("another group", {"group": GroupId(bytes(32))}, "verification"),
            ("another descriptor version", {"descriptor_version": 2}, "verification"),
            ("too small a roster", {"roster": (ServerIndex(0), ServerIndex(1))}, "verification"),
            ("an unknown opener", {"opener": ServerIndex(9)}, "remote_protocol"),
        ],
    )
    @pytest.mark.spec("8.4")
    def test_headers_that_are_not_allowed_get_no_envelope(
        self,
        committee: HarnessCommittee,
        crowd: list[HarnessPublisher],
        title: str,
        changes: dict[str, object],
        reason: str,
    ) -> None:
        assert _refusals(self._show(committee, crowd[0], **changes)) == [reason], title
        assert not crowd[0].envelopes

    def test_a_header_nobody_signed_gets_no_envelope(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        forged = SignedHeader(committee.next_header(), bytes(64))
        assert _refusals(crowd[0].feed(HeaderReceived(forged))) == ["verification"]
        wrong = sign_header(committee.next_header(), committee.identities[1])
        assert _refusals(crowd[0].feed(HeaderReceived(wrong))) == ["verification"]
        # And a genuine header of the same round still counts: the forged ones burnt nothing.
        committee.open_round()
        assert len(crowd[0].show_header()) == 1

    @pytest.mark.parametrize(
        "changes",
        [
            {"previous_record": Digest(bytes(32))},
            {"schedule": Digest(bytes(32))},
            {"previous_final": RoundNumber(0)},
        ],
    )
    def test_headers_off_the_verified_chain_get_no_envelope(
        self,
        committee: HarnessCommittee,
        crowd: list[HarnessPublisher],
        changes: dict[str, object],
    ) -> None:
        play_round(committee, crowd)
        before = len(crowd[0].envelopes)
        assert _refusals(self._show(committee, crowd[0], **changes)) == ["verification"]
        assert len(crowd[0].envelopes) == before

    def test_a_client_behind_takes_part_with_cover_and_asks_for_records(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        crowd[0].queue(b"hello")
        play_round(committee, crowd)
        committee.open_round()
        for publisher in crowd:
            for envelope in publisher.show_header():
                committee.submit(envelope)
        committee.seal()
        for publisher in crowd[1:]:
            publisher.show_record()
        committee.open_round()  # the first client missed record 1
        effects = crowd[0].feed(HeaderReceived(committee.open_header))  # type: ignore[arg-type]
        assert FetchRecords(1) in effects
        assert any(isinstance(e, SendEnvelope) for e in effects)
        crowd[0].show_record(1)
        assert len(crowd[0].delivered) == 1


class TestLosses:
    def test_an_aborted_round_is_made_good_by_the_same_grant(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        ticket = crowd[0].queue(b"hello")
        play_round(committee, crowd)
        play_round(committee, crowd, seal=False)
        assert ticket not in crowd[0].delivered
        play_round(committee, crowd)
        assert _receipt(crowd[0], ticket).round == 3

    def test_an_abort_told_by_a_relay_changes_nothing_by_itself(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        ticket = crowd[0].queue(b"hello")
        play_round(committee, crowd)
        committee.open_round()
        for publisher in crowd:
            for envelope in publisher.show_header():
                committee.submit(envelope)
        crowd[0].feed(AbortReceived(RoundNumber(2), 1))  # a lie
        committee.seal()
        crowd[0].show_record()
        assert _receipt(crowd[0], ticket).round == 2

    def test_a_void_slot_is_sent_again_and_told_once(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        ticket = crowd[0].queue(b"hello")
        play_round(committee, crowd)
        committee.open_round()
        for publisher in crowd:
            for envelope in publisher.show_header():
                committee.submit(envelope)

        def jam(body: bytearray) -> None:
            for slot in range(SMALL.num_slots):
                body[slot * SMALL.slot_bytes] ^= 1

        committee.seal(tamper=jam)
        for publisher in crowd:
            publisher.show_record()
        assert ticket not in crowd[0].delivered
        play_round(committee, crowd)
        play_round(committee, crowd)
        assert _receipt(crowd[0], ticket).round == 4

    def test_a_destroyed_reservation_is_made_again(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        ticket = crowd[0].queue(b"hello")
        committee.open_round()
        for publisher in crowd:
            for envelope in publisher.show_header():
                committee.submit(envelope)

        def jam(body: bytearray) -> None:
            vector = read_vector(bytes(body), SMALL)
            for position in range(len(vector)):
                body[SMALL.matrix_bytes + 2 * position] ^= 0x5A

        committee.seal(tamper=jam)
        for publisher in crowd:
            publisher.show_record()
        play_round(committee, crowd)
        play_round(committee, crowd)
        assert _receipt(crowd[0], ticket).round == 3

    def test_an_envelope_an_aggregator_drops_is_not_believed_delivered(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        ticket = crowd[0].queue(b"hello")
        play_round(committee, crowd)
        committee.open_round()
        crowd[0].show_header()  # dropped on the way
        for publisher in crowd[1:]:
            for envelope in publisher.show_header():
                committee.submit(envelope)
        committee.seal()
        for publisher in crowd:
            publisher.show_record()
        assert ticket not in crowd[0].delivered
        play_round(committee, crowd)
        play_round(committee, crowd)
        assert _receipt(crowd[0], ticket).round == 4

    def test_after_a_lying_header_a_broadcast_fragment_is_still_found(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        ticket = crowd[0].queue(b"hello")
        play_round(committee, crowd)
        committee.open_round()
        for publisher in crowd:
            for envelope in publisher.show_header():
                committee.submit(envelope)
        lie = committee.next_header(round=RoundNumber(3))  # says round 2 had no record
        crowd[0].feed(HeaderReceived(sign_header(lie, committee.identities[0])))
        committee.seal()
        crowd[0].show_record()
        assert _receipt(crowd[0], ticket).round == 2

    def test_a_gap_of_records_is_fetched_only_while_something_is_under_way(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        play_round(committee, crowd)
        quiet, talking = crowd[1], crowd[0]
        ticket = talking.queue(b"hello")
        play_round(committee, crowd)
        committee.open_round()
        for publisher in crowd:
            for envelope in publisher.show_header():
                committee.submit(envelope)
        committee.seal()  # record 2, shown to nobody
        play_round(committee, crowd[1:])  # record 3; the quiet ones go on from there
        assert quiet.machine.last_record is committee.verified[3]
        assert FetchRecords(2) in talking.show_record(3)
        assert ticket not in talking.delivered
        talking.show_record(2)
        assert ticket in talking.delivered
        talking.show_record(3)
        assert talking.machine.last_record is committee.verified[3]


class TestRecords:
    def test_a_fork_is_refused(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        play_round(committee, crowd)
        fork = HarnessCommittee()
        others = [HarnessPublisher(fork, f"client-{i}") for i in range(3)]
        for publisher in others:
            publisher.register()
        others[0].queue(b"something else")
        play_round(fork, others)
        play_round(fork, others)
        for record in fork.verified:
            assert _refusals(crowd[0].feed(RecordReceived(record))) == ["verification"]
        assert crowd[0].machine.last_record is committee.verified[0]

    def test_old_records_are_ignored(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        play_round(committee, crowd)
        play_round(committee, crowd)
        assert crowd[0].show_record(0) == []
        assert crowd[0].show_record(1) == []

    def test_a_jump_that_goes_back_in_rounds_is_refused(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        for _ in range(3):
            play_round(committee, crowd)
        content = committee.verified[0].record.content
        odd = replace(content, sequence=9)
        signatures = tuple(
            (ServerIndex(i), identity.sign("record", odd.hash))
            for i, identity in enumerate(committee.identities)
        )
        record: VerifiedRecord = verify_record(Record(odd, signatures), committee.descriptor)
        assert _refusals(crowd[0].feed(RecordReceived(record))) == ["verification"]


class TestRegistration:
    def test_announcements_must_be_complete_in_order_and_genuine(
        self, committee: HarnessCommittee
    ) -> None:
        publisher = HarnessPublisher(committee, "picky")
        good = committee.announcements()
        flipped = bytearray(good[1])
        flipped[60] ^= 1
        cases = {
            "one missing": good[:2],
            "out of order": [good[1], good[0], good[2]],
            "one twice": [good[0], good[0], good[2]],
            "altered": [good[0], bytes(flipped), good[2]],
            "cut": [good[0], good[1], good[2][:-1]],
        }
        for title, blobs in cases.items():
            effects = publisher.feed(AnnouncementsReceived(tuple(blobs), 1))
            assert len(_refusals(effects)) == 1, title
            assert not any(isinstance(e, SendRegistration) for e in effects), title

    def test_secrets_of_a_failed_registration_are_wiped(self, committee: HarnessCommittee) -> None:
        publisher = HarnessPublisher(committee, "unlucky")
        publisher.feed(AnnouncementsReceived(tuple(committee.announcements()), 1))
        pending = publisher.machine._pending
        assert pending is not None
        publisher.feed(RegistrationFailed())
        assert all(secret.wiped for _, secret in pending.shared.values())
        late = RegistrationAccepted(RegistryIndex(0), 1, RoundNumber(1))
        assert _refusals(publisher.feed(late)) == ["local_protocol"]
        assert not publisher.machine.registered

    def test_serials_grow_even_when_the_clock_goes_back(self, committee: HarnessCommittee) -> None:
        from zipnet.protocol.registration import decode_registration

        publisher = HarnessPublisher(committee, "clock")
        serials: list[int] = []
        for wall_ms in (5_000, 4_000, 6_000):
            blobs = tuple(committee.announcements())
            (sent,) = publisher.feed(AnnouncementsReceived(blobs, wall_ms))
            assert isinstance(sent, SendRegistration)
            blob = decode_registration(sent.blob, committee.descriptor.group, 3)
            serials.append(blob.serial)
        assert serials == [5_000, 5_001, 6_000]

    def test_being_unknown_to_the_aggregator_leads_to_a_new_registration(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        committee.open_round()
        crowd[0].show_header()
        stale = crowd[0].feed(EnvelopeRefused(RoundNumber(0), "not_registered"))
        assert not any(isinstance(e, RegisterAgain) for e in stale)
        other = crowd[0].feed(EnvelopeRefused(RoundNumber(1), "round_closed"))
        assert not any(isinstance(e, RegisterAgain) for e in other)
        effects = crowd[0].feed(EnvelopeRefused(RoundNumber(1), "not_registered"))
        assert any(isinstance(e, RegisterAgain) for e in effects)
        assert not crowd[0].machine.registered

    def test_closing_wipes_chains_and_keys(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        machine: PublisherMachine = crowd[0].machine
        assert machine._chains is not None
        keys = list(machine._chains._keys.values())
        machine.close()
        assert not any(any(key) for key in keys)
        assert machine._claims._key.wiped
        committee.open_round()
        assert crowd[0].show_header() == []


class TestOutcomes:
    @pytest.mark.spec("8.8")
    def test_a_message_that_never_left_says_so(self, committee: HarnessCommittee) -> None:
        publisher = HarnessPublisher(committee, "alone")
        ticket = publisher.queue(b"hello", deadline=10.0)
        assert ArmTimer(10.0) in publisher.effects
        publisher.now = 9.9
        assert publisher.feed(TimerFired()) == [ArmTimer(10.0)]
        publisher.now = 10.0
        publisher.feed(TimerFired())
        assert not publisher.failed[ticket].left
        assert "not registered" in publisher.failed[ticket].text

    @pytest.mark.spec("8.8")
    def test_a_message_that_left_is_unknown_and_says_what_was_broadcast(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        ticket = crowd[0].queue(b"x" * (SMALL.fragment_bytes * 5), deadline=10.0)
        play_round(committee, crowd)
        play_round(committee, crowd)
        crowd[0].feed(AbortReceived(RoundNumber(3), 1))
        crowd[0].now = 11.0
        crowd[0].feed(TimerFired())
        failed = crowd[0].failed[ticket]
        assert failed.left
        assert "4 of 6 fragments" in failed.text
        assert "below_minimum" in failed.text

    def test_an_envelope_thrown_away_before_it_left_does_not_count_as_sent(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        ticket = crowd[0].queue(b"hello", deadline=10.0)
        play_round(committee, crowd)
        committee.open_round()
        crowd[0].show_header()
        crowd[0].feed(EnvelopeUnsent(RoundNumber(2)))
        crowd[0].now = 11.0
        crowd[0].feed(TimerFired())
        assert not crowd[0].failed[ticket].left

    def test_withdrawn_messages_are_not_put_into_further_envelopes(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        ticket = crowd[0].queue(b"hello")
        play_round(committee, crowd)
        crowd[0].feed(MessageWithdrawn(ticket))
        play_round(committee, crowd)
        assert not committee.verified[1].fragments
        assert not crowd[0].delivered

    def test_stopping_ends_every_message(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        tickets = [crowd[0].queue(b"one"), crowd[0].queue(b"two")]
        crowd[0].feed(Stopped("the publisher was closed"))
        assert sorted(crowd[0].failed) == tickets
        assert all("closed" in failed.text for failed in crowd[0].failed.values())

    def test_nothing_secret_is_shown_by_effects_and_events(
        self, committee: HarnessCommittee, crowd: list[HarnessPublisher]
    ) -> None:
        canary = b"canary-in-the-message"
        crowd[0].queue(canary)
        play_round(committee, crowd)
        play_round(committee, crowd)
        shown = repr(crowd[0].effects)
        assert canary.decode() not in shown
        assert crowd[0].envelopes[0].body.hex() not in shown

"""The publisher as a program uses it: many calls, the same message twice, back-pressure, crowds."""

from __future__ import annotations

import asyncio
import threading
import warnings
from functools import partial
from typing import TYPE_CHECKING

import pytest

import zipnet
from tests.harness.fake_network import FakeNetwork
from zipnet.errors import AnonymityWarning, ConfigError, NotSent, Unknown, VerificationError
from zipnet.protocol.params import RoundParams
from zipnet.protocol.slots import message_id_of
from zipnet.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zipnet.sdk import Progress

SALT = b"8 bytes!"


@pytest.fixture
async def network() -> AsyncIterator[FakeNetwork]:
    async with FakeNetwork("tls") as running:
        yield running


@pytest.fixture
async def pair(network: FakeNetwork) -> AsyncIterator[tuple[zipnet.Publisher, zipnet.Publisher]]:
    """Two registered publishers, enough for a round."""
    descriptor = network.committee.descriptor
    async with (
        zipnet.Publisher(descriptor, transport="tls") as one,
        zipnet.Publisher(descriptor, transport="tls") as two,
    ):
        await one.when.registered()
        await two.when.registered()
        yield one, two


async def _read(network: FakeNetwork) -> list[bytes]:
    async with zipnet.Reader(network.committee.descriptor, transport="tls", follow=False) as reader:
        return [message.payload async for message in reader]


class TestOneMessage:
    async def test_the_receipts_proof_gives_the_message_back_to_anyone(
        self, network: FakeNetwork, pair: tuple[zipnet.Publisher, zipnet.Publisher]
    ) -> None:
        network.keep_running(2)
        long = b"more than one slot " * 30
        receipt = await pair[0].publish(long, salt=SALT)
        descriptor = network.committee.descriptor
        assert receipt.message_id == message_id_of(SALT + long)
        assert zipnet.verify_proof(receipt.proof, receipt.message_id, descriptor) == long
        with pytest.raises(VerificationError):
            zipnet.verify_proof(receipt.proof[:-1], receipt.message_id, descriptor)
        with pytest.raises(VerificationError):
            zipnet.verify_proof(receipt.proof, bytes(16), descriptor)

    async def test_published_twice_with_one_salt_it_is_broadcast_once(
        self, network: FakeNetwork, pair: tuple[zipnet.Publisher, zipnet.Publisher]
    ) -> None:
        network.keep_running(2)
        both = await asyncio.gather(*(pair[0].publish(b"once", salt=SALT) for _ in range(3)))
        again = await pair[0].publish(b"once", salt=SALT)
        assert len({id(receipt) for receipt in (*both, again)}) == 1
        assert await _read(network) == [b"once"]
        shown = [
            slot for record in network.committee.verified for slot in record.fragments.values()
        ]
        assert len(shown) == 1, "not even on the wire"

    async def test_one_of_two_callers_giving_up_takes_nothing_from_the_other(
        self, network: FakeNetwork, pair: tuple[zipnet.Publisher, zipnet.Publisher]
    ) -> None:
        first = asyncio.create_task(pair[0].publish(b"shared", salt=SALT))
        second = asyncio.create_task(pair[0].publish(b"shared", salt=SALT))
        await asyncio.sleep(0)
        first.cancel()
        network.keep_running(2)
        assert (await second).message_id == message_id_of(SALT + b"shared")

    async def test_both_callers_giving_up_leave_nothing_behind_for_a_third(
        self, network: FakeNetwork, pair: tuple[zipnet.Publisher, zipnet.Publisher]
    ) -> None:
        for outcome in ("cancelled", "not sent"):
            timeout = 0.2 if outcome == "not sent" else 60
            first, second = (
                asyncio.create_task(pair[0].publish(b"shared", timeout=timeout, salt=SALT))
                for _ in range(2)
            )
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.sleep(0)
            if outcome == "cancelled":
                second.cancel()
            done = await asyncio.gather(first, second, return_exceptions=True)
            expected = NotSent if outcome == "not sent" else asyncio.CancelledError
            assert [type(one) for one in done] == [asyncio.CancelledError, expected]
        network.keep_running(2)
        async with asyncio.timeout(30):
            third = await pair[0].publish(b"shared", salt=SALT)
        assert third.message_id == message_id_of(SALT + b"shared")

    async def test_an_unknown_message_published_again_is_found_where_it_was_broadcast(
        self, network: FakeNetwork, pair: tuple[zipnet.Publisher, zipnet.Publisher]
    ) -> None:
        one, _ = pair
        committee = network.committee
        sending = asyncio.create_task(one.publish(b"late", timeout=3600, salt=SALT))
        while not any(committee.verified and committee.verified[-1].record.content.reservations):
            assert await network.run_round(2)
        for node in network.nodes.values():  # the round that carries it stays secret for a while
            node.muted.add(Kind.RECORD_SEALED)
        assert await network.run_round(2)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        for node in network.nodes.values():
            node.muted.clear()
        network.keep_running(2)
        receipt = await one.publish(b"late", salt=SALT)
        holding = [r for r in committee.verified if r.fragments]
        assert [r.sequence for r in holding] == [receipt.sequence], "it was not sent again"

    async def test_progress_is_told_in_order(
        self, network: FakeNetwork, pair: tuple[zipnet.Publisher, zipnet.Publisher]
    ) -> None:
        network.keep_running(2)
        seen: list[Progress] = []
        receipt = await pair[0].publish(b"long " * 100, on_progress=seen.append)
        stages = [p.stage for p in seen]
        assert stages[0] == "queued"
        assert stages[-1] == "broadcast"
        assert "sent" in stages
        assert seen[-1].placed == seen[-1].fragments == len(receipt.placements)
        assert {p.message_id for p in seen} == {receipt.message_id}
        numbers = [p.round for p in seen if p.round is not None]
        assert numbers == sorted(numbers)


class TestManyMessages:
    async def test_the_queue_is_bounded_and_later_calls_wait_their_turn(
        self, network: FakeNetwork
    ) -> None:
        descriptor = network.committee.descriptor
        async with (
            zipnet.Publisher(descriptor, transport="tls", max_queued=2) as one,
            zipnet.Publisher(descriptor, transport="tls") as two,
        ):
            await one.when.registered()
            await two.when.registered()
            texts = [b"message %d" % number for number in range(12)]
            sending = [asyncio.create_task(one.publish(text)) for text in texts]
            await asyncio.sleep(0)  # they stand in line
            with pytest.raises(NotSent, match="queue was full") as full:
                await one.publish(b"no room", timeout=0.2)
            assert full.value.message == b"no room"
            assert full.value.hint is not None
            network.keep_running(2)
            receipts = await asyncio.gather(*sending)
        assert len({r.message_id for r in receipts}) == 12
        assert sorted(await _read(network)) == sorted(texts)
        rounds = [receipt.round for receipt in receipts]
        assert rounds == sorted(rounds), "in the order they were asked for"

    async def test_cancelled_calls_leave_room_for_others(self, network: FakeNetwork) -> None:
        descriptor = network.committee.descriptor
        async with (
            zipnet.Publisher(descriptor, transport="tls", max_queued=1) as one,
            zipnet.Publisher(descriptor, transport="tls") as two,
        ):
            await one.when.registered()
            await two.when.registered()
            blocked = [asyncio.create_task(one.publish(b"%d" % n)) for n in range(5)]
            await asyncio.sleep(0)
            for task in blocked:
                task.cancel()
            await asyncio.gather(*blocked, return_exceptions=True)
            network.keep_running(2)
            await one.publish(b"through")
        assert await _read(network) == [b"through"]


class TestTheCrowd:
    @pytest.mark.requirement("Z19")
    async def test_nothing_real_leaves_before_enough_clients_are_registered(self) -> None:
        params = RoundParams(num_slots=8, slot_bytes=128, min_participants=3)
        async with FakeNetwork("tls", params=params) as network:
            descriptor = network.committee.descriptor
            network.nodes["s0"].lie_about_crowd = lambda _registered: 1000  # one liar does not help
            async with zipnet.Publisher(descriptor, transport="tls") as one:
                await one.when.registered()
                network.keep_running(1, wait_s=0.3)
                with pytest.raises(NotSent, match="clients are registered, 3 are needed") as alone:
                    await one.publish(b"too early", timeout=2.5)
                assert alone.value.hint is not None
                assert "joined" in alone.value.hint
                async with (
                    zipnet.Publisher(descriptor, transport="tls") as two,
                    zipnet.Publisher(descriptor, transport="tls") as three,
                ):
                    await two.when.registered()
                    await three.when.registered()
                    receipt = await one.publish(b"in company")
            assert receipt.participants == 3
            assert all(r.record.content.participants >= 3 for r in network.committee.verified)

    @pytest.mark.requirement("Z19")
    async def test_the_first_round_after_joining_is_cover_only(
        self, network: FakeNetwork, pair: tuple[zipnet.Publisher, zipnet.Publisher]
    ) -> None:
        sending = asyncio.create_task(pair[0].publish(b"at once"))
        network.keep_running(2)
        receipt = await sending
        first = network.committee.verified[0].record.content
        assert first.header.round == 1
        assert not any(first.reservations)
        assert receipt.round >= 3, "cover, reservation, message"

    async def test_a_crowd_smaller_than_asked_for_holds_messages_back(
        self, network: FakeNetwork
    ) -> None:
        descriptor = network.committee.descriptor
        async with (
            zipnet.Publisher(descriptor, transport="tls", min_anonymity_set=3) as one,
            zipnet.Publisher(descriptor, transport="tls") as two,
        ):
            await one.when.registered()
            await two.when.registered()
            network.keep_running(2, wait_s=0.5)
            with pytest.raises(NotSent, match="min_anonymity_set is 3") as small:
                await one.publish(b"not among two", timeout=3)
            assert "larger crowd" in (small.value.hint or "")
            async with zipnet.Publisher(descriptor, transport="tls") as three:
                await three.when.registered()
                network._rounds.cancel()  # type: ignore[union-attr]
                network.keep_running(3, wait_s=1.0)
                assert (await one.publish(b"among three")).participants == 3

    async def test_weak_acts_are_warned_of_and_can_be_made_errors(
        self, network: FakeNetwork
    ) -> None:
        descriptor = network.committee.descriptor
        told: list[str] = []
        async with (
            zipnet.Publisher(
                descriptor, transport="tls", settle_rounds=0, on_warning=told.append
            ) as one,
            zipnet.Publisher(descriptor, transport="tls") as two,
        ):
            await one.when.registered()
            await two.when.registered()
            network.keep_running(2)
            await one.publish(b"hasty")
            await two.publish(b"also hasty")
            with warnings.catch_warnings():
                warnings.simplefilter("error", AnonymityWarning)
                with pytest.raises(AnonymityWarning, match="one of so few"):
                    await two.publish(b"never queued")
            await one.publish(b"and away")
        assert any("first round after joining" in text for text in told)
        assert any("leaving right after talking" in text for text in told)
        assert b"never queued" not in await _read(network)

    async def test_lingering_stays_for_rounds_with_cover(self, network: FakeNetwork) -> None:
        descriptor = network.committee.descriptor
        told: list[str] = []
        async with zipnet.Publisher(descriptor, transport="tls") as two:
            await two.when.registered()
            async with zipnet.Publisher(
                descriptor, transport="tls", linger_rounds=3, on_warning=told.append
            ) as one:
                await one.when.registered()
                network.keep_running(2, wait_s=0.5)
                receipt = await one.publish(b"unhurried")
            later = [r for r in network.committee.verified if r.round > receipt.round]
            assert sum(r.record.content.participants == 2 for r in later) >= 2
        assert not any("leaving" in text for text in told)


class TestTrust:
    async def test_a_roster_without_a_named_operator_gets_no_envelope(self) -> None:
        async with FakeNetwork("tls") as network:
            descriptor = network.committee.descriptor
            with pytest.raises(ConfigError, match="names s7") as wrong:
                zipnet.Publisher(
                    descriptor,
                    transport="tls",
                    trust=zipnet.TrustPolicy(operators=frozenset({"s7"})),
                )
            assert "s0, s1, s2" in (wrong.value.hint or "")

    async def test_an_old_round_gets_no_envelope(self, network: FakeNetwork) -> None:
        policy = zipnet.TrustPolicy(max_record_age_s=60)
        committee = network.committee
        year_2020 = partial(committee.open_round, opened_at_ms=1_577_836_800_000)
        committee.open_round = year_2020  # type: ignore[method-assign]
        descriptor = network.committee.descriptor
        async with (
            zipnet.Publisher(descriptor, transport="tls", trust=policy, settle_rounds=0) as one,
            zipnet.Publisher(descriptor, transport="tls") as two,
        ):
            await one.when.registered()
            await two.when.registered()
            network.keep_running(1, wait_s=0.2)
            with pytest.raises(NotSent, match="the trust policy allows 60 s"):
                await one.publish(b"stale", timeout=2)


async def test_after_closing_the_outcome_is_not_sent(network: FakeNetwork) -> None:
    async with zipnet.Publisher(network.committee.descriptor, transport="tls") as one:
        pass
    with pytest.raises(NotSent) as closed:
        await one.publish(b"too late")
    assert closed.value.hint == "open a new publisher"
    assert closed.value.message == b"too late"


def test_the_synchronous_face_is_the_same_publisher() -> None:
    """Everything network runs in another thread's loop; this thread only calls."""
    started, done = threading.Event(), threading.Event()
    found: list[FakeNetwork] = []

    async def run() -> None:
        async with FakeNetwork("tls") as network:
            found.append(network)
            network.keep_running(2, wait_s=0.5)
            started.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert started.wait(20)
        descriptor = found[0].committee.descriptor
        with (
            zipnet.sync.Publisher(descriptor, transport="tls") as one,
            zipnet.sync.Publisher(descriptor, transport="tls") as two,
        ):
            two.wait_registered()
            receipt = one.publish(b"without await")
            with pytest.raises(NotSent):
                one.publish(b"no time", timeout=0.0)
        with zipnet.sync.Reader(descriptor, transport="tls", follow=False) as reader:
            messages = list(reader)
        assert [m.payload for m in messages] == [b"without await"]
        assert messages[0].round == receipt.round
        with pytest.raises(zipnet.ZipnetError):
            one.publish(b"after the end")
    finally:
        done.set()
        thread.join(20)
    assert not [t for t in threading.enumerate() if t.name.startswith("zipnet")]


async def test_unknown_hands_the_salt_back(
    network: FakeNetwork, pair: tuple[zipnet.Publisher, zipnet.Publisher]
) -> None:
    one, _ = pair
    committee = network.committee
    sending = asyncio.create_task(one.publish(b"hello", timeout=60, salt=SALT))
    while not any(committee.verified and committee.verified[-1].record.content.reservations):
        assert await network.run_round(2)
    for node in network.nodes.values():
        node.muted.add(Kind.RECORD_SEALED)
    assert await network.run_round(2)
    await one.close()
    with pytest.raises(Unknown) as outcome:
        await sending
    assert outcome.value.salt == SALT
    assert "salt" in (outcome.value.hint or "")

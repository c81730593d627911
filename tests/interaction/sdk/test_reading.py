"""The reader as a program uses it: resuming, trust, and servers that tell two stories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import zipnet
from tests.harness.committee import HarnessCommittee
from tests.harness.fake_network import FakeNetwork
from tests.harness.publishers import HarnessPublisher, play_round
from zipnet.errors import EquivocationError, TrustPolicyError, VerificationError, ZipnetError
from zipnet.machines.reader import Advanced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zipnet.protocol.ids import ServerIndex


@pytest.fixture
async def network() -> AsyncIterator[FakeNetwork]:
    async with FakeNetwork("tls") as running:
        yield running


def _talk(committee: HarnessCommittee, text: bytes, rounds: int = 6) -> None:
    """Play rounds of two clients, one of whom says something, without any network."""
    crowd = [HarnessPublisher(committee, f"{text!r}-{i}") for i in range(2)]
    for publisher in crowd:
        publisher.register()
    crowd[0].queue(text)
    for _ in range(rounds):
        play_round(committee, crowd)


def _twin(network: FakeNetwork) -> HarnessCommittee:
    """The same committee with the same keys, telling another story."""
    descriptor = network.committee.descriptor.descriptor
    twin = HarnessCommittee(
        params=network.committee.params,
        aggregators={"root": None},
        ports=network.ports,
        cadence=descriptor.cadence,
    )
    assert descriptor.name == twin.descriptor.descriptor.name
    assert twin.descriptor.group == network.committee.descriptor.group
    return twin


async def _read_all(network: FakeNetwork, troubles: list[ZipnetError] | None = None) -> int:
    async with zipnet.Reader(
        network.committee.descriptor,
        transport="tls",
        follow=False,
        on_trouble=troubles.append if troubles is not None else None,
    ) as reader:
        return len([record async for record in reader.records()])


async def _collect(reader: zipnet.Reader, into: list[int]) -> None:
    async for record in reader.records():
        into.append(record.sequence)  # noqa: PERF401 - what came before an error is asked for


async def _fork_found(network: FakeNetwork) -> EquivocationError | None:
    try:
        await _read_all(network)
    except EquivocationError as error:
        return error
    return None


class TestTwoStories:
    async def test_two_servers_with_two_stories_are_found_out_with_proof(
        self, network: FakeNetwork
    ) -> None:
        _talk(network.committee, b"one story")
        twin = _twin(network)
        _talk(twin, b"another story")
        network.nodes["s0"].records = twin.records
        network.nodes["s1"].records = twin.records[:3]  # behind, and of the other story
        descriptor = network.committee.descriptor
        found = [error for _ in range(16) if (error := await _fork_found(network)) is not None]
        assert found  # whom it asks is drawn: half of the pairs show it
        for error in found:
            assert 0 <= zipnet.verify_equivocation(error.proof, descriptor) < 6
            assert "keep the error's proof" in (error.hint or "")
        with pytest.raises(VerificationError):
            zipnet.verify_equivocation((twin.records[0], twin.records[1]), descriptor)
        with pytest.raises(VerificationError):
            zipnet.verify_equivocation((twin.records[0], twin.records[0]), descriptor)

    async def test_a_fork_met_on_the_way_to_another_server_is_proved_too(
        self, network: FakeNetwork
    ) -> None:
        """The first server dies after three records; the next one's log does not extend them."""
        _talk(network.committee, b"one story")
        twin = _twin(network)
        _talk(twin, b"another story")
        for name in ("s0", "s1", "s2"):
            network.nodes[name].records = network.committee.records[:3]
        async with zipnet.Reader(
            network.committee.descriptor, transport="tls", follow=True, cross_check=0
        ) as reader:
            events = reader.events()
            seen = 0
            while seen < 3:
                seen += isinstance(await anext(events), Advanced)
            for name in ("s0", "s1", "s2"):
                network.nodes[name].records = twin.records
                for session in list(network.nodes[name].sessions):
                    await session.close()
            with pytest.raises(EquivocationError) as forked:
                await anext(events)
        assert zipnet.verify_equivocation(forked.value.proof, network.committee.descriptor) == 2

    async def test_one_story_on_servers_of_different_age_is_no_finding(
        self, network: FakeNetwork
    ) -> None:
        _talk(network.committee, b"one story")
        network.nodes["s1"].records = network.committee.records[:2]
        for _ in range(4):
            assert await _read_all(network) in (2, 6)


class TestResuming:
    async def test_reading_goes_on_in_another_process_from_a_bookmark(
        self, network: FakeNetwork
    ) -> None:
        _talk(network.committee, b"long " * 60, rounds=9)
        _talk(network.committee, b"later", rounds=5)
        descriptor = network.committee.descriptor
        payloads: list[bytes] = []
        bookmark: zipnet.Bookmark | None = None
        for _ in range(20):  # each "process" takes two records and goes away
            async with zipnet.Reader(
                descriptor, transport="tls", follow=False, resume=bookmark
            ) as reader:
                taken = 0
                async for event in reader.events():
                    if isinstance(event, zipnet.Message):
                        payloads.append(event.payload)
                    taken += isinstance(event, Advanced)
                    if taken == 3:
                        break
                bookmark = reader.bookmark
        assert payloads == [b"long " * 60, b"later"]

    async def test_a_bookmark_of_another_log_ends_the_reading(self, network: FakeNetwork) -> None:
        _talk(network.committee, b"story")
        twin = _twin(network)
        _talk(twin, b"another")
        bookmark = zipnet.Bookmark(4, twin.verified[3].hash, 4)
        async with zipnet.Reader(
            network.committee.descriptor, transport="tls", resume=bookmark, follow=True
        ) as reader:
            with pytest.raises(VerificationError, match="bookmark"):
                await anext(reader.records())


class TestTrust:
    async def test_a_record_without_a_named_operator_ends_the_reading(self) -> None:
        async with FakeNetwork("tls", max_absent=1) as network:
            committee = network.committee
            _talk(committee, b"all three", rounds=2)
            crowd = [HarnessPublisher(committee, f"more-{i}") for i in range(2)]
            for publisher in crowd:
                publisher.register()
            committee.open_round(roster=_roster(0, 1), opener=_roster(0)[0])
            for publisher in crowd:
                for envelope in publisher.show_header():
                    committee.submit(envelope)
            committee.seal()
            read: list[int] = []
            policies = [
                zipnet.TrustPolicy(operators=frozenset({"s2"})),
                zipnet.TrustPolicy(min_roster=3),
            ]
            for policy in policies:
                read.clear()
                async with zipnet.Reader(
                    committee.descriptor, transport="tls", follow=False, trust=policy
                ) as reader:
                    with pytest.raises(TrustPolicyError) as refused:
                        await _collect(reader, read)
                assert read == [0, 1]
                assert "wait until" in (refused.value.hint or "")
            assert await _read_all(network) == 3

    async def test_a_log_that_stands_still_is_named(self, network: FakeNetwork) -> None:
        committee = network.committee
        crowd = [HarnessPublisher(committee, f"old-{i}") for i in range(2)]
        for publisher in crowd:
            publisher.register()
        committee.open_round(opened_at_ms=1_577_836_800_000)
        for publisher in crowd:
            for envelope in publisher.show_header():
                committee.submit(envelope)
        committee.seal()
        policy = zipnet.TrustPolicy(max_record_age_s=3600)
        async with zipnet.Reader(
            committee.descriptor, transport="tls", follow=False, trust=policy
        ) as reader:
            with pytest.raises(TrustPolicyError, match="allows 3600 s") as old:
                _ = [record async for record in reader.records()]
        assert "stands still" in (old.value.hint or "")


def _roster(*servers: int) -> tuple[ServerIndex, ...]:
    from zipnet.protocol.ids import ServerIndex

    return tuple(ServerIndex(server) for server in servers)

"""What a publisher does when nodes die, lie, refuse or lose things; real sockets throughout."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.fake_network import FakeNetwork
from tests.harness.succession import successor_of
from zipnet.errors import (
    AdmissionError,
    ConfigError,
    LocalProtocolError,
    NotSent,
    PolicyMismatchError,
    Refused,
    Unknown,
    ZipnetError,
)
from zipnet.machines.publisher_events import DescriptorChanged
from zipnet.sdk import Publisher, Reader
from zipnet.transport.session import Role
from zipnet.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from zipnet.protocol.ids import RegistryIndex, RoundNumber
    from zipnet.protocol.record import VerifiedRecord

TREE = {"root": None, "leaf-a": "root", "leaf-b": "root"}


@pytest.fixture
async def network() -> AsyncIterator[FakeNetwork]:
    async with FakeNetwork("tls", aggregators=TREE) as running:
        yield running


@pytest.fixture(autouse=True)
def no_thread_left() -> object:
    """The SDK leaves no thread behind; asyncio's own pool is not used."""
    before = set(threading.enumerate())
    yield
    left = {t.name for t in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith("zipnet")}


def _publisher(network: FakeNetwork, troubles: list[ZipnetError] | None = None) -> Publisher:
    trouble: Callable[[ZipnetError], None] | None = (
        troubles.append if troubles is not None else None
    )
    return Publisher(network.committee.descriptor, transport="tls", on_trouble=trouble)


def _home(network: FakeNetwork) -> str:
    """The aggregator that has a subscriber."""
    (name,) = [n for n in TREE if network.nodes[n].subscribers]
    return name


async def test_a_dead_aggregator_is_left_for_another_leaf(network: FakeNetwork) -> None:
    async with _publisher(network) as one:
        await one.when.registered()
        await network.until(lambda: any(network.nodes[n].subscribers for n in TREE))
        home = _home(network)
        assert home != "root", "leaves come first"
        await network.stop(home)
        async with _publisher(network) as two:
            await two.when.registered()
            network.keep_running(2)
            receipt = await one.publish(b"still here")
        assert receipt.participants == 2


async def test_an_aggregator_that_drops_envelopes_is_left(network: FakeNetwork) -> None:
    nodes = network.nodes
    nodes["leaf-a"].drop_envelopes = True
    troubles: list[ZipnetError] = []
    _close(network, "leaf-a")
    async with _publisher(network) as two, _publisher(network) as three:
        await two.when.registered()
        await three.when.registered()
        await network.until(lambda: _subscribers(network) == 2)
        _close(network, "leaf-b", "root")
        async with _publisher(network, troubles) as one:
            await network.until(lambda: bool(nodes["leaf-a"].subscribers))
            _close(network)
            network.keep_running(3, wait_s=0.1)  # records keep coming without the first one
            receipt = await one.publish(b"heard in the end")
    assert receipt.participants == 3
    assert nodes["leaf-a"].served[Kind.SUBMIT_ENVELOPE] >= 8
    assert any("without what was sent" in str(error) for error in troubles)


def _be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    from zipnet.sdk import links

    monkeypatch.setattr(links, "_SILENCE_S", 0.3)
    monkeypatch.setattr(links, "_SILENT_ROUNDS", 0)


def _close(network: FakeNetwork, *names: str) -> None:
    """Let exactly these aggregators refuse newcomers."""
    for name in TREE:
        refusal = AdmissionError("full", code="overloaded") if name in names else None
        network.nodes[name].refuse = lambda _facts, refusal=refusal: refusal  # type: ignore[misc]


def _refuse_clients(network: FakeNetwork, name: str, error: ZipnetError) -> None:
    """Let a node refuse publishers; who reads or asks for the crowd's size says not who it is."""
    network.nodes[name].refuse = lambda facts: error if facts.role is Role.CLIENT else None


def _subscribers(network: FakeNetwork) -> int:
    return sum(len(network.nodes[name].subscribers) for name in TREE)


async def test_a_kem_epoch_that_turns_between_asking_and_registering_is_retried(
    network: FakeNetwork,
) -> None:
    committee = network.committee
    genuine = committee.announcements
    stale = genuine()

    def announcements() -> list[bytes]:
        committee.announcements = genuine  # type: ignore[method-assign]
        committee.turn_kem_epoch()
        return stale

    committee.announcements = announcements  # type: ignore[method-assign]
    troubles: list[ZipnetError] = []
    async with _publisher(network, troubles) as one:
        async with asyncio.timeout(10):
            await one.when.registered()
    assert any("epoch" in str(error) for error in troubles)
    assert len(committee.changes) == 1


async def test_a_server_replaced_between_registering_and_the_answer_costs_no_waiting(
    network: FakeNetwork,
) -> None:
    committee, genuine = network.committee, network.committee.register
    newcomer = make_identity("newcomer")
    second = successor_of(committee.descriptor, 1, newcomer, committee.operator)
    one = _publisher(network)

    def register(blob: bytes) -> tuple[RegistryIndex, int, RoundNumber]:
        committee.register = genuine  # type: ignore[method-assign]
        place = genuine(blob)
        assert one._driver is not None
        one._driver._step(DescriptorChanged(second))  # heard of over another link
        return place

    committee.register = register  # type: ignore[method-assign]
    servers = [network.nodes[f"s{seat}"] for seat in range(3)]
    async with one:
        await network.until(lambda: sum(s.served[Kind.GET_KEM_KEYS] for s in servers) == 1)
        # What it had registered is void: it asks anew at once, and is not registered meanwhile.
        await network.until(
            lambda: sum(s.served[Kind.GET_KEM_KEYS] for s in servers) > 1, timeout_s=5
        )
        assert one._driver is not None
        assert not one._driver.registered.is_set()


async def test_every_node_refusing_for_good_is_refused_with_the_cause(
    network: FakeNetwork,
) -> None:
    for i in range(3):
        network.nodes[f"s{i}"].refuse = lambda _facts: PolicyMismatchError("other parameters")
    async with _publisher(network) as one:
        with pytest.raises(PolicyMismatchError):
            await one.when.registered()
        with pytest.raises(Refused) as refused:
            await one.publish(b"hello")
        assert isinstance(refused.value.__cause__, ConfigError)
        assert refused.value.message == b"hello"
        assert b"hello" not in repr(refused.value).encode()
        with pytest.raises(PolicyMismatchError):
            await one.when.closed()


async def test_one_node_refusing_is_not_the_last_word(network: FakeNetwork) -> None:
    _refuse_clients(network, "s0", PolicyMismatchError("a lie"))
    _refuse_clients(network, "s1", AdmissionError("later", code="overloaded"))
    _refuse_clients(network, "leaf-a", PolicyMismatchError("a lie"))
    async with _publisher(network) as one, _publisher(network) as two:
        async with asyncio.timeout(10):
            await one.when.registered()
            await two.when.registered()
        network.keep_running(2)
        assert (await one.publish(b"hello")).participants == 2
        await one.when.took_part()


async def test_without_rounds_the_outcome_is_not_sent_and_hands_the_message_back(
    network: FakeNetwork,
) -> None:
    async with _publisher(network) as one:
        await one.when.registered()
        with pytest.raises(NotSent) as outcome:
            await one.publish(b"hello", timeout=0.2)
        assert outcome.value.message == b"hello"
        assert len(outcome.value.message_id) == 16


async def test_a_message_that_left_without_a_record_is_unknown(network: FakeNetwork) -> None:
    async with _publisher(network) as one, _publisher(network) as two:
        await one.when.registered()
        await two.when.registered()
        sending = asyncio.create_task(one.publish(b"hello", timeout=60))
        for _ in range(3):  # until its reservation stands; then a round nobody seals
            assert await network.run_round(2)
            content = network.committee.verified[-1].record.content
            if any(content.reservations):
                break
        committee = network.committee
        signed = committee.open_round()
        from zipnet.wire.messages import RoundOpened

        await network.push(Kind.ROUND_OPENED, RoundOpened(header=signed.encode()))
        await network.until(lambda: committee.participants == 2)
        await one.close()
        with pytest.raises(Unknown) as outcome:
            await sending
        assert "closed" in str(outcome.value)


async def test_cancelling_a_publish_ends_it_and_leaves_the_publisher_working(
    network: FakeNetwork,
) -> None:
    async with _publisher(network) as one, _publisher(network) as two:
        await one.when.registered()
        await two.when.registered()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await one.publish(b"never mind")
        network.keep_running(2)
        await one.publish(b"but this")
    async with Reader(network.committee.descriptor, transport="tls", follow=False) as reader:
        assert [m.payload async for m in reader] == [b"but this"]


async def test_misuse_is_named(network: FakeNetwork) -> None:
    idle = _publisher(network)
    with pytest.raises(LocalProtocolError):
        await idle.publish(b"x")
    with pytest.raises(LocalProtocolError):
        await idle.when.registered()
    async with idle:
        for wrong in (b"", bytes(10_000_000)):
            with pytest.raises(LocalProtocolError):
                await idle.publish(wrong)
        with pytest.raises(LocalProtocolError):
            await idle.__aenter__()
    with pytest.raises(ZipnetError):
        await idle.publish(b"after the end")


async def test_registrations_after_an_aggregator_lost_the_registry_work_again(
    network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zipnet.sdk import driver

    monkeypatch.setattr(driver, "_REGISTER_AGAIN_S", 0.1)
    async with _publisher(network) as one, _publisher(network) as two:
        await one.when.registered()
        await two.when.registered()
        for client in network.committee._clients.values():
            client.retired = True  # the committee forgot everybody
        network.keep_running(2, wait_s=0.3)
        receipt = await one.publish(b"back again", timeout=30)
    assert receipt.participants == 2
    assert len(network.committee.changes) >= 4


async def test_records_a_relay_swallows_are_fetched_from_the_committee(
    network: FakeNetwork,
) -> None:
    async with _publisher(network) as one, _publisher(network) as two:
        await one.when.registered()
        await two.when.registered()
        await network.until(lambda: _subscribers(network) == 2)
        assert await network.run_round(2)  # something verified to stand on
        sending = asyncio.create_task(one.publish(b"hello", timeout=30))
        while not any(network.committee.verified[-1].record.content.reservations):
            assert await network.run_round(2)
        for name in TREE:  # from here on the relays tell of rounds only
            network.nodes[name].muted.add(Kind.RECORD_SEALED)
        while not sending.done():
            assert await network.run_round(2)
        receipt = await sending
    served = sum(network.nodes[f"s{i}"].served[Kind.GET_RECORDS] for i in range(3))
    assert served >= 1
    assert receipt.round >= 3


async def test_a_silent_aggregator_is_left(
    network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    _be_impatient(monkeypatch)
    network.nodes["leaf-a"].muted.add(Kind.ROUND_OPENED)
    _close(network, "leaf-b", "root")
    troubles: list[ZipnetError] = []
    async with _publisher(network, troubles) as one:
        await network.until(lambda: bool(network.nodes["leaf-a"].subscribers))
        _close(network, "leaf-a")
        async with _publisher(network) as two:
            await two.when.registered()
            network.keep_running(2, wait_s=0.1)
            assert (await one.publish(b"hello")).participants == 2
    assert any("no round was opened" in str(error) for error in troubles)


@pytest.mark.spec("8.7")
async def test_a_lying_server_is_left_and_reading_goes_on(network: FakeNetwork) -> None:
    async with _publisher(network) as one, _publisher(network) as two:
        await one.when.registered()
        await two.when.registered()
        for _ in range(3):
            assert await network.run_round(2)
    records = network.committee.records
    troubles: list[ZipnetError] = []
    genuine = list(records)
    asked = 0

    class Lying(list[bytes]):
        """Serves junk the first two times it is asked."""

        def __getitem__(self, key: slice) -> list[bytes]:  # type: ignore[override]
            nonlocal asked
            asked += 1
            page = genuine[key]
            if asked == 1:
                return [page[0][:-1] + bytes([page[0][-1] ^ 1]), *page[1:]]
            return page[1:] if asked == 2 else page  # a gap

    network.committee.records = Lying(records)
    descriptor = network.committee.descriptor
    async with Reader(
        descriptor, transport="tls", follow=False, on_trouble=troubles.append
    ) as reader:
        read = [record.sequence async for record in reader.records()]
    assert read == [0, 1, 2]
    assert len(troubles) == 2


async def test_a_follower_moves_to_another_server_and_misses_nothing(network: FakeNetwork) -> None:
    async with _publisher(network) as one, _publisher(network) as two:
        await one.when.registered()
        await two.when.registered()
        assert await network.run_round(2)
        descriptor = network.committee.descriptor
        async with Reader(descriptor, transport="tls", from_sequence=0) as reader:
            records = reader.records()

            async def following() -> VerifiedRecord:
                return await anext(records)

            assert (await anext(records)).sequence == 0
            waiting = asyncio.create_task(following())
            await network.until(lambda: any(network.nodes[f"s{i}"].subscribers for i in range(3)))
            (serving,) = [s for s in ("s0", "s1", "s2") if network.nodes[s].subscribers]
            await network.stop(serving)
            assert await network.run_round(2)
            async with asyncio.timeout(10):
                assert (await waiting).sequence == 1
            waiting = asyncio.create_task(following())
            assert await network.run_round(2)
            async with asyncio.timeout(10):
                assert (await waiting).sequence == 2


async def test_a_follower_leaves_a_server_that_tells_of_nothing(
    network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    _be_impatient(monkeypatch)
    troubles: list[ZipnetError] = []
    async with _publisher(network) as one, _publisher(network) as two:
        await one.when.registered()
        await two.when.registered()
        async with Reader(
            network.committee.descriptor, transport="tls", on_trouble=troubles.append
        ) as reader:
            records = reader.records()

            async def following() -> VerifiedRecord:
                return await anext(records)

            waiting = asyncio.create_task(following())
            await network.until(lambda: any(network.nodes[f"s{i}"].subscribers for i in range(3)))
            (cut_off,) = [s for s in ("s0", "s1", "s2") if network.nodes[s].subscribers]
            network.nodes[cut_off].muted |= {Kind.RECORD_SEALED, Kind.ROUND_OPENED}
            assert await network.run_round(2)
            async with asyncio.timeout(10):
                assert (await waiting).sequence == 0
    assert any("told of nothing" in str(error) for error in troubles)


async def test_a_reader_can_be_read_once_and_needs_follow_for_now(network: FakeNetwork) -> None:
    descriptor = network.committee.descriptor
    with pytest.raises(LocalProtocolError):
        Reader(descriptor, transport="tls", from_sequence=None, follow=False)
    async with Reader(descriptor, transport="tls", follow=False) as reader:
        assert [m async for m in reader] == []
        with pytest.raises(LocalProtocolError):
            reader.events()


async def test_records_of_another_committee_are_never_yielded(network: FakeNetwork) -> None:
    other = HarnessCommittee(seed=9)
    async with Reader(
        other.descriptor,
        transport="tls",
        follow=False,
        servers_at=[("127.0.0.1", network.ports[f"s{i}"]) for i in range(3)],
    ) as reader:
        with pytest.raises(ZipnetError):
            await anext(reader.records())

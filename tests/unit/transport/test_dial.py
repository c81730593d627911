"""One link kept up: it comes back by itself, and says so when coming back is hopeless."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.fake_server import FakeServers, terms_of, tls_of
from zipnet.errors import (
    AdmissionError,
    DuplicateIdentityError,
    RemoteProtocolError,
    TransportError,
    UnknownInstanceError,
    ZipnetError,
)
from zipnet.host.loopback import free_ports
from zipnet.protocol.ids import InstanceId
from zipnet.transport.dial import Backoff, PersistentLink, refusal_code
from zipnet.transport.session import Role
from zipnet.wire.messages import GetRecords, Kind, Records, Subscribe, decode, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zipnet.transport.session import Session, SessionTerms
    from zipnet.wire.frames import Frame

PATIENCE_S = 20.0
QUICK = Backoff(first_s=0.02, most_s=0.05, settled_s=5.0)
GET = encode(GetRecords(from_sequence=0, limit=1))


@asynccontextmanager
async def servers() -> AsyncIterator[FakeServers]:
    ports = dict(zip(("s0", "s1", "s2", "root"), free_ports(4), strict=True))
    async with FakeServers(HarnessCommittee(ports=ports)) as found:
        yield found


def link_to(
    found: FakeServers,
    terms: SessionTerms | None = None,
    *,
    key: bytes | None = None,
    **how: object,
) -> PersistentLink:
    committee = found.committee
    node = committee.descriptor.descriptor.servers[0]
    terms = terms or terms_of(committee, make_identity("client"), Role.CLIENT)
    return PersistentLink(
        tls_of(committee, None),
        node.host,
        node.port,
        key or node.identity.ed25519,
        terms,
        backoff=QUICK,
        **how,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def running(link: PersistentLink) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(link.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def up(link: PersistentLink) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await link.wait_up()


def test_waits_double_up_to_a_bound_and_are_jittered() -> None:
    backoff = Backoff(first_s=0.1, most_s=1.0)
    assert [backoff.delay_s(n, 1.0) for n in (1, 2, 3, 4, 5, 99)] == pytest.approx(
        [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    )
    assert backoff.delay_s(3, 0.0) == pytest.approx(0.2)
    assert backoff.delay_s(10_000, 1.0) == 1.0


async def test_requests_are_answered_while_up_and_refused_while_down() -> None:
    async with servers() as found:
        link = link_to(found)
        with pytest.raises(TransportError):
            await link.request(Kind.GET_RECORDS, GET)
        async with running(link):
            await up(link)
            answer = await link.request(Kind.GET_RECORDS, GET)
            assert not decode(answer.payload, Records).records
        with pytest.raises(TransportError):
            await link.push(Kind.GET_RECORDS, GET)


async def test_it_comes_back_when_the_far_node_does() -> None:
    async with servers() as found:
        ended: asyncio.Queue[ZipnetError] = asyncio.Queue()
        began: asyncio.Queue[Session] = asyncio.Queue()
        link = link_to(found, on_down=ended.put_nowait, on_up=began.put)
        async with asyncio.timeout(PATIENCE_S), running(link):
            first = await began.get()
            await found.servers[0].stop()
            assert isinstance(await ended.get(), TransportError)
            meanwhile = link.session
            assert meanwhile is None
            await found.servers[0].start()
            second = await began.get()
            assert second is not first
            assert link.session is second
            await link.request(Kind.GET_RECORDS, GET)


async def test_pushes_reach_the_callers_handler_in_order() -> None:
    async with servers() as found:
        pushed: asyncio.Queue[int] = asyncio.Queue()

        async def on_frame(frame: Frame) -> Frame | None:
            await pushed.put(frame.kind)
            return None

        link = link_to(found, on_frame=on_frame)
        async with asyncio.timeout(PATIENCE_S), running(link):
            await up(link)
            await link.request(Kind.SUBSCRIBE, encode(Subscribe(from_sequence=None)))
            found.servers[0].feed.publish_opened(b"header")
            found.servers[0].feed.publish_aborted(1, 1)
            assert [await pushed.get(), await pushed.get()] == [
                Kind.ROUND_OPENED,
                Kind.ROUND_ABORTED,
            ]


async def test_a_push_nobody_asked_for_ends_the_session_and_not_the_run() -> None:
    """One member of a committee must not be able to take the others down with one frame."""
    async with servers() as found:
        ended: asyncio.Queue[ZipnetError] = asyncio.Queue()
        link = link_to(found, on_down=ended.put_nowait)  # as servers dial each other
        async with asyncio.timeout(PATIENCE_S), running(link) as task:
            await up(link)
            await link.request(Kind.SUBSCRIBE, encode(Subscribe(from_sequence=None)))
            found.servers[0].feed.publish_aborted(1, 1)
            done = asyncio.ensure_future(ended.get())
            await asyncio.wait({task, done}, return_when=asyncio.FIRST_COMPLETED)
            assert not task.done(), "a peer's push ended what keeps the link up"
            assert isinstance(done.result(), RemoteProtocolError)
            await up(link)


async def test_a_refusal_nobody_can_wait_out_ends_the_run() -> None:
    async with servers() as found:
        terms = terms_of(found.committee, make_identity("client"), Role.CLIENT)
        other = dataclasses.replace(terms, instance_id=InstanceId(bytes(32)))
        with pytest.raises(UnknownInstanceError):
            async with asyncio.timeout(PATIENCE_S):
                await link_to(found, other).run()


async def test_the_caller_may_ask_to_go_on_after_a_refusal() -> None:
    async with servers() as found:
        stranger = terms_of(found.committee, make_identity("stranger"), Role.AGGREGATOR)
        codes: list[str] = []

        def go_on(error: ZipnetError) -> bool:
            codes.append(refusal_code(error))
            return len(codes) < 3

        with pytest.raises(AdmissionError):
            async with asyncio.timeout(PATIENCE_S):
                await link_to(found, stranger, on_refused=go_on).run()
        assert codes == ["not_registered"] * 3


async def test_a_second_process_is_told_that_its_identity_is_taken() -> None:
    async with servers() as found:
        identity = make_identity("client")
        first = link_to(found, terms_of(found.committee, identity, Role.CLIENT))
        async with running(first):
            await up(first)
            second = link_to(found, terms_of(found.committee, identity, Role.CLIENT))
            with pytest.raises(DuplicateIdentityError):
                async with asyncio.timeout(PATIENCE_S):
                    await second.run()
            await first.request(Kind.GET_RECORDS, GET)  # the first one never noticed


async def test_another_key_than_the_expected_one_is_never_talked_to() -> None:
    async with servers() as found:
        failures: asyncio.Queue[ZipnetError] = asyncio.Queue()
        other = found.committee.identities[1].public.ed25519
        link = link_to(found, key=other, on_down=failures.put_nowait)
        async with asyncio.timeout(PATIENCE_S), running(link):
            for _ in range(2):
                assert isinstance(await failures.get(), TransportError)
                assert link.session is None


async def test_another_identity_behind_the_expected_key_is_refused() -> None:
    async with servers() as found:
        link = link_to(found, expected_peer=found.committee.identities[1].peer_id)
        with pytest.raises(AdmissionError) as refused:
            async with asyncio.timeout(PATIENCE_S):
                await link.run()
        assert refused.value.code == "identity_mismatch"


async def test_a_session_whose_welcome_fails_is_dropped_and_tried_again() -> None:
    async with servers() as found:
        tries: asyncio.Queue[None] = asyncio.Queue()

        async def on_up(session: Session) -> None:
            await tries.put(None)
            await session.request(Kind.GET_KEM_KEYS, b"")  # these servers refuse it

        link = link_to(found, on_up=on_up)
        async with asyncio.timeout(PATIENCE_S), running(link) as task:
            for _ in range(3):
                await tries.get()
            assert not task.done()

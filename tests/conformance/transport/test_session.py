"""Requests, answers and pushes over a real link."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.conformance.transport.engines import PATIENCE_S, Engine
from tests.conformance.transport.parties import Node, served, silent, terms
from tests.conformance.transport.relay import relaying
from zipnet.errors import (
    AdmissionError,
    GuardError,
    LocalProtocolError,
    PolicyMismatchError,
    RemoteProtocolError,
    TransportError,
    ZipnetError,
)
from zipnet.transport.session import Role, Session, initiate
from zipnet.wire.frames import CloseCode, Frame, SessionKind
from zipnet.wire.limits import DEFAULT_LIMITS, Limits

CLIENT = terms(2, Role.CLIENT)


async def test_a_thousand_requests_at_once_each_get_their_own_answer(engine: Engine) -> None:
    node = Node(engine)
    async with (
        node.running() as listener,
        served(await node.dial(listener.port, CLIENT)) as session,
    ):
        texts = [f"request {number}".encode() for number in range(1000)]
        answers = await asyncio.wait_for(
            asyncio.gather(*(session.request(40, text, PATIENCE_S) for text in texts)),
            2 * PATIENCE_S,
        )
        assert [answer.payload[::-1] for answer in answers] == texts


async def test_requests_are_answered_in_the_order_they_are_done_not_asked(engine: Engine) -> None:
    gate = asyncio.Event()

    async def handler(frame: Frame) -> Frame | None:
        if frame.payload == b"slow":
            await gate.wait()
        return frame.answer(frame.kind, frame.payload)

    node = Node(engine, handler=handler)
    async with (
        node.running() as listener,
        served(await node.dial(listener.port, CLIENT)) as session,
    ):
        slow = asyncio.create_task(session.request(40, b"slow", PATIENCE_S))
        assert (await session.request(40, b"fast", PATIENCE_S)).payload == b"fast"
        assert not slow.done()
        gate.set()
        assert (await slow).payload == b"slow"


async def test_both_sides_may_ask_at_the_same_time(engine: Engine) -> None:
    async def shout(frame: Frame) -> Frame | None:
        return frame.answer(frame.kind, frame.payload.upper())

    asked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handler(frame: Frame) -> Frame | None:
        if frame.request_id == 0:
            asked.set_result((await node.sessions[0].request(41, b"back", PATIENCE_S)).payload)
            return None
        return frame.answer(frame.kind, frame.payload)

    node = Node(engine, handler=handler)
    async with (
        node.running() as listener,
        served(await node.dial(listener.port, CLIENT), shout) as session,
    ):
        await session.push(42, b"ask me")
        assert (await session.request(40, b"there", PATIENCE_S)).payload == b"there"
        assert await asyncio.wait_for(asked, PATIENCE_S) == b"BACK"


async def test_pushes_reach_the_handler_one_by_one_in_order(engine: Engine) -> None:
    seen: list[int] = []
    running = 0
    complete = asyncio.Event()

    async def handler(frame: Frame) -> Frame | None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        seen.append(int.from_bytes(frame.payload, "big"))
        running -= 1
        if len(seen) == 800:
            complete.set()
        return None

    node = Node(engine, handler=handler)
    async with (
        node.running() as listener,
        served(await node.dial(listener.port, CLIENT)) as session,
    ):
        for number in range(800):
            await session.push(40, number.to_bytes(2, "big"))
        await asyncio.wait_for(complete.wait(), PATIENCE_S)
    assert seen == list(range(800))


async def test_pushes_that_arrived_before_the_end_are_still_delivered(engine: Engine) -> None:
    gate, seen = asyncio.Event(), []

    async def handler(frame: Frame) -> Frame | None:
        await gate.wait()
        seen.append(frame.payload)
        return None

    node = Node(engine, handler=handler)
    async with node.running() as listener:
        session = await node.dial(listener.port, CLIENT)
        for number in range(20):
            await session.push(40, bytes([number]))
        await session.close()
        gate.set()
        await asyncio.wait_for(node.done.wait(), PATIENCE_S)
    assert seen == [bytes([number]) for number in range(20)]


ERRORS: dict[str, tuple[ZipnetError, type[ZipnetError], str]] = {
    "admission": (
        AdmissionError("no", code="quota", retry_after=1.5),
        AdmissionError,
        "quota",
    ),
    "policy": (PolicyMismatchError("differs"), PolicyMismatchError, "policy_mismatch"),
    "guard": (GuardError("never"), AdmissionError, "guard"),
    "another link failed": (TransportError("parent is gone"), AdmissionError, "transport"),
}


@pytest.mark.parametrize(("error", "kind", "code"), ERRORS.values(), ids=ERRORS.keys())
async def test_an_error_of_the_handler_refuses_the_request_and_keeps_the_link(
    engine: Engine, error: ZipnetError, kind: type[ZipnetError], code: str
) -> None:
    async def handler(frame: Frame) -> Frame | None:
        if frame.kind == 41:
            raise error
        return None

    node = Node(engine, handler=handler)
    async with (
        node.running() as listener,
        served(await node.dial(listener.port, CLIENT)) as session,
    ):
        with pytest.raises(kind) as caught:
            await session.request(41, b"", PATIENCE_S)
        assert str(caught.value) == str(error)
        assert (
            caught.value.code if isinstance(caught.value, AdmissionError) else caught.value.reason
        ) == code
        empty = await session.request(40, b"", PATIENCE_S)
        assert empty.payload == b""
        assert empty.kind == 40


async def test_an_answer_too_large_to_send_is_refused_and_keeps_the_link(engine: Engine) -> None:
    async def handler(frame: Frame) -> Frame | None:
        size = int(frame.payload or b"0")
        return frame.answer(frame.kind, bytes(size))

    node = Node(engine, handler=handler)
    async with (
        node.running() as listener,
        served(await node.dial(listener.port, CLIENT)) as session,
    ):
        with pytest.raises(AdmissionError) as caught:
            await session.request(40, str(DEFAULT_LIMITS.max_frame_bytes + 1).encode(), PATIENCE_S)
        assert caught.value.code == "local_protocol"
        assert (await session.request(40, b"3", PATIENCE_S)).payload == bytes(3)


@pytest.mark.requirement("M4")
async def test_more_requests_than_allowed_at_once_are_refused_not_queued(engine: Engine) -> None:
    gate = asyncio.Event()

    async def handler(frame: Frame) -> Frame | None:
        await gate.wait()
        return None

    node = Node(engine, handler=handler)
    async with node.running(limits=Limits(max_in_flight=4)) as listener:
        greedy = replace(CLIENT, limits=Limits(max_in_flight=100))
        async with served(await node.dial(listener.port, greedy)) as session:
            asked = [asyncio.create_task(session.request(40, b"", PATIENCE_S)) for _ in range(10)]
            refused, _ = await asyncio.wait(
                asked, timeout=PATIENCE_S, return_when="FIRST_EXCEPTION"
            )
            while len(refused) < 6:
                refused, _ = await asyncio.wait(asked, timeout=0.05)
            codes = [task.exception() for task in refused]
            assert all(isinstance(e, AdmissionError) and e.code == "overloaded" for e in codes)
            gate.set()
            rest = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(answer, Frame) for answer in rest) == 4


async def test_requests_above_the_byte_bound_are_refused(engine: Engine) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def handler(frame: Frame) -> Frame | None:
        begun.set()
        await gate.wait()
        return None

    node = Node(engine, handler=handler)
    async with (
        node.running(limits=Limits(max_in_flight_bytes=10_000)) as listener,
        served(await node.dial(listener.port, CLIENT)) as session,
    ):
        first = asyncio.create_task(session.request(40, bytes(50_000), PATIENCE_S))
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        with pytest.raises(AdmissionError) as caught:
            await session.request(40, bytes(5_000), PATIENCE_S)
        assert caught.value.code == "overloaded"
        gate.set()
        await first  # a single request may be as large as a frame


async def test_a_sender_keeps_to_the_bound_by_itself(engine: Engine) -> None:
    running = most = 0

    async def handler(frame: Frame) -> Frame | None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return None

    limits = Limits(max_in_flight=3)
    node = Node(engine, handler=handler)
    async with (
        node.running(limits=limits) as listener,
        served(await node.dial(listener.port, replace(CLIENT, limits=limits))) as session,
    ):
        await asyncio.gather(*(session.request(40, b"", PATIENCE_S) for _ in range(60)))
    assert most <= 3


async def test_a_late_answer_is_dropped_and_the_link_stays(engine: Engine) -> None:
    gate = asyncio.Event()

    async def handler(frame: Frame) -> Frame | None:
        if frame.kind == 41:
            await gate.wait()
        return frame.answer(frame.kind, b"done")

    node = Node(engine, handler=handler)
    async with (
        node.running() as listener,
        served(await node.dial(listener.port, CLIENT)) as session,
    ):
        with pytest.raises(TransportError, match="no answer"):
            await session.request(41, b"", 0.2)
        gate.set()
        assert (await session.request(40, b"", PATIENCE_S)).payload == b"done"
        assert session.ended_by is None


async def test_alive_tells_a_live_peer_from_a_dead_one(engine: Engine) -> None:
    node = Node(engine)
    limits = Limits(close_deadline_s=0.4)
    async with (
        node.running(limits=limits) as listener,
        relaying(engine.name, listener.port) as relay,
    ):
        session = await node.dial(relay.port, replace(CLIENT, limits=limits))
        async with served(session):
            assert await session.alive(PATIENCE_S)
            relay.freeze()
            assert not await session.alive(0.3)
            await session.close()
            assert not await session.alive(PATIENCE_S)


async def test_an_idle_session_pings_and_so_outlives_the_idle_timeout(engine: Engine) -> None:
    limits = Limits(idle_timeout_s=1.5)
    node = Node(engine)
    async with (
        node.running(limits=limits) as listener,
        served(await node.dial(listener.port, replace(CLIENT, limits=limits))) as session,
    ):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(node.done.wait(), 2.0)
        assert session.ended_by is None
        assert await session.alive(PATIENCE_S)


async def test_both_sides_of_a_dead_link_find_out_by_themselves(engine: Engine) -> None:
    limits = Limits(idle_timeout_s=0.9, close_deadline_s=0.3)
    node = Node(engine)
    async with (
        node.running(limits=limits) as listener,
        relaying(engine.name, listener.port) as relay,
    ):
        session = await node.dial(relay.port, replace(CLIENT, limits=limits))
        serving = asyncio.create_task(session.serve(silent))
        assert await session.alive(PATIENCE_S)
        relay.freeze()
        await asyncio.wait_for(serving, PATIENCE_S)
        await asyncio.wait_for(node.done.wait(), PATIENCE_S)
        assert isinstance(session.ended_by, TransportError)
        assert isinstance(node.sessions[0].ended_by, TransportError)


async def test_a_request_in_flight_fails_at_once_when_the_link_ends(engine: Engine) -> None:
    async def handler(frame: Frame) -> Frame | None:
        await node.sessions[0].close()
        return None

    node = Node(engine, handler=handler)
    async with (
        node.running() as listener,
        served(await node.dial(listener.port, CLIENT)) as session,
    ):
        with pytest.raises(TransportError):
            await session.request(40, b"", PATIENCE_S)
        with pytest.raises(TransportError):
            await session.request(40, b"", PATIENCE_S)


async def drain(session: Session) -> None:
    while True:
        await session.receive()


BROKEN: dict[str, list[Frame]] = {
    "an answer nobody asked for": [Frame(40, 77, b"", response=True)],
    "a handshake frame": [Frame(SessionKind.HELLO, 0, b"")],
    "a push of a kept kind": [Frame(15, 0, b"")],
    "a number used twice": [Frame(41, 5, b""), Frame(41, 5, b"")],
    "a request its handler calls broken": [Frame(42, 5, b"")],
    "a push its handler calls broken": [Frame(42, 0, b"")],
}


@pytest.mark.parametrize("frames", BROKEN.values(), ids=BROKEN.keys())
async def test_a_peer_that_breaks_the_rules_loses_the_link(
    engine: Engine, frames: list[Frame]
) -> None:
    async def handler(frame: Frame) -> Frame | None:
        if frame.kind == 42:
            raise RemoteProtocolError("not a message", code=CloseCode.PROTOCOL)
        await asyncio.Event().wait()
        return None

    node = Node(engine, handler=handler)
    async with node.running() as listener:
        connection = await engine.connect(listener.port)
        session = await initiate(connection, CLIENT, deadline_s=PATIENCE_S)
        for frame in frames:
            await session.send(frame)
        with pytest.raises(TransportError, match="code"):
            await asyncio.wait_for(drain(session), PATIENCE_S)
        await asyncio.wait_for(node.done.wait(), PATIENCE_S)
        assert isinstance(node.sessions[0].ended_by, RemoteProtocolError)
        await session.close()


async def test_a_flood_of_pings_is_answered_in_part_and_breaks_nothing(engine: Engine) -> None:
    node = Node(engine)
    async with node.running() as listener:
        connection = await engine.connect(listener.port)
        session = await initiate(connection, CLIENT, deadline_s=PATIENCE_S)
        for number in range(1, 2001):
            await session.send(Frame(SessionKind.PING, number, b""))
        await session.send(Frame(40, 9999, b"still there?"))
        answers = 0
        while True:
            frame = await asyncio.wait_for(session.receive(), PATIENCE_S)
            if frame.kind == 40:
                break
            answers += 1
        assert 1 <= answers <= 2000
        await session.close()


async def test_a_bug_in_the_handler_comes_out_of_serve(engine: Engine) -> None:
    loop = asyncio.get_running_loop()
    bug: asyncio.Future[object] = loop.create_future()
    loop.set_exception_handler(lambda _, context: bug.set_result(context["exception"]))

    async def handler(frame: Frame) -> Frame | None:
        raise ZeroDivisionError

    node = Node(engine, handler=handler)
    async with (
        node.running() as listener,
        served(await node.dial(listener.port, CLIENT)) as session,
    ):
        with pytest.raises(TransportError):
            await session.request(40, b"", PATIENCE_S)
        reported = await asyncio.wait_for(bug, PATIENCE_S)
    assert isinstance(reported, ExceptionGroup)
    assert reported.subgroup(ZeroDivisionError) is not None


async def test_a_session_is_served_once_and_not_read_beside(engine: Engine) -> None:
    node = Node(engine)
    async with (
        node.running() as listener,
        served(await node.dial(listener.port, CLIENT)) as session,
    ):
        assert await session.alive(PATIENCE_S)
        with pytest.raises(LocalProtocolError):
            await session.serve(silent)
        with pytest.raises(LocalProtocolError):
            await session.receive()
        assert await session.alive(PATIENCE_S)


async def test_a_slow_push_handler_slows_the_sender_down(engine: Engine) -> None:
    gate = asyncio.Event()
    seen = 0

    async def handler(frame: Frame) -> Frame | None:
        nonlocal seen
        await gate.wait()
        seen += 1
        return None

    limits = Limits(max_queued_bytes=128 * 1024, max_queued_frames=8)
    node = Node(engine, handler=handler)
    frames = {"tls": 400, "quic": 60}[engine.name]
    async with (
        node.running(limits=limits) as listener,
        served(await node.dial(listener.port, replace(CLIENT, limits=limits))) as session,
    ):

        async def send_all(to: Session) -> None:
            for _ in range(frames):
                await to.push(40, bytes(64 * 1024))

        sender = asyncio.create_task(send_all(session))
        done, _ = await asyncio.wait([sender], timeout=0.8)
        assert not done
        gate.set()
        await asyncio.wait_for(sender, PATIENCE_S)
        while seen < frames:
            assert await session.alive(PATIENCE_S)

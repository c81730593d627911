"""Each bound of the wall, over real sockets, refused with its own reason and counted under it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from prometheus_client import CollectorRegistry, generate_latest
from starlette.responses import PlainTextResponse, Response

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.fake_server import registered_of, terms_of, tls_of
from zipnet.access.bounds import DEFAULT_BOUNDS, WallBounds
from zipnet.access.policy import Service
from zipnet.access.principal import peer_principal
from zipnet.errors import AdmissionError, TransportError
from zipnet.node.http import HttpServer, serve_application, serve_http
from zipnet.node.listen import ListenLimits, NodeListener
from zipnet.node.wall import Wall, WallParts, link_limits
from zipnet.node.wall_http import walled_application
from zipnet.observe import Health
from zipnet.observe.metrics import NodeMetrics
from zipnet.protocol.ids import PeerId
from zipnet.transport.certificate import node_certificate
from zipnet.transport.quic import ALPN, QuicTransport
from zipnet.transport.session import Role, initiate
from zipnet.transport.tls import TlsTransport
from zipnet.wire.frames import Frame, encode_frame_header
from zipnet.wire.limits import DEFAULT_LIMITS
from zipnet.wire.messages import Accepted, Kind, Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from zipnet.ports import Connection
    from zipnet.protocol.identity import Identity
    from zipnet.transport.session import Session

PATIENCE_S = 20.0
COMMITTEE = HarnessCommittee(aggregators={"root": None})
SERVER = COMMITTEE.identities[0]
KEY = SERVER.public.ed25519
NOTHING = b"\x80"
"""An empty message."""


class Fort:
    """A node behind a wall whose handlers do what the test says."""

    def __init__(self, bounds: WallBounds) -> None:
        self.bounds = bounds
        self.metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="aggregator")
        self.release = asyncio.Event()
        self.release.set()
        self.running = 0
        self.port = 0
        self.now = 0.0
        self.wall = Wall(
            Service.AGGREGATOR, WallParts(self.metrics, bounds=bounds, monotonic=lambda: self.now)
        )
        self._routes = self.wall.routes(
            {Kind.SUBMIT_ENVELOPE: self._answer, Kind.GET_RECORDS: self._answer}
        )
        self._sessions: list[Session] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def _answer(self, _session: Session, _payload: bytes) -> Message:
        self.running += 1
        try:
            await self.release.wait()
        finally:
            self.running -= 1
        return Accepted()

    async def serve(self, session: Session) -> None:
        await session.serve(self._routes.handler(session))

    async def connect(self, *, quic: bool = False) -> Connection:
        transport = QuicTransport(None, registered={}) if quic else tls_of(COMMITTEE, None)
        return await transport.connect(
            "127.0.0.1", self.port, expected_key=KEY, timeout_s=PATIENCE_S
        )

    async def enter(self, role: Role, identity: Identity | None, *, quic: bool = False) -> Session:
        connection = await self.connect(quic=quic)
        terms = replace(terms_of(COMMITTEE, identity, role), limits=DEFAULT_LIMITS)
        session = await initiate(connection, terms, deadline_s=PATIENCE_S)
        self._sessions.append(session)
        self._tasks.append(asyncio.create_task(session.serve(_silent)))
        return session

    async def client(self, name: str = "a", *, quic: bool = False) -> Session:
        return await self.enter(Role.CLIENT, make_identity(name), quic=quic)

    async def close(self) -> None:
        self.release.set()
        for session in self._sessions:
            await session.close()
        await asyncio.gather(*self._tasks)

    def counted(self, name: str, reason: str, label: str = "reason") -> float:
        value = self.metrics.registry.get_sample_value(
            name, {"zipnet_instance": "acme.test", "role": "aggregator", label: reason}
        )
        return value or 0.0

    def rejected(self, reason: str) -> float:
        return self.counted("zipnet_rejected_total", reason)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once what nobody is told of holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.01)


async def _silent(_frame: Frame) -> Frame | None:
    return None


@asynccontextmanager
async def fort(**changes: float) -> AsyncIterator[Fort]:
    found = Fort(replace(DEFAULT_BOUNDS, **changes))  # type: ignore[arg-type]
    limits = link_limits(found.bounds)
    certificate = node_certificate(SERVER.ed25519_private_key())
    registered, failed = registered_of(COMMITTEE), found.metrics.tls_handshake_failures.inc
    node = NodeListener(
        terms=replace(terms_of(COMMITTEE, SERVER, Role.SERVER), limits=limits),
        descriptor=COMMITTEE.descriptor,
        handlers=dict.fromkeys((Role.CLIENT, Role.READER, Role.AGGREGATOR), found.serve),
        metrics=found.metrics,
        limits=ListenLimits.of(found.bounds),
    )
    found.port = await node.start(
        "127.0.0.1",
        0,
        [
            QuicTransport(
                certificate, registered=registered, limits=limits, on_handshake_failure=failed
            ),
            TlsTransport(
                certificate, registered=registered, limits=limits, on_handshake_failure=failed
            ),
        ],
    )
    try:
        async with asyncio.timeout(3 * PATIENCE_S):
            yield found
    finally:
        await found.close()
        await node.close()


async def refused(session: Session, kind: Kind, payload: bytes = NOTHING) -> AdmissionError:
    with pytest.raises(AdmissionError) as error:
        await session.request(kind, payload)
    return error.value


@pytest.mark.requirement("H4")
@pytest.mark.parametrize("quic", [False, True], ids=["tls", "quic"])
async def test_requests_per_second_of_one_principal(quic: bool) -> None:
    async with fort(requests_per_s=5) as at:
        first, second = await at.client("a", quic=quic), await at.client("b", quic=quic)
        for _ in range(5):
            await first.request(Kind.SUBMIT_ENVELOPE, NOTHING)
        error = await refused(first, Kind.SUBMIT_ENVELOPE)
        assert error.code == "rate_limited"
        assert error.retry_after == pytest.approx(0.2)
        await second.request(Kind.SUBMIT_ENVELOPE, NOTHING)  # nobody else has less for it
        at.now += 0.2
        await first.request(Kind.SUBMIT_ENVELOPE, NOTHING)
        assert at.rejected("rate_limited") == 1


async def test_a_reader_learns_nothing_of_what_its_neighbours_asked_for() -> None:
    async with fort(requests_per_s=5) as at:
        one, other = await at.enter(Role.READER, None), await at.enter(Role.READER, None)
        for _ in range(2):
            await one.request(Kind.GET_RECORDS, NOTHING)
        error = await refused(other, Kind.GET_RECORDS)
        assert (error.code, error.retry_after) == ("rate_limited", 1.0)


@pytest.mark.requirement("M4")
async def test_requests_per_second_of_one_network_whatever_the_names() -> None:
    async with fort(prefix_per_s=10, prefix_burst=6, reserve_per_s=0.001) as at:
        for name in "abc":
            session = await at.client(name)
            for _ in range(2):  # the first is of its reserve
                await session.request(Kind.GET_RECORDS, NOTHING)
        late = await at.client("d")
        await late.request(Kind.GET_RECORDS, NOTHING)
        error = await refused(late, Kind.GET_RECORDS)
        assert error.code == "prefix_limited"
        assert error.retry_after == 1.0, "nothing is said of what its neighbours had"
        assert at.rejected("prefix_limited") == 1


@pytest.mark.requirement("H4")
async def test_neighbours_cannot_use_up_what_taking_part_needs() -> None:
    async with fort(prefix_per_s=0.001, prefix_burst=20) as at:
        reader, greedy, honest = (
            await at.enter(Role.READER, None), await at.client("a"), await at.client("b"),
        )  # fmt: skip
        for _ in range(10):
            await reader.request(Kind.GET_RECORDS, NOTHING)
        assert (await refused(reader, Kind.GET_RECORDS)).code == "prefix_limited"
        for _ in range(16):  # its reserve
            await greedy.request(Kind.SUBMIT_ENVELOPE, NOTHING)
        assert (await refused(greedy, Kind.SUBMIT_ENVELOPE)).code == "prefix_limited"
        for _ in range(16):
            await honest.request(Kind.SUBMIT_ENVELOPE, NOTHING)


@pytest.mark.requirement("M4")
async def test_requests_in_flight_on_one_link() -> None:
    async with fort(in_flight=3) as at:
        session = await at.client()
        at.release.clear()
        waiting = [
            asyncio.create_task(session.request(Kind.SUBMIT_ENVELOPE, NOTHING)) for _ in range(3)
        ]
        await at.until(lambda: at.running == 3)
        assert (await refused(session, Kind.SUBMIT_ENVELOPE)).code == "overloaded"
        assert at.rejected("overloaded") == 1
        at.release.set()
        await asyncio.gather(*waiting)


@pytest.mark.requirement("M4")
async def test_a_request_that_takes_too_long_is_ended() -> None:
    async with fort(request_s=0.1) as at:
        session = await at.client()
        at.release.clear()
        error = await refused(session, Kind.SUBMIT_ENVELOPE)
        assert (error.code, error.retry_after) == ("timeout", 1.0)
        assert (at.rejected("timeout"), at.running) == (1, 0)
        at.release.set()
        await session.request(Kind.SUBMIT_ENVELOPE, NOTHING)


@pytest.mark.requirement("M4")
async def test_a_payload_over_the_routes_bound_and_a_frame_over_the_nodes() -> None:
    async with fort(body_bytes=16 * 1024, chunk_bytes=4096) as at:
        session = await at.client()
        assert (await refused(session, Kind.GET_RECORDS, bytes(257))).code == "too_large"
        assert at.rejected("too_large") == 1
        await session.request(Kind.SUBMIT_ENVELOPE, bytes(16 * 1024))
        with pytest.raises(TransportError):
            await session.request(Kind.SUBMIT_ENVELOPE, bytes(16 * 1024 + 1))
        await at.until(lambda: at.rejected("frame_too_large") == 1)


@pytest.mark.requirement("A4")
async def test_readers_are_shed_before_those_who_publish() -> None:
    async with fort(total_in_flight=4) as at:
        client, reader = await at.client(), await at.enter(Role.READER, None)
        at.release.clear()
        waiting = [
            asyncio.create_task(client.request(Kind.SUBMIT_ENVELOPE, NOTHING)) for _ in range(2)
        ]
        await at.until(lambda: at.running == 2)
        error = await refused(reader, Kind.GET_RECORDS)
        assert (error.code, error.retry_after) == ("shed", 2.0)
        waiting.append(asyncio.create_task(client.request(Kind.SUBMIT_ENVELOPE, NOTHING)))
        await at.until(lambda: at.running == 3)
        assert (await refused(client, Kind.SUBMIT_ENVELOPE)).code == "shed"
        at.release.set()
        await asyncio.gather(*waiting)
        await reader.request(Kind.GET_RECORDS, NOTHING)


async def test_a_role_that_may_not_and_a_kind_there_is_not() -> None:
    async with fort() as at:
        reader = await at.enter(Role.READER, None)
        assert (await refused(reader, Kind.SUBMIT_ENVELOPE)).code == "not_allowed"
        assert (await refused(reader, Kind.CONSENSUS)).code == "not_allowed"
        await reader.push(Kind.GET_RECORDS, NOTHING)  # a request in the form of a push
        await at.until(lambda: at.rejected("not_allowed") == 3)


async def test_handshakes_per_second_of_one_network() -> None:
    async with fort(handshakes_per_s=0.001, handshake_burst=2) as at:
        await at.client("a")
        await at.client("b", quic=True)
        with pytest.raises(TransportError, match=r"code 10: too_many_handshakes"):
            await at.client("c")
        await at.until(lambda: at.rejected("too_many_handshakes") == 1)
        # A node of the descriptor showed its certificate: it is not kept out by its neighbours.
        root = COMMITTEE.aggregators["root"]
        connection = await tls_of(COMMITTEE, root).connect(
            "127.0.0.1", at.port, expected_key=KEY, timeout_s=PATIENCE_S
        )
        session = await initiate(
            connection, terms_of(COMMITTEE, root, Role.AGGREGATOR), deadline_s=PATIENCE_S
        )
        await session.close()


@pytest.mark.parametrize("quic", [False, True], ids=["tls", "quic"])
async def test_a_network_that_goes_on_is_not_even_shaken_hands_with(quic: bool) -> None:
    async with fort(handshakes_per_s=0.001, handshake_burst=1) as at:
        await at.client("a")
        with pytest.raises(TransportError, match="too_many_handshakes"):
            await at.client("b", quic=quic)
        transport = QuicTransport(None, registered={}) if quic else tls_of(COMMITTEE, None)
        with pytest.raises(TransportError, match=r"no (TLS|QUIC) connection"):
            await transport.connect("127.0.0.1", at.port, expected_key=KEY, timeout_s=1.0)
        assert at.rejected("too_many_handshakes") >= 2


async def test_handshakes_in_progress() -> None:
    async with fort(handshakes=1) as at:
        dawdling = await at.connect()
        await asyncio.sleep(0)
        with pytest.raises(TransportError):
            await at.client("late")
        await at.until(lambda: at.rejected("overloaded") == 1)
        await dawdling.close()


async def test_thousands_of_honest_clients_behind_one_address_meet_no_bound() -> None:
    """At the defaults: 4,096 clients of one network that join at 100 a second and never pause."""
    clients, rounds, period_s = 4096, 20, 0.25
    metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
    now = 0.0
    parts = WallParts(metrics, monotonic=lambda: now)
    server, leaf = Wall(Service.SERVER, parts), Wall(Service.AGGREGATOR, parts)
    everybody = [
        peer_principal(Role.CLIENT, PeerId(n.to_bytes(32, "big")), "192.0.2.1:4433")
        for n in range(clients)
    ]

    async def done() -> None:
        return None

    for client in everybody:
        now += 1 / DEFAULT_BOUNDS.handshakes_per_s
        for kind in (Kind.PRESENT_CAPABILITY, Kind.GET_KEM_KEYS, Kind.REGISTER):
            await server.pass_through(client, kind, 200, done)
        for kind in (Kind.PRESENT_CAPABILITY, Kind.SUBSCRIBE):
            await leaf.pass_through(client, kind, 200, done)
    began = time.perf_counter()
    for _ in range(rounds):
        now += period_s
        for client in everybody:
            await leaf.pass_through(client, Kind.SUBMIT_ENVELOPE, 4096, done)
    each_us = (time.perf_counter() - began) / (rounds * clients) * 1e6
    print(f"the wall takes {each_us:.1f} µs of each envelope")
    assert b"zipnet_rejected_total{" not in generate_latest(metrics.registry)


async def test_a_committee_of_seven_meets_no_bound_at_a_thousand_requests_a_second_each() -> None:
    metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
    now = 0.0
    wall = Wall(Service.SERVER, WallParts(metrics, monotonic=lambda: now))
    others = [
        peer_principal(Role.SERVER, PeerId(bytes([n]) * 32), "192.0.2.1:4433") for n in range(6)
    ]

    async def done() -> None:
        return None

    for _ in range(1000):
        now += 0.001
        for server in others:
            await wall.pass_through(server, Kind.GET_BLOB, 40, done)
            await wall.pass_through(server, Kind.CONSENSUS, 4096, done, push=True)
    assert b"zipnet_rejected_total{" not in generate_latest(metrics.registry)


# -- slow peers ------------------------------------------------------------------------------


async def test_a_connection_that_sends_nothing_is_closed() -> None:
    async with fort(first_bytes_s=0.2) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()
        failures = at.metrics.registry.get_sample_value
        name, labels = "zipnet_tls_handshake_failures_total", {
            "zipnet_instance": "acme.test", "role": "aggregator",
        }  # fmt: skip
        await at.until(lambda: failures(name, labels) == 1)


@pytest.mark.parametrize("quic", [False, True], ids=["tls", "quic"])
async def test_a_peer_that_never_says_hello_is_closed(quic: bool) -> None:
    async with fort(first_bytes_s=0.4) as at:
        connection = await at.connect(quic=quic)
        with pytest.raises(TransportError, match="code 7"):
            await connection.receive()
        await at.until(lambda: at.rejected("slow_peer") == 1)
        await connection.close()


async def test_a_frame_that_dribbles_in_is_cut_off_and_one_that_keeps_the_rate_is_not() -> None:
    async with fort(slow_grace_s=0.3, min_bytes_per_s=50_000) as at:
        session = await at.client()
        stream = session._connection._stream  # type: ignore[attr-defined]
        payload = bytes(100_000)
        whole = encode_frame_header(Frame(Kind.SUBMIT_ENVELOPE, 77, payload)) + payload
        began = asyncio.get_running_loop().time()
        for start in range(0, 60_000, 12_000):  # 0.5 s at 120 kB/s: within the rate
            await stream.write(whole[start : start + 12_000])
            await asyncio.sleep(0.1)
        assert session.ended_by is None
        with contextlib.suppress(TransportError):
            for start in range(60_000, 100_000, 100):  # 5 kB/s
                await stream.write(whole[start : start + 100])
                await asyncio.sleep(0.02)
        await at.until(lambda: at.rejected("slow_peer") == 1)
        took = asyncio.get_running_loop().time() - began
        assert took < 6.0, "long before the frame would have been there"


# -- amplification ---------------------------------------------------------------------------


async def test_what_an_unproved_sender_gets_is_no_more_than_it_sent() -> None:
    """A forged source address could turn an answer into an attack on whoever has it."""
    async with fort() as at:
        engine = QuicConnection(
            configuration=QuicConfiguration(is_client=True, alpn_protocols=[ALPN])
        )
        engine.connect(("127.0.0.1", at.port), now=0.0)
        ((first, _),) = engine.datagrams_to_send(now=0.0)
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as forged:
            forged.bind(("127.0.0.1", 0))
            forged.setblocking(False)
            sent = got = 0
            for _ in range(20):
                await loop.sock_sendto(forged, first, ("127.0.0.1", at.port))
                sent += len(first)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    while True:
                        got += len(await loop.sock_recv(forged, 65536))
        print(f"an unproved sender of {sent} bytes was answered with {got}")
        assert 0 < got < sent / 3


# -- HTTP ------------------------------------------------------------------------------------


@asynccontextmanager
async def http(**changes: float) -> AsyncIterator[tuple[HttpServer, NodeMetrics]]:
    metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
    health = Health(["consensus"], metrics)
    bounds = replace(DEFAULT_BOUNDS, **changes)  # type: ignore[arg-type]
    server = await serve_http(
        "127.0.0.1", 0, health=health, metrics=metrics, version={}, bounds=bounds
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield server, metrics
    finally:
        await server.close()


async def _ask(port: int, head: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return answer


HTTP_REFUSALS = {
    "a path there is not": ("GET /debug HTTP/1.1", 404, "not_served"),
    "a method it has not": ("POST /healthz HTTP/1.1", 405, "method"),
    "a parameter nobody knows": ("GET /healthz?debug=1 HTTP/1.1", 400, "unknown_field"),
    "a body where none is taken": ("GET /healthz HTTP/1.1\r\nContent-Length: 1", 413, "too_large"),
    "a body of no length": (
        "GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked", 413, "too_large",
    ),
}  # fmt: skip


@pytest.mark.requirement("A5")
@pytest.mark.parametrize(("head", "status", "code"), HTTP_REFUSALS.values(), ids=HTTP_REFUSALS)
async def test_http_refusals_have_status_and_code(head: str, status: int, code: str) -> None:
    async with http() as (server, metrics):
        answer = await _ask(server.port, head)
        assert answer.split()[1] == str(status)
        assert f'"error":"{code}"' in answer
        text = generate_latest(metrics.registry).decode()
        assert f'zipnet_rejected_total{{reason="{code}"' in text
        assert f'zipnet_http_requests_total{{code="{status}"' in text


async def test_http_requests_per_second_of_one_network_and_when_to_come_back() -> None:
    async with http(requests_per_s=3) as (server, metrics):
        answers = [await _ask(server.port, "GET /healthz HTTP/1.1") for _ in range(5)]
        assert [a.split()[1] for a in answers[:3]] == ["200"] * 3
        assert answers[4].split()[1] == "429"
        assert "retry-after: 1" in answers[4].lower()
        assert '"error":"rate_limited"' in answers[4]
        assert '"retry_after":' in answers[4]
        text = generate_latest(metrics.registry).decode()
        assert 'zipnet_request_latency_seconds_count{role="server",route="GET /healthz"' in text


async def test_http_requests_in_flight() -> None:
    metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
    wall = Wall(Service.HTTP, WallParts(metrics, bounds=replace(DEFAULT_BOUNDS, in_flight=2)))
    release, running = asyncio.Event(), asyncio.Semaphore(0)

    async def slow(_request: Request) -> Response:
        running.release()
        await release.wait()
        return PlainTextResponse("done")

    application = walled_application(wall, {"GET /healthz": slow})
    server = await serve_application("127.0.0.1", 0, application, setting="METRICS")
    try:
        async with asyncio.timeout(PATIENCE_S):
            asked = [
                asyncio.create_task(_ask(server.port, "GET /healthz HTTP/1.1")) for _ in range(2)
            ]
            await running.acquire()
            await running.acquire()
            answer = await _ask(server.port, "GET /healthz HTTP/1.1")
            assert answer.split()[1] == "503"
            assert '"error":"overloaded"' in answer
            release.set()
            assert all("done" in answer for answer in await asyncio.gather(*asked))
    finally:
        await server.close()


@pytest.mark.parametrize("begun", ["", "GET /healthz HTTP/1.1\r\nHost: "], ids=["nothing", "half"])
async def test_an_http_request_that_does_not_arrive_is_cut_off(begun: str) -> None:
    async with http(first_bytes_s=0.2) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(begun.encode())
        assert await reader.read() == b""
        writer.close()


async def test_a_second_http_request_that_does_not_arrive_is_cut_off_too() -> None:
    async with http(first_bytes_s=0.2) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await reader.readuntil(b"ok\n")
        await asyncio.sleep(0.3)  # an idle connection may stay
        writer.write(b"GET /healthz HTTP/1.1\r\nHo")
        assert await reader.read() == b""
        writer.close()


async def test_requests_that_last_leave_half_of_a_port_to_those_that_do_not() -> None:
    metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="gateway")
    wall = Wall(Service.GATEWAY, WallParts(metrics, bounds=replace(DEFAULT_BOUNDS, in_flight=4)))
    release, running = asyncio.Event(), asyncio.Semaphore(0)

    async def publish(_request: Request) -> Response:
        running.release()
        await release.wait()
        return PlainTextResponse("published")

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok")

    table = {"POST /v1/publish": publish, "GET /healthz": healthz}
    server = await serve_application(
        "127.0.0.1", 0, walled_application(wall, table), setting="METRICS"
    )
    post = "POST /v1/publish HTTP/1.1\r\nContent-Length: 0"
    try:
        async with asyncio.timeout(PATIENCE_S):
            asked = [asyncio.create_task(_ask(server.port, post)) for _ in range(2)]
            await running.acquire()
            await running.acquire()
            # Whoever publishes may wait for minutes, and have any number of such requests.
            assert '"error":"overloaded"' in await _ask(server.port, post)
            assert (await _ask(server.port, "GET /healthz HTTP/1.1")).split()[1] == "200"
            release.set()
            assert all("published" in answer for answer in await asyncio.gather(*asked))
            assert "published" in await _ask(server.port, post)
    finally:
        await server.close()

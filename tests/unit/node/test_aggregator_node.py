"""Whole aggregators over real sockets, between servers of a harness committee and real clients."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee, make_draw
from tests.harness.fake_server import FakeServers, terms_of, tls_of
from tests.harness.publishers import HarnessPublisher
from zipnet.errors import (
    AdmissionError,
    ConfigError,
    DuplicateIdentityError,
    PeerClosedError,
    TransportError,
)
from zipnet.host.loopback import free_ports
from zipnet.node.aggregator_start import open_aggregator, run_aggregator
from zipnet.protocol.aggregate import Aggregate
from zipnet.protocol.envelope import seal_envelope
from zipnet.protocol.header import SignedHeader
from zipnet.protocol.ids import ServerIndex
from zipnet.protocol.params import Cadence
from zipnet.protocol.participants import Participants
from zipnet.protocol.secret import Secret
from zipnet.settings.types import AggregatorSettings
from zipnet.settings.values import Endpoint
from zipnet.transport.session import Role, Session, initiate
from zipnet.wire.messages import (
    GetRecords,
    Kind,
    Records,
    RecordSealed,
    RoundAborted,
    RoundOpened,
    SubmitAggregate,
    SubmitEnvelope,
    Subscribe,
    Subscribed,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from zipnet.node.aggregator import Aggregator
    from zipnet.protocol.envelope import Envelope
    from zipnet.settings.types import TransportName
    from zipnet.wire.frames import Frame

TREE: dict[str, str | None] = {"root": None, "leaf": "root"}
CADENCE = Cadence(round_period_ms=1000, fold_deadline_ms=1500, round_deadline_ms=4000)
PATIENCE_S = 20.0


def settings_of(
    committee: HarnessCommittee, name: str, *, transport: TransportName = "tls"
) -> AggregatorSettings:
    identity = committee.aggregators[name]
    descriptor = committee.descriptor
    entry = descriptor.aggregator(identity.peer_id)
    assert entry is not None
    servers = descriptor.descriptor.servers
    return AggregatorSettings(
        instance=descriptor.descriptor.name,
        universe="zipnet",
        descriptor=descriptor,
        descriptor_file=Path("d.toml"),
        operator=None,
        transport=transport,
        server_endpoints=tuple(Endpoint(node.host, node.port) for node in servers),
        profile="development",
        log_level="info",
        platform=None,
        warnings=(),
        effective=(),
        secret=Secret(bytes(32)),
        identity=identity,
        node=entry.node,
        listen=Endpoint(entry.node.host, entry.node.port),
        metrics=Endpoint("127.0.0.1", 0),
        cadence=CADENCE,
        entry=entry,
    )


class Client:
    """A registered client with a session to an aggregator; keeps what it was pushed."""

    def __init__(self, committee: HarnessCommittee, label: str) -> None:
        self.committee = committee
        self.publisher = HarnessPublisher(committee, label)
        self.index = self.publisher.register().index
        self.draw = make_draw(label)
        self.session: Session | None = None
        self.connected = asyncio.Event()
        self.pushed: list[object] = []
        self.changed = asyncio.Condition()

    async def serve(self, name: str) -> None:
        committee = self.committee
        entry = committee.descriptor.aggregator(committee.aggregators[name].peer_id)
        assert entry is not None
        identity = self.publisher.identity
        connection = await tls_of(committee, None).connect(
            entry.node.host,
            entry.node.port,
            expected_key=entry.node.identity.ed25519,
            timeout_s=PATIENCE_S,
        )
        terms = terms_of(committee, identity, Role.CLIENT)
        self.session = await initiate(connection, terms, deadline_s=PATIENCE_S)
        self.connected.set()
        await self.session.serve(self._on_frame)

    async def _on_frame(self, frame: Frame) -> Frame | None:
        message: object
        match frame.kind:
            case Kind.ROUND_OPENED:
                message = SignedHeader.decode(decode(frame.payload, RoundOpened).header)
            case Kind.RECORD_SEALED:
                message = decode(frame.payload, RecordSealed).record
            case _:
                message = decode(frame.payload, RoundAborted).round
        async with self.changed:
            self.pushed.append(message)
            self.changed.notify_all()
        return None

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self.changed:
            await self.changed.wait_for(holds)

    async def request(self, kind: Kind, payload: bytes) -> Frame:
        assert self.session is not None
        return await self.session.request(kind, payload, PATIENCE_S)

    async def subscribe(self, from_sequence: int | None = None) -> Subscribed:
        payload = encode(Subscribe(from_sequence=from_sequence))
        return decode((await self.request(Kind.SUBSCRIBE, payload)).payload, Subscribed)

    def seal(self, signed: SignedHeader) -> Envelope:
        body = self.draw(self.committee.params.body_bytes)
        return seal_envelope(signed.header, self.index, body, self.publisher.identity)

    async def submit(self, envelope: Envelope) -> None:
        message = SubmitEnvelope(
            round=envelope.round,
            header_hash=envelope.header_hash,
            sender=envelope.sender,
            body=envelope.body,
            signature=envelope.signature,
        )
        await self.request(Kind.SUBMIT_ENVELOPE, encode(message))


class Stage:
    """Servers, aggregators and clients that are running."""

    def __init__(self, group: asyncio.TaskGroup, stack: AsyncExitStack) -> None:
        self.group = group
        self.stack = stack
        names = ["s0", "s1", "s2", *TREE]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.committee = HarnessCommittee(aggregators=TREE, cadence=CADENCE, ports=ports)
        self.servers = FakeServers(self.committee)
        self.stops: list[asyncio.Event] = []
        self.clients: list[Client] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def aggregator(self, name: str, *, transport: TransportName = "tls") -> Aggregator:
        node = await open_aggregator(settings_of(self.committee, name, transport=transport))
        stop = asyncio.Event()
        self.stops.append(stop)
        self.tasks.append(self.group.create_task(node.run(stop)))
        async with asyncio.timeout(PATIENCE_S):
            await node.health.wait_ready()
        return node

    async def client(self, label: str, name: str) -> Client:
        client = Client(self.committee, label)
        self.tasks.append(self.group.create_task(client.serve(name)))
        self.clients.append(client)
        async with asyncio.timeout(PATIENCE_S):
            await client.connected.wait()
        await client.subscribe()
        return client

    async def next_header(self, client: Client) -> SignedHeader:
        signed = self.committee.open_header
        assert signed is not None
        await client.until(lambda: signed in client.pushed)
        return signed

    async def end(self) -> None:
        for client in self.clients:
            if client.session is not None:
                await client.session.close()
        for stop in self.stops:
            stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self.tasks, return_exceptions=True)


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        stage = Stage(group, stack)
        async with stage.servers:
            try:
                yield stage
            finally:
                await stage.end()


async def until_source(node: Aggregator, holds: Callable[[ServerIndex | None], bool]) -> None:
    """Return once the server a node follows is a fitting one; it tells nobody, so look."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds(node._upstream.source):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


def sum_of(*envelopes: Envelope) -> bytes:
    total = bytes(len(envelopes[0].body))
    for envelope in envelopes:
        total = bytes(a ^ b for a, b in zip(total, envelope.body, strict=True))
    return total


@pytest.mark.parametrize("transport", ["tls", "quic"])
async def test_envelopes_of_a_tree_reach_every_server_as_one_sum(transport: TransportName) -> None:
    async with staged() as stage:
        await stage.aggregator("root", transport=transport)
        await stage.aggregator("leaf", transport=transport)
        clients = [
            await stage.client("anna", "leaf"),
            await stage.client("bert", "leaf"),
            await stage.client("carl", "root"),
        ]
        stage.servers.open_round()
        envelopes = []
        for client in clients:
            envelope = client.seal(await stage.next_header(client))
            await client.submit(envelope)
            stage.committee.submit(envelope)
            envelopes.append(envelope)
        servers = stage.servers.servers
        await stage.servers.until(lambda: all(server.aggregates for server in servers))
        for server in servers:
            (aggregate,) = server.aggregates
            assert aggregate.body == sum_of(*envelopes)
            assert sorted(aggregate.participants) == sorted(client.index for client in clients)
        stage.servers.seal_round()
        for client in clients:
            await client.until(lambda c=client: stage.committee.records[0] in c.pushed)  # type: ignore[misc]
        await stage.client("dora", "leaf")
        newcomer = stage.clients[-1]
        answer = await newcomer.subscribe(0)
        assert answer.last_record == stage.committee.records[0]
        await newcomer.until(lambda: stage.committee.records[0] in newcomer.pushed)


async def test_refusals_name_their_reason_and_keep_the_session() -> None:
    async with staged() as stage:
        await stage.aggregator("root")
        anna = await stage.client("anna", "root")
        bert = await stage.client("bert", "root")
        stage.servers.open_round()
        signed = await stage.next_header(anna)
        first, second = anna.seal(signed), anna.seal(signed)
        await anna.submit(first)
        await anna.submit(first)
        for envelope, reason in (
            (second, "duplicate_envelope"),
            (bert.seal(signed), "wrong_sender"),
        ):
            with pytest.raises(AdmissionError) as refused:
                await anna.submit(envelope)
            assert refused.value.code == reason
        aggregate = Aggregate(
            signed.header.round, signed.header.hash, stage_participants(anna), first.body
        )
        with pytest.raises(AdmissionError) as refused:
            await anna.request(
                Kind.SUBMIT_AGGREGATE, encode(SubmitAggregate(aggregate=aggregate.encode()))
            )
        assert refused.value.code == "not_allowed"
        await bert.submit(bert.seal(signed))
        await stage.servers.until(lambda: bool(stage.servers.servers[0].aggregates))
        with pytest.raises(AdmissionError) as refused:
            await bert.submit(bert.seal(signed))
        assert refused.value.code == "duplicate_envelope"


def stage_participants(client: Client) -> Participants:
    return Participants([client.index])


async def test_an_envelope_that_overtakes_its_header_waits_for_it() -> None:
    async with staged() as stage:
        await stage.aggregator("root")
        anna = await stage.client("anna", "root")
        signed = stage.committee.open_round()  # nobody was told yet
        envelope = anna.seal(signed)
        sending = asyncio.create_task(anna.submit(envelope))
        await anna.subscribe()  # a full round trip: the envelope has arrived before
        assert not sending.done()
        for server in stage.servers.servers:
            server.feed.publish_opened(signed.encode())
        await sending
        await stage.servers.until(lambda: bool(stage.servers.servers[2].aggregates))


async def test_a_server_that_lies_about_the_registry_is_replaced() -> None:
    async with staged() as stage:
        node = await stage.aggregator("root")
        anna = await stage.client("anna", "root")
        liar = node._upstream.source
        assert liar is not None
        stage.servers.servers[liar].lie_about_registry = lambda changes: [
            bytes([*change[:-1], change[-1] ^ 1]) for change in changes
        ]
        stage.servers.open_round()
        await stage.next_header(anna)
        assert node._upstream.source != liar


async def test_a_server_that_dies_is_replaced_and_the_records_go_on() -> None:
    async with staged() as stage:
        node = await stage.aggregator("root")
        clients = [await stage.client(name, "root") for name in ("anna", "bert")]
        for turn in range(3):
            stage.servers.open_round()
            for client in clients:
                envelope = client.seal(await stage.next_header(client))
                await client.submit(envelope)
                stage.committee.submit(envelope)
            data = stage.servers.seal_round().record.encode()
            for client in clients:
                await client.until(lambda c=client, d=data: d in c.pushed)  # type: ignore[misc]
            if turn < 2:
                source = node._upstream.source
                assert source is not None
                await stage.servers.servers[source].stop()
                await until_source(node, lambda now, old=source: now not in (None, old))  # type: ignore[misc]
        records = [item for item in clients[0].pushed if isinstance(item, bytes)]
        assert records == stage.committee.records


async def test_an_abort_is_passed_on_for_the_round_known_here_only() -> None:
    async with staged() as stage:
        node = await stage.aggregator("root")
        anna = await stage.client("anna", "root")
        for server in stage.servers.servers:
            server.feed.publish_aborted(1 << 40, 1)
        stage.servers.open_round()
        signed = await stage.next_header(anna)
        stage.servers.abort_round()
        await anna.until(lambda: signed.header.round in anna.pushed)
        assert 1 << 40 not in anna.pushed
        # Nobody signed that: what comes for the round is folded all the same.
        assert node.machine.open_header == signed
        await anna.submit(anna.seal(signed))


async def test_older_records_are_fetched_from_a_server_and_verified() -> None:
    async with staged() as stage:
        publishers = [HarnessPublisher(stage.committee, f"p{i}") for i in range(2)]
        for publisher in publishers:
            publisher.register()
        from tests.harness.publishers import play_round

        for _ in range(4):
            play_round(stage.committee, publishers)
        await stage.aggregator("root")
        anna = await stage.client("anna", "root")
        answer = await anna.request(Kind.GET_RECORDS, encode(GetRecords(from_sequence=0, limit=3)))
        assert decode(answer.payload, Records).records == stage.committee.records[:3]
        await anna.subscribe(1)
        await anna.until(lambda: stage.committee.records[3] in anna.pushed)
        assert [r for r in anna.pushed if isinstance(r, bytes)] == stage.committee.records[1:]


async def test_a_second_process_with_the_same_identity_is_refused() -> None:
    async with staged() as stage:
        await stage.aggregator("root")
        # The port is the first one's: had it bound before it asked, it would say so instead.
        with pytest.raises(DuplicateIdentityError) as refused:
            await run_aggregator(settings_of(stage.committee, "root"), asyncio.Event())
        assert refused.value.exit_code == 2


async def test_it_stops_at_once_in_the_middle_of_a_round_and_starts_again() -> None:
    async with staged() as stage:
        await stage.aggregator("root")
        anna = await stage.client("anna", "root")
        stage.servers.open_round()
        await stage.next_header(anna)
        loop = asyncio.get_running_loop()
        began = loop.time()
        stage.stops[0].set()
        await stage.tasks[0]
        assert loop.time() - began < 5
        await stage.aggregator("root")  # same ports, no leftovers


async def test_one_lying_server_cannot_keep_a_node_from_starting() -> None:
    async with staged() as stage:
        liar = stage.servers.servers[0].listener
        assert liar is not None
        liar._admit = lambda _facts: DuplicateIdentityError("says who")  # type: ignore[method-assign,assignment]
        node = await stage.aggregator("root")
        async with asyncio.timeout(PATIENCE_S):
            while sum(link.session is not None for link in node._upstream.links) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert node._upstream.links[0].session is None
        assert not stage.tasks[0].done()


async def test_two_servers_that_say_so_end_a_running_node() -> None:
    async with staged() as stage:
        node = await stage.aggregator("root")
        assert node.on_link_refused(ServerIndex(0), DuplicateIdentityError("no"))
        assert not node.on_link_refused(ServerIndex(1), DuplicateIdentityError("no"))
        assert node.on_link_refused(ServerIndex(2), AdmissionError("no", code="not_registered"))


async def test_most_servers_that_put_it_out_end_a_running_node_and_one_does_not() -> None:
    out = PeerClosedError("closed", said="not_registered")
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012 - the node ends its group
        async with staged() as stage:
            node = await stage.aggregator("root")
            node.on_link_down(ServerIndex(0), TransportError("the link broke"))
            node.on_link_down(ServerIndex(1), PeerClosedError("closed", said="going_away"))
            node.on_link_down(ServerIndex(2), out)
            node.on_link_down(ServerIndex(2), out)
            await stage.client("anna", "root")
            assert not stage.tasks[0].done()
            node.on_link_down(ServerIndex(0), out)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.Event().wait()
    found = caught.value.subgroup(ConfigError)
    assert found is not None
    assert "register this aggregator no more" in str(found.exceptions)


async def test_a_record_that_does_not_verify_is_not_passed_on() -> None:
    async with staged() as stage:
        node = await stage.aggregator("root")
        clients = [await stage.client(name, "root") for name in ("anna", "bert")]
        stage.servers.open_round()
        for client in clients:
            envelope = client.seal(await stage.next_header(client))
            stage.committee.submit(envelope)
        data = stage.committee.seal()
        liar = node._upstream.source
        assert liar is not None
        junk = data[:-1] + bytes([data[-1] ^ 1])
        stage.servers.servers[liar].feed.publish_record(0, junk)
        await until_source(node, lambda now: now not in (None, liar))
        await clients[0].until(lambda: data in clients[0].pushed)  # from the next server
        assert junk not in clients[0].pushed
        assert clients[0].pushed.count(data) == 1

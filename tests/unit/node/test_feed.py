"""The feed: records without gaps or doubles for everyone, and nobody waits for the slow."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.harness.committee import HarnessCommittee
from tests.harness.fake_server import new_metrics, terms_of, tls_of
from zipnet.errors import TransportError
from zipnet.node.feed import Feed, FeedLimits
from zipnet.node.listen import NodeListener
from zipnet.transport.session import Role, initiate
from zipnet.wire.messages import (
    Kind,
    RecordSealed,
    RoundOpened,
    Subscribe,
    Subscribed,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from zipnet.transport.session import Session
    from zipnet.wire.frames import Frame

PATIENCE_S = 20.0
COMMITTEE = HarnessCommittee()
SERVER = COMMITTEE.identities[0]


class Source:
    """A log that grows by hand, and the feed over it."""

    def __init__(self, limits: FeedLimits) -> None:
        self.records: list[bytes] = []
        self.header: bytes | None = None
        self.before_read: Callable[[], None] = lambda: None
        self.failing_reads = 0
        self.feed = Feed(
            read_records=self._read,
            next_sequence=lambda: len(self.records),
            last_record=lambda: self.records[-1] if self.records else None,
            open_round=lambda: self.header,
            limits=limits,
        )

    async def _read(self, from_sequence: int, limit: int) -> Sequence[bytes]:
        self.before_read()
        await asyncio.sleep(0)
        if self.failing_reads:
            self.failing_reads -= 1
            raise TransportError("not now")
        return self.records[from_sequence : from_sequence + limit]

    def seal(self, count: int = 1, size: int = 8) -> None:
        for _ in range(count):
            sequence = len(self.records)
            self.records.append(sequence.to_bytes(8, "big") + bytes(size - 8))
            self.feed.publish_record(sequence, self.records[-1])

    def open(self, name: bytes) -> None:
        self.header = name
        self.feed.publish_opened(name)


class Follower:
    """A subscriber and what it got: record numbers, and headers as bytes."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.got: list[int | bytes] = []
        self.changed = asyncio.Condition()

    async def on_frame(self, frame: Frame) -> Frame | None:
        async with self.changed:
            if frame.kind == Kind.RECORD_SEALED:
                record = decode(frame.payload, RecordSealed).record
                self.got.append(int.from_bytes(record[:8], "big"))
            elif frame.kind == Kind.ROUND_OPENED:
                self.got.append(decode(frame.payload, RoundOpened).header)
            self.changed.notify_all()
        return None

    async def subscribe(self, from_sequence: int | None) -> Subscribed:
        payload = encode(Subscribe(from_sequence=from_sequence))
        answer = await self.session.request(Kind.SUBSCRIBE, payload, PATIENCE_S)
        return decode(answer.payload, Subscribed)

    async def until(self, last: int | bytes) -> list[int | bytes]:
        async with asyncio.timeout(PATIENCE_S), self.changed:
            await self.changed.wait_for(lambda: last in self.got)
        return self.got


class Stage:
    def __init__(self, group: asyncio.TaskGroup, source: Source, port: int) -> None:
        self.group = group
        self.source = source
        self.port = port
        self.sessions: list[Session] = []

    async def follower(self, *, reading: bool = True) -> Follower:
        connection = await tls_of(COMMITTEE, None).connect(
            "127.0.0.1", self.port, expected_key=SERVER.public.ed25519, timeout_s=PATIENCE_S
        )
        terms = terms_of(COMMITTEE, None, Role.READER)
        session = await initiate(connection, terms, deadline_s=PATIENCE_S)
        self.sessions.append(session)
        follower = Follower(session)
        if reading:
            self.group.create_task(session.serve(follower.on_frame))
        return follower


@asynccontextmanager
async def staged(limits: FeedLimits | None = None) -> AsyncIterator[Stage]:
    source = Source(limits or FeedLimits(replay_page=3, replay_retry_s=0.01))

    async def serve(session: Session) -> None:
        async def handle(frame: Frame) -> Frame | None:
            answer = await source.feed.subscribe(session, frame.payload)
            return frame.answer(frame.kind, encode(answer))

        await source.feed.serve(session, handle)

    node = NodeListener(
        terms=terms_of(COMMITTEE, SERVER, Role.SERVER),
        descriptor=COMMITTEE.descriptor,
        handlers={Role.READER: serve},
        metrics=new_metrics(),
    )
    port = await node.start("127.0.0.1", 0, [tls_of(COMMITTEE, SERVER)])
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        stage = Stage(group, source, port)
        try:
            yield stage
        finally:
            for session in stage.sessions:
                await session.close()
            await node.close()


async def test_without_a_sequence_a_subscriber_hears_from_now_on() -> None:
    async with staged() as stage:
        stage.source.seal(3)
        stage.source.open(b"h1")
        follower = await stage.follower()
        answer = await follower.subscribe(None)
        assert (answer.next_sequence, answer.open_round) == (3, b"h1")
        assert answer.last_record == stage.source.records[2]
        stage.source.seal()
        stage.source.open(b"h2")
        assert await follower.until(b"h2") == [3, b"h2"]


async def test_a_replay_runs_into_what_is_published_without_gap_or_double() -> None:
    async with staged() as stage:
        stage.source.seal(10)
        growing = iter(range(5))

        def grow() -> None:
            if next(growing, None) is not None:
                stage.source.seal()
                stage.source.open(b"during the replay")

        stage.source.before_read = grow
        follower = await stage.follower()
        await follower.subscribe(2)
        await follower.until(b"during the replay")
        stage.source.seal(2)
        count = len(stage.source.records)
        assert count > 12, "nothing was sealed during the replay"
        got = await follower.until(count - 1)
        assert [item for item in got if isinstance(item, int)] == list(range(2, count))
        assert got.count(b"during the replay") == 1


async def test_a_replay_that_cannot_be_read_is_tried_again() -> None:
    async with staged() as stage:
        stage.source.seal(2)
        stage.source.failing_reads = 3
        follower = await stage.follower()
        await follower.subscribe(0)
        assert await follower.until(1) == [0, 1]


async def test_subscribing_again_starts_again() -> None:
    async with staged() as stage:
        stage.source.seal(4)
        follower = await stage.follower()
        await follower.subscribe(3)
        assert await follower.until(3) == [3]
        await follower.subscribe(1)
        await follower.until(2)
        stage.source.seal()
        assert await follower.until(4) == [3, 1, 2, 3, 4]


async def test_asking_for_the_future_means_from_now_on() -> None:
    async with staged() as stage:
        follower = await stage.follower()
        answer = await follower.subscribe(1 << 40)
        assert answer.next_sequence == 0
        stage.source.seal()
        assert await follower.until(0) == [0]


async def test_records_published_out_of_order_still_arrive_in_order() -> None:
    async with staged() as stage:
        follower = await stage.follower()
        await follower.subscribe(None)
        records = [n.to_bytes(8, "big") for n in range(3)]
        stage.source.records += records
        for sequence in (2, 0, 1):
            stage.source.feed.publish_record(sequence, records[sequence])
        assert await follower.until(2) == [0, 1, 2]


async def test_a_subscriber_that_falls_behind_is_dropped_and_delays_nobody() -> None:
    async with staged(FeedLimits(max_queued=8)) as stage:
        slow = await stage.follower(reading=False)
        quick = await stage.follower()
        await quick.subscribe(None)
        # The slow one asks, and then never reads.
        from zipnet.wire.frames import Frame as Wire

        request = encode(Subscribe(from_sequence=None))
        await slow.session.send(Wire(Kind.SUBSCRIBE, 1, request))
        async with asyncio.timeout(PATIENCE_S):
            while stage.source.feed.subscribers < 2:  # noqa: ASYNC110 - the feed tells nobody
                await asyncio.sleep(0.01)
            while stage.source.feed.subscribers == 2:
                stage.source.seal(1, size=500_000)
                await quick.until(len(stage.source.records) - 1)
        count = len(stage.source.records)
        assert quick.got == list(range(count))
        again = await stage.follower()
        await again.subscribe(count - 1)
        assert await again.until(count - 1) == [count - 1]

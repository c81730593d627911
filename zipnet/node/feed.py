"""The feed: what happens to rounds, pushed to everyone who subscribed, without gaps.

protocol.md §6. Servers publish what their log says; aggregators relay what they verified. A
subscriber gets records in sequence order, from the one it asked for on, and between them the
openings and aborts of the rounds.

Rules:

1. Records are replayed to a new subscriber, some at a time, until it has caught up; from then on it
   gets what is published as it is published. No record is sent twice or left out.
2. While it is catching up, openings and aborts are not kept for it; once it has caught up it is
   told the round that is open then.
3. A subscriber that has caught up and falls ``max_queued`` pushes or ``max_queued_bytes`` behind is
   disconnected with ``OVERLOADED``; it may subscribe again and have the records replayed.
4. One slow subscriber never delays another: each has its own queue and its own task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zipnet.errors import TransportError, ZipnetError
from zipnet.wire.frames import CloseCode, Frame
from zipnet.wire.messages import (
    Kind,
    Message,
    RecordSealed,
    RoundAborted,
    RoundOpened,
    Subscribe,
    Subscribed,
    VersionAdopted,
    decode,
    encode,
)

if TYPE_CHECKING:
    from zipnet.transport.session import Session

__all__ = ["Feed", "FeedLimits", "FrameHandler", "ReadRecords"]

FrameHandler = Callable[[Frame], Awaitable[Frame | None]]
ReadRecords = Callable[[int, int], Awaitable[Sequence[bytes]]]
"""``read(from_sequence, limit)``: encoded records in order, maybe fewer than asked, or none."""


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """Bounds of each subscriber.

    Attributes:
        max_queued: Pushes that may wait for it.
        max_queued_bytes: Their bytes.
        replay_page: Records read at a time while it catches up.
        replay_retry_s: When a replay that found nothing to read is tried again.
    """

    max_queued: int = 256
    max_queued_bytes: int = 8 * 1024 * 1024
    replay_page: int = 16
    replay_retry_s: float = 0.5


DEFAULT_FEED_LIMITS = FeedLimits()


@dataclass(frozen=True, slots=True)
class _Push:
    kind: Kind
    payload: bytes = field(repr=False)
    sequence: int | None = None


class _Subscriber:
    """One session's place in the feed."""

    def __init__(self, session: Session, limits: FeedLimits) -> None:
        self.session = session
        self.cursor: int | None = None  # next record to send; None until it has subscribed
        self.live = False
        self.changed = asyncio.Event()
        self._limits = limits
        self._queue: deque[_Push] = deque()
        self._bytes = 0

    def restart(self, cursor: int, *, live: bool) -> None:
        self.cursor, self.live = cursor, live
        self._queue.clear()
        self._bytes = 0
        self.changed.set()

    def offer(self, push: _Push) -> bool:
        """Queue a push for a subscriber that has caught up; False when it fell behind."""
        if not self.live or self.cursor is None:
            return True
        if push.sequence is not None:
            if push.sequence < self.cursor:
                return True
            if push.sequence > self.cursor:  # published out of order: read the gap
                self.restart(self.cursor, live=False)
                return True
        full = len(self._queue) >= self._limits.max_queued
        if full or self._bytes + len(push.payload) > self._limits.max_queued_bytes:
            return False
        if push.sequence is not None:
            self.cursor += 1
        self._queue.append(push)
        self._bytes += len(push.payload)
        self.changed.set()
        return True

    def take(self) -> _Push | None:
        if not self._queue:
            return None
        push = self._queue.popleft()
        self._bytes -= len(push.payload)
        return push


class Feed:
    """Fans out openings, records and aborts to the sessions that subscribed.

    Args:
        read_records: Where older records are read from for replays.
        next_sequence: Sequence number the next record will have.
        first_sequence: Sequence number of the oldest record there is; older ones are passed over.
        last_record: The newest record's bytes.
        open_round: The signed header of the round that is open now.
        limits: Bounds of each subscriber.
        on_lagged: Told of each subscriber let go because it fell behind.
    """

    def __init__(
        self,
        *,
        read_records: ReadRecords,
        next_sequence: Callable[[], int],
        last_record: Callable[[], bytes | None],
        open_round: Callable[[], bytes | None],
        first_sequence: Callable[[], int] = lambda: 0,
        limits: FeedLimits = DEFAULT_FEED_LIMITS,
        on_lagged: Callable[[], None] = lambda: None,
    ) -> None:
        self._read_records = read_records
        self._next_sequence = next_sequence
        self._first_sequence = first_sequence
        self._last_record = last_record
        self._open_round = open_round
        self._limits = limits
        self._on_lagged = on_lagged
        self._subscribers: dict[Session, _Subscriber] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def subscribers(self) -> int:
        """How many sessions have subscribed."""
        return sum(1 for one in self._subscribers.values() if one.cursor is not None)

    # -- publishing ------------------------------------------------------------------------

    def publish_opened(self, signed_header: bytes) -> None:
        """Tell all subscribers that a round opened."""
        self._publish(_Push(Kind.ROUND_OPENED, encode(RoundOpened(header=signed_header))))

    def publish_record(self, sequence: int, record: bytes) -> None:
        """Tell all subscribers of a record that ``read_records`` can already give."""
        payload = encode(RecordSealed(record=record))
        self._publish(_Push(Kind.RECORD_SEALED, payload, sequence))

    def publish_aborted(self, round_number: int, why: int) -> None:
        """Tell all subscribers that a round was given up."""
        payload = encode(RoundAborted(round=round_number, why=why))
        self._publish(_Push(Kind.ROUND_ABORTED, payload))

    def publish_version(self, version: int) -> None:
        """Tell all subscribers which version of the descriptor is in force, before its rounds.

        Whoever has to register anew under it can be back for the next round.
        """
        self._publish(_Push(Kind.VERSION_ADOPTED, encode(VersionAdopted(version=version))))

    def _publish(self, push: _Push) -> None:
        for subscriber in list(self._subscribers.values()):
            if not subscriber.offer(push):
                self._drop(subscriber)

    def _drop(self, subscriber: _Subscriber) -> None:
        self._subscribers.pop(subscriber.session, None)
        self._on_lagged()
        closing = asyncio.get_running_loop().create_task(
            subscriber.session.close(code=CloseCode.OVERLOADED, reason="fell behind the feed")
        )
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    # -- serving ---------------------------------------------------------------------------

    async def serve(self, session: Session, handler: FrameHandler) -> None:
        """Serve a session to its end by ``handler``; ``SUBSCRIBE`` is for :meth:`subscribe`.

        Args:
            session: It may subscribe while it is served here.
            handler: Takes its frames.
        """
        subscriber = _Subscriber(session, self._limits)
        self._subscribers[session] = subscriber
        try:
            async with asyncio.TaskGroup() as group:
                pushing = group.create_task(self._push_all(subscriber))
                await session.serve(handler)
                pushing.cancel()
        finally:
            self._subscribers.pop(session, None)

    async def subscribe(self, session: Session, payload: bytes) -> Message:
        """Give a session that is served here what it asks for from now on.

        Raises:
            RemoteProtocolError: When the payload is no such request.
            TransportError: When the session fell behind and is being closed.
        """
        subscriber = self._subscribers.get(session)
        if subscriber is None:
            raise TransportError("this session is being closed")
        request = decode(payload, Subscribe)
        following = self._next_sequence()
        asked = following if request.from_sequence is None else request.from_sequence
        start = min(asked, following)
        subscriber.restart(start, live=start == following)
        return Subscribed(
            next_sequence=following,
            last_record=self._last_record(),
            open_round=self._open_round(),
        )

    async def _push_all(self, subscriber: _Subscriber) -> None:
        try:
            while True:
                await subscriber.changed.wait()
                subscriber.changed.clear()
                if not subscriber.live:
                    await self._replay(subscriber)
                while (push := subscriber.take()) is not None:
                    await subscriber.session.push(push.kind, push.payload)
        except TransportError:
            return  # serve sees the same end

    async def _replay(self, subscriber: _Subscriber) -> None:
        """Send older records until the subscriber has all of them, then the open round."""
        while subscriber.cursor is not None and subscriber.cursor < self._next_sequence():
            start = subscriber.cursor = max(subscriber.cursor, self._first_sequence())
            try:
                records = await self._read_records(start, self._limits.replay_page)
            except ZipnetError:
                records = ()
            if not records:
                await asyncio.sleep(self._limits.replay_retry_s)
            for record in records:
                if subscriber.cursor != start:  # it subscribed anew meanwhile
                    break
                await subscriber.session.push(
                    Kind.RECORD_SEALED, encode(RecordSealed(record=record))
                )
                if subscriber.cursor == start:
                    start += 1
                    subscriber.cursor = start
        if subscriber.cursor is None or subscriber.live:
            return
        subscriber.live = True
        header = self._open_round()
        if header is not None:
            opened = _Push(Kind.ROUND_OPENED, encode(RoundOpened(header=header)))
            subscriber.offer(opened)

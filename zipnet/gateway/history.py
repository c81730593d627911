"""The rounds this gateway has read: the newest in memory, older ones from the committee again.

Rules:

1. Only what a reader verified gets in; nothing is served that was not (row A6).
2. Memory is bounded in rounds and bytes; what fell out is fetched and verified anew when asked for,
   a few requests at a time.
3. A page of older rounds is read from some records earlier on, so that messages that began there
   are whole; one that took more records than that to arrive shows only to whoever followed.
4. Whoever follows gets every round from where it began, in order, or is cut off when it falls
   behind the memory; it may ask again from where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.gateway.views import Round, round_of
from zipnet.machines.reader import Advanced, Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from zipnet.errors import ZipnetError
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.sdk.reader import Reader

__all__ = ["History"]

_MAX_ROUNDS = 1024
_MAX_BYTES = 32 * 1024 * 1024
_ROUND_OVERHEAD_BYTES = 1024
_FETCHES_AT_ONCE = 4
_FETCH_TIMEOUT_S = 20.0
_LOOK_BACK = 64


class History:
    """What was broadcast lately, and the way to what was broadcast before.

    Args:
        make_reader: Makes a reader from a sequence number on; the second argument is ``follow``.
        start: Record to follow from.
        keep: Rounds kept in memory.
    """

    def __init__(
        self,
        make_reader: Callable[[int, bool], Reader],
        *,
        start: int = 0,
        keep: int = _MAX_ROUNDS,
    ) -> None:
        self._make_reader = make_reader
        self._start = start
        self._keep = keep
        self._rounds: deque[Round] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()
        self._fetching = asyncio.Semaphore(_FETCHES_AT_ONCE)
        self._fetches: set[asyncio.Timeout] = set()
        self._closed = False
        self.integrity_failures = 0
        self.following = False

    @property
    def newest(self) -> int:
        """The newest record's sequence number, -1 before the first."""
        return self._rounds[-1].sequence if self._rounds else -1

    def holds(self, start: int) -> bool:
        """Whether a page from ``start`` on needs no server."""
        first = self._rounds[0].sequence if self._rounds else 0
        return start > self.newest or start >= first

    def latest(self, count: int) -> list[Round]:
        """Return the newest rounds, oldest first."""
        return list(self._rounds)[-count:]

    def latest_talk(self, count: int) -> list[Round]:
        """Return the newest rounds that hold ``count`` messages in all, oldest first."""
        found: list[Round] = []
        for made in reversed(self._rounds):
            if count <= 0:
                break
            if made.broadcasts:
                found.append(made)
                count -= len(made.broadcasts)
        return found[::-1]

    def note_trouble(self, error: ZipnetError) -> None:
        """Count what some server sent and what did not verify."""
        if isinstance(error, RemoteProtocolError | VerificationError):
            self.integrity_failures += 1
        self.following = False

    async def follow(self) -> None:
        """Read the log and keep up with it until cancelled.

        Raises:
            ZipnetError: What ended the reading for good, such as an equivocation's proof.
        """
        started_ms = time.time_ns() // 1_000_000
        async with self._make_reader(self._start, True) as reader:  # noqa: FBT003 - `follow`
            messages: list[Message] = []
            async for event in reader.events():
                if isinstance(event, Message):
                    messages.append(event)
                elif isinstance(event, Advanced):
                    await self._add(event.record, messages, started_ms)
                    messages = []

    async def _add(self, record: VerifiedRecord, messages: list[Message], started_ms: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        live = record.record.content.header.opened_at_ms >= started_ms
        made = round_of(record, messages, now_ms=now_ms if live else None)
        async with self._changed:
            self.following = True
            self._rounds.append(made)
            self._bytes += _cost(made)
            while len(self._rounds) > self._keep or self._bytes > _MAX_BYTES:
                self._bytes -= _cost(self._rounds.popleft())
            self._changed.notify_all()

    async def page(self, start: int, limit: int) -> list[Round]:
        """Return up to ``limit`` rounds from a sequence number on, as far as there are any.

        Raises:
            ZipnetError: When older rounds cannot be had from any server, or do not verify.
            TimeoutError: When that takes too long, or the history is closed meanwhile.
        """
        first = self._rounds[0].sequence if self._rounds else 0
        if start > self.newest:
            return []
        if start >= first:
            return [r for r in self._rounds if start <= r.sequence < start + limit]
        if self._closed:
            raise TimeoutError
        async with asyncio.timeout(_FETCH_TIMEOUT_S) as bound:
            self._fetches.add(bound)
            try:
                async with self._fetching:
                    return await self._fetch(start, limit)
            finally:
                self._fetches.discard(bound)

    async def _fetch(self, start: int, limit: int) -> list[Round]:
        rounds: list[Round] = []
        messages: list[Message] = []
        begin = max(start - _LOOK_BACK, 0)
        async with self._make_reader(begin, False) as reader:  # noqa: FBT003 - `follow`
            async for event in reader.events():
                if isinstance(event, Message):
                    messages.append(event)
                elif isinstance(event, Advanced) and event.record.sequence < start:
                    messages = []
                elif isinstance(event, Advanced):
                    rounds.append(round_of(event.record, messages, now_ms=None))
                    messages = []
                    if len(rounds) == limit:
                        break
        return rounds

    async def close(self) -> None:
        """End every stream, and every page that waits for a server. Idempotent."""
        for bound in self._fetches:
            if not bound.expired():
                bound.reschedule(0)
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def live(self, start: int) -> AsyncIterator[Round]:
        """Yield every round from a sequence number on, waiting for those to come.

        Ends when the caller fell behind what is kept in memory, and when the history is closed.
        """
        at = start
        while True:
            async with self._changed:
                while self.newest < at and not self._closed:
                    await self._changed.wait()
                if self._closed or at < self._rounds[0].sequence:
                    return
                ready = [r for r in self._rounds if r.sequence >= at]
            for made in ready:
                yield made
                at = made.sequence + 1


def _cost(made: Round) -> int:
    return _ROUND_OVERHEAD_BYTES + sum(2 * len(b.data) for b in made.broadcasts)

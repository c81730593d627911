"""The ``publish`` calls of one publisher: bounded, one for each message, safe to cancel.

Rules:

1. One message id is on its way once: a second call with the same message and salt joins the first,
   and one that comes after the receipt gets that receipt.
2. At most ``max_queued`` messages and ``max_queued_bytes`` wait; further calls wait their turn, in
   order, and their deadline runs meanwhile. One message alone always has room.
3. A call that is cancelled withdraws its message when nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from zipnet.errors import NotSent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from zipnet.machines.outgoing import Receipt
    from zipnet.machines.publisher_events import Progressed
    from zipnet.protocol.ids import MessageId, RoundNumber
    from zipnet.sdk.driver import Draft, PublisherDriver

__all__ = ["Progress", "Sending"]

_RECEIPTS_KEPT = 128


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a message is on its way.

    Attributes:
        message_id: Which message.
        stage: ``queued``, ``sent`` (an aggregator took part of it) or ``broadcast`` (a verified
            record shows part of it).
        round: The round it happened in; None while queued.
        placed: Fragments that verified records show so far.
        fragments: Fragments it has.
    """

    message_id: MessageId
    stage: Literal["queued", "sent", "broadcast"]
    round: RoundNumber | None
    placed: int
    fragments: int


@dataclass(slots=True)
class _Shared:
    ticket: int
    future: asyncio.Future[Receipt]
    waiting: int = 0


class Sending:
    """All messages that callers wait for.

    Args:
        driver: Takes messages and resolves them.
        max_queued: Messages that may be under way at once.
        max_queued_bytes: Their bytes.
    """

    def __init__(self, driver: PublisherDriver, *, max_queued: int, max_queued_bytes: int) -> None:
        self._driver = driver
        self._max_queued = max_queued
        self._max_bytes = max_queued_bytes
        self._held = 0
        self._held_bytes = 0
        self._turns: deque[asyncio.Event] = deque()
        self._shared: dict[MessageId, _Shared] = {}
        self._receipts: OrderedDict[MessageId, Receipt] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Messages under way, and callers that wait for room."""
        return self._held + len(self._turns)

    async def send(
        self, draft: Draft, deadline: float, on_progress: Callable[[Progress], None] | None
    ) -> Receipt:
        """Send one message, or join the call that does.

        Raises:
            PublishError: What became of it, when it is not a receipt.
        """
        known = self._receipts.get(draft.message_id)
        if known is not None:
            return known
        shared = self._shared.get(draft.message_id)
        if shared is not None:
            return await self._join(shared, draft.message_id)
        async with self._room(draft, deadline):
            shared = self._shared.get(draft.message_id)
            if shared is None:
                shared = self._begin(draft, deadline, on_progress)
            return await self._join(shared, draft.message_id)

    def _begin(
        self, draft: Draft, deadline: float, on_progress: Callable[[Progress], None] | None
    ) -> _Shared:
        def told(event: Progressed) -> None:
            if on_progress is not None:
                on_progress(
                    Progress(
                        draft.message_id, event.stage, event.round, event.placed, event.fragments
                    )
                )

        if on_progress is not None:
            on_progress(Progress(draft.message_id, "queued", None, 0, len(draft.fragments)))
        shared = _Shared(*self._driver.queue(draft, deadline, told if on_progress else None))
        self._shared[draft.message_id] = shared
        return shared

    async def _join(self, shared: _Shared, message_id: MessageId) -> Receipt:
        shared.waiting += 1
        try:
            receipt = await asyncio.shield(shared.future)
        finally:
            shared.waiting -= 1
            if not shared.waiting:
                self._end(shared, message_id)
        self._remember(receipt)
        return receipt

    def _end(self, shared: _Shared, message_id: MessageId) -> None:
        """Whoever waited last tidies up: a later call must not join what is over."""
        if self._shared.get(message_id) is shared:
            del self._shared[message_id]
        if not shared.future.done():
            self._driver.withdraw(shared.ticket)

    def _remember(self, receipt: Receipt) -> None:
        self._receipts[receipt.message_id] = receipt
        if len(self._receipts) > _RECEIPTS_KEPT:
            self._receipts.popitem(last=False)

    # Room ---------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _room(self, draft: Draft, deadline: float) -> AsyncIterator[None]:
        size = len(draft.message)
        if self._turns or not self._fits(size):
            await self._wait_for_turn(draft, deadline)
        self._held += 1
        self._held_bytes += size
        self._wake()
        try:
            yield
        finally:
            self._held -= 1
            self._held_bytes -= size
            self._wake()

    def _fits(self, size: int) -> bool:
        if self._held == 0:
            return True
        return self._held < self._max_queued and self._held_bytes + size <= self._max_bytes

    async def _wait_for_turn(self, draft: Draft, deadline: float) -> None:
        """Wait until this call is first in line and its message fits."""
        turn = asyncio.Event()
        self._turns.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                while self._turns[0] is not turn or not self._fits(len(draft.message)):
                    turn.clear()
                    await turn.wait()
        except TimeoutError as error:
            raise NotSent(
                "message was not sent: the publisher's queue was full until its deadline",
                message_id=draft.message_id,
                message=draft.message,
                salt=draft.salt,
                hint="publish less at once, or give messages more time",
            ) from error
        finally:
            self._turns.remove(turn)
            self._wake()

    def _wake(self) -> None:
        if self._turns:
            self._turns[0].set()

"""What a node writes into its audit trail while it runs (row A8).

Rules:

1. Noting never waits and never fails its caller: entries go through one bounded queue to a task
   that makes them durable in a worker thread. What does not fit is counted, and the count becomes
   an entry.
2. Refusals come in floods: they are counted by reason and written at most every ten seconds.
3. Nothing about clients, no secret: the trail's own list of fields is the only one there is.
4. A trail that can no longer be written is said once in the log; the node goes on, since the disk
   that failed stops everything that matters by itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from zipnet.errors import SafeMode
from zipnet.observe.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zipnet.ledger.audit import Value
    from zipnet.storage.audit import AuditLog

__all__ = ["AuditTrail"]

_MAX_WAITING = 256
_FLUSH_S = 10.0

_log = get_logger(__name__)


class AuditTrail:
    """Writes for one node; a node without a state folder has a trail that keeps nothing.

    Args:
        log: Where entries go; None keeps nothing.
    """

    def __init__(self, log: AuditLog | None) -> None:
        self._writing = log
        self._waiting: asyncio.Queue[tuple[str, Mapping[str, Value]]] = asyncio.Queue(_MAX_WAITING)
        self._refused: Counter[str] = Counter()
        self._lost = 0

    def note(self, event: str, **fields: Value) -> None:
        """Have an entry written soon (rule 1)."""
        if self._writing is None:
            return
        try:
            self._waiting.put_nowait((event, fields))
        except asyncio.QueueFull:
            self._lost += 1

    def refused(self, reason: str) -> None:
        """Count an admission that was refused (rule 2)."""
        if self._writing is not None:
            self._refused[reason] += 1

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_FLUSH_S):
                    event, fields = await self._waiting.get()
            except TimeoutError:
                await _whole(self._flush)
            else:
                await _whole(self._write, event, fields)

    def close(self) -> None:
        """Write what waits and a checkpoint, and give the files back."""
        while not self._waiting.empty():
            self._write(*self._waiting.get_nowait())
        self._flush()
        log, self._writing = self._writing, None
        if log is not None:
            try:
                log.checkpoint()
            except SafeMode as error:
                self._failed(error)
            log.close()

    def _flush(self) -> None:
        refused, self._refused = self._refused, Counter()
        for reason, count in sorted(refused.items()):
            self._write("admissions_refused", {"reason": reason, "count": count})
        lost, self._lost = self._lost, 0
        if lost:
            self._write("entries_lost", {"count": lost})

    def _write(self, event: str, fields: Mapping[str, Value]) -> None:
        if self._writing is None:
            return
        try:
            self._writing.record(event, **fields)
        except SafeMode as error:
            self._failed(error)

    def _failed(self, error: SafeMode) -> None:
        self._writing = None
        _log.error("audit_stopped", reason=error.reason, error=str(error))


async def _whole(call: Callable[..., None], *arguments: object) -> None:
    """Do a blocking write to its end, also where this task is cancelled meanwhile.

    An entry already taken from the queue would be lost, or written beside those of ``close``.
    """
    writing = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await writing
        raise

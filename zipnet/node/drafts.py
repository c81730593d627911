"""What a server must find again after a crash in the middle of a round, and drop after the round.

Rules:

1. A record's content is durable here before this server signs it. Once the signatures are in the
   log nobody can make it again: the chains are stepped. Were it in memory alone, the loss of power
   to a whole committee at that moment would lose a final record for ever, and no later one could
   follow it.
2. It is dropped once the record itself is stored.
3. An aggregate that an earlier process kept is dropped when its round is closed: it lists
   participants, and nothing needs it any more.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

from zipnet.errors import RemoteProtocolError
from zipnet.protocol.aggregate import decode_aggregate
from zipnet.protocol.ids import content_digest
from zipnet.protocol.record import Record, decode_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.ports import Blobs
    from zipnet.protocol.ids import Digest, RoundNumber
    from zipnet.protocol.params import RoundParams
    from zipnet.protocol.record import RecordContent

__all__ = ["Drafts"]

_T = TypeVar("_T")


class Drafts:
    """Contents of records that are signed and not stored yet, as kept blobs.

    Args:
        blobs: Where they are kept.
        params: The group's round parameters.
    """

    def __init__(self, blobs: Blobs, params: RoundParams) -> None:
        self._blobs = blobs
        self._params = params
        self._held: dict[Digest, tuple[int, Digest]] = {}  # by record hash: sequence, blob
        self._aggregates: dict[Digest, int] = {}  # an earlier process's, with their rounds
        self._searched = False
        self._lock = threading.Lock()  # assembling and storing run beside each other

    async def keep(self, content: RecordContent, *, stored: int) -> None:
        """Make a content durable, and drop those of the records before sequence ``stored``.

        Raises:
            SafeMode: When that fails.
        """
        await asyncio.to_thread(self._locked, self._keep, content, stored)

    async def find(self, record: Digest) -> RecordContent | None:
        """Return the content that a record hash is of, None when it is not here."""
        return await asyncio.to_thread(self._locked, self._find, record)

    async def drop_aggregates(self, closed: RoundNumber) -> None:
        """Drop what an earlier process kept for rounds up to ``closed``.

        Raises:
            SafeMode: When the disk refuses.
        """
        await asyncio.to_thread(self._locked, self._drop_aggregates, closed)

    def _locked(self, call: Callable[..., _T], *arguments: object) -> _T:
        with self._lock:
            self._search()
            return call(*arguments)

    def _keep(self, content: RecordContent, stored: int) -> None:
        blob = Record(content, ()).encode()
        digest = content_digest(blob)
        self._blobs.keep(digest, blob)
        old = [r for r, (sequence, _) in self._held.items() if sequence < stored]
        self._blobs.drop(self._held.pop(record)[1] for record in old)
        self._held[content.hash] = (content.sequence, digest)

    def _find(self, record: Digest) -> RecordContent | None:
        held = self._held.get(record)
        blob = None if held is None else self._blobs.get(held[1])
        return None if blob is None else decode_record(blob, self._params).content

    def _drop_aggregates(self, closed: RoundNumber) -> None:
        over = [digest for digest, number in self._aggregates.items() if number <= closed]
        for digest in over:
            del self._aggregates[digest]
        self._blobs.drop(over)

    def _search(self) -> None:
        """Look once at what an earlier process kept; most of it are registrations."""
        if self._searched:
            return
        self._searched = True
        for digest in self._blobs.kept():
            blob = self._blobs.get(digest)
            if blob is not None:
                self._sort_in(digest, blob)

    def _sort_in(self, digest: Digest, blob: bytes) -> None:
        try:
            content = decode_record(blob, self._params).content
        except RemoteProtocolError:
            pass
        else:
            self._held[content.hash] = (content.sequence, digest)
            return
        try:
            self._aggregates[digest] = decode_aggregate(blob, self._params)[1].round
        except RemoteProtocolError:
            return  # a registration or an announcement

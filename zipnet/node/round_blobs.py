"""Which blobs belong to which round, so that none outlives it.

Partials and aggregates come from others, wanted or not. Once a round is closed nobody asks this
server for them again: who missed something takes the record. An aggregate also lists participants,
which no server should still hold afterwards (protocol.md §8.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zipnet.errors import RemoteProtocolError
from zipnet.protocol.aggregate import decode_aggregate, decode_partial

if TYPE_CHECKING:
    from zipnet.protocol.ids import Digest
    from zipnet.protocol.params import RoundParams

__all__ = ["RoundBlobs"]

_MOST: Final = 4096
"""Blobs remembered; beyond it the oldest are left to the store, which is bounded by itself."""


class RoundBlobs:
    """Digests by round.

    Args:
        params: The group's round parameters.
    """

    def __init__(self, params: RoundParams) -> None:
        self._params = params
        self._rounds: dict[Digest, int] = {}

    def note(self, digest: Digest, blob: bytes) -> None:
        """Remember a blob if it is a partial or an aggregate; others have a life of their own."""
        number = self._round_of(blob)
        if number is None:
            return
        self._rounds[digest] = number
        if len(self._rounds) > _MOST:
            del self._rounds[next(iter(self._rounds))]

    def close(self, closed: int) -> list[Digest]:
        """Forget the blobs of all rounds up to ``closed``, and return them."""
        over = [digest for digest, number in self._rounds.items() if number <= closed]
        for digest in over:
            del self._rounds[digest]
        return over

    def _round_of(self, blob: bytes) -> int | None:
        try:
            return decode_partial(blob, self._params)[1].round
        except RemoteProtocolError:
            pass
        try:
            return decode_aggregate(blob, self._params)[1].round
        except RemoteProtocolError:
            return None

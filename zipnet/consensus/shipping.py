"""A snapshot on its way from a leader to a follower, in pieces that fit a message.

One piece is under way at a time; the next leaves when the follower said how much it holds. A piece
not answered within a heartbeat is sent again, which also keeps the follower from an election.

Rules:

1. A shipment once begun goes on, though the leader may have made a newer snapshot meanwhile: the
   entries after it, or the newer snapshot, come next.
2. A follower holds one incomplete snapshot at most, and no more bytes than were announced.
3. Only bytes whose BLAKE3 digest is the one every piece named are handed on.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from zipnet.consensus.messages import MAX_CHUNK_BYTES, InstallSnapshot

if TYPE_CHECKING:
    from zipnet.consensus.members import Snapshot

__all__ = ["Arrival", "Shipment"]

_NEVER: Final = float("-inf")


class Shipment:
    """The leader's side, for one follower.

    Attributes:
        index: Where the snapshot ends in the log.
        sent_at: When a piece was last sent.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.index = snapshot.index
        self.sent_at = _NEVER
        self._data = snapshot.encode()
        self._digest = blake3(self._data).digest()
        self._offset = 0

    def is_over(self) -> bool:
        """Whether the follower was sent everything, or has not begun."""
        return self._offset == 0 or self._offset + MAX_CHUNK_BYTES >= len(self._data)

    def piece(self, term: int, now: float) -> InstallSnapshot:
        """Return the piece the follower should get next."""
        self.sent_at = now
        chunk = self._data[self._offset : self._offset + MAX_CHUNK_BYTES]
        size = len(self._data)
        return InstallSnapshot(term, self.index, self._digest, size, self._offset, chunk)

    def advance(self, index: int, held: int) -> bool:
        """Note what the follower holds; True when that calls for another piece now.

        An answer that says the same again belongs to a piece sent twice.
        """
        if index != self.index or held >= len(self._data):
            return False
        if held > self._offset or (held == 0 and self._offset > 0):
            self._offset = held
            return True
        return False


class Arrival:
    """The follower's side.

    Attributes:
        digest: Of the whole snapshot.
        held: Bytes here so far.
    """

    def __init__(self, first: InstallSnapshot) -> None:
        self.digest = first.digest
        self._size = first.size
        self._data = bytearray()

    @property
    def held(self) -> int:
        """Bytes here so far."""
        return len(self._data)

    def take(self, piece: InstallSnapshot) -> bytes | None:
        """Add a piece that comes next, and return the whole once it is complete and sound.

        A whole that is not what its digest says is forgotten.
        """
        if piece.offset != len(self._data) or piece.size != self._size:
            return None
        self._data += piece.chunk
        if len(self._data) < self._size:
            return None
        data = bytes(self._data)
        self._data.clear()
        return data if hmac.compare_digest(blake3(data).digest(), self.digest) else None

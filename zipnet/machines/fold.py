"""One round's fold: the XOR of what was accepted, and who is in it (protocol.md §6 "fold").

Rules:

1. An accumulator is changed by whole, checked bodies only, and in place.
2. An index is in it at most once: folding it twice would cancel it out.
3. Who is in it, and what of each source was accepted, changes together with the accumulator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zipnet.protocol.aggregate import Aggregate
from zipnet.protocol.participants import Participants

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zipnet.protocol.header import RoundHeader, SignedHeader
    from zipnet.protocol.ids import Digest, PeerId, RegistryIndex

__all__ = ["Fold"]


class Fold:
    """What one node has folded in one round.

    Args:
        signed: The round's verified header.
        body_bytes: Length of a round vector.
        opened_at: Monotonic time of opening, in seconds.

    Attributes:
        closed: Whether folding is over.
        expects: Whether anybody was ever waited for.
        awaited: Connected peers that may still send.
        participants: Who is in the sum.
    """

    def __init__(self, signed: SignedHeader, body_bytes: int, opened_at: float) -> None:
        self.signed = signed
        self.header: RoundHeader = signed.header
        self.header_hash: Digest = self.header.hash
        self.opened_at = opened_at
        self.closed = False
        self.expects = False
        self.awaited: set[PeerId] = set()
        self.participants = Participants()
        self._sums: NDArray[np.uint8] = np.zeros(body_bytes, dtype=np.uint8)
        self._envelopes: dict[RegistryIndex, tuple[Digest, bytes]] = {}
        self._children: dict[PeerId, Digest] = {}
        self._attempts: dict[PeerId, int] = {}

    def count_attempt(self, source: PeerId) -> int:
        """Count one more submission of a source and return how many it made in this round."""
        self._attempts[source] = self._attempts.get(source, 0) + 1
        return self._attempts[source]

    def envelope_of(self, sender: RegistryIndex) -> tuple[Digest, bytes] | None:
        """Return body digest and signature of the envelope accepted from an index."""
        return self._envelopes.get(sender)

    @property
    def own_envelopes(self) -> int:
        """How many envelopes were folded here rather than by a child."""
        return len(self._envelopes)

    def child_digest(self, source: PeerId) -> Digest | None:
        """Return the digest of the aggregate accepted from a child."""
        return self._children.get(source)

    def add_envelope(
        self, sender: RegistryIndex, body: bytes, body_digest: Digest, signature: bytes
    ) -> None:
        """Fold one admitted envelope."""
        added = Participants((sender,))
        self._add(added, body)
        self._envelopes[sender] = (body_digest, signature)

    def add_child(self, source: PeerId, digest: Digest, aggregate: Aggregate) -> None:
        """Fold one admitted aggregate of a child."""
        self._add(aggregate.participants, aggregate.body)
        self._children[source] = digest

    def _add(self, added: Participants, body: bytes) -> None:
        assert not self.closed, "folding after closing"
        assert self.participants.isdisjoint(added), "folding an index twice"
        np.bitwise_xor(self._sums, np.frombuffer(body, dtype=np.uint8), out=self._sums)
        self.participants = self.participants.union(added)

    def close(self) -> Aggregate:
        """End the fold and return its aggregate; the accumulator is let go."""
        self.closed = True
        aggregate = Aggregate(
            self.header.round, self.header_hash, self.participants, self._sums.tobytes()
        )
        self._sums = np.zeros(0, dtype=np.uint8)
        return aggregate

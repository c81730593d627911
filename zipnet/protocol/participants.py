"""Who took part in a round, as a bit set over registry indexes (protocol.md §6).

The set travels between aggregators and servers only. Readers see its size and a salted
commitment, never the set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError
from zipnet.protocol.ids import Digest, RegistryIndex, derive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MAX_PARTICIPANT_BYTES", "Participants"]

MAX_PARTICIPANT_BYTES = 128 * 1024
"""Cap of the encoded set: one million registry indexes."""


class Participants:
    """An immutable set of registry indexes with a canonical encoding.

    The encoding is little-endian bit order, byte ``i // 8`` bit ``i % 8``, without trailing zero
    bytes, so that one set has one encoding.
    """

    __slots__ = ("_bits",)

    def __init__(self, indexes: Iterable[RegistryIndex] = ()) -> None:
        bits = 0
        for index in indexes:
            bits |= 1 << index
        self._bits = bits

    @classmethod
    def _from_bits(cls, bits: int) -> Participants:
        result = cls()
        result._bits = bits
        return result

    def __len__(self) -> int:
        return self._bits.bit_count()

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and index >= 0 and bool(self._bits >> index & 1)

    def __iter__(self) -> Iterator[RegistryIndex]:
        data = self.encode()
        for position, byte in enumerate(data):
            for bit in range(8):
                if byte >> bit & 1:
                    yield RegistryIndex(position * 8 + bit)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Participants) and self._bits == other._bits

    def __hash__(self) -> int:
        return hash(self._bits)

    def __repr__(self) -> str:
        return f"Participants(count={len(self)})"

    def isdisjoint(self, other: Participants) -> bool:
        """Tell whether no index is in both sets."""
        return not self._bits & other._bits

    def union(self, other: Participants) -> Participants:
        """Return the set of the indexes in either set."""
        return self._from_bits(self._bits | other._bits)

    def encode(self) -> bytes:
        """Return the canonical bytes of the set."""
        return self._bits.to_bytes((self._bits.bit_length() + 7) // 8, "little")

    @staticmethod
    def decode(data: bytes) -> Participants:
        """Parse a set.

        Raises:
            RemoteProtocolError: When the bytes are oversize or not the canonical encoding.
        """
        if len(data) > MAX_PARTICIPANT_BYTES:
            raise RemoteProtocolError("participant set is larger than the cap")
        if data and data[-1] == 0:
            raise RemoteProtocolError("participant set has trailing zero bytes")
        return Participants._from_bits(int.from_bytes(data, "little"))

    @property
    def digest(self) -> Digest:
        """Digest of the set, as it stands in the committee's log."""
        return derive("participants", self.encode())

    def commitment(self, salt: bytes) -> Digest:
        """Commit to the set under a salt only the committee can compute (32 bytes)."""
        return derive("participants-commitment", salt, self.encode())

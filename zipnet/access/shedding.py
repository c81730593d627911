"""What a node lets go of first when there is too much at once (row A4).

Rules:

1. Load is the greater of two shares: requests in progress, and bytes they hold.
2. The order is fixed: readers first, then those who publish, then those who relay. What keeps the
   committee together, and what operators ask, is never shed.
3. One request alone is never shed, however large.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SHED_AT", "Load", "Rank"]


class Rank(IntEnum):
    """What a request is worth; the lowest goes first."""

    READING = 0
    PUBLISHING = 1
    RELAYING = 2
    CONTROL = 3


SHED_AT: Final[Mapping[Rank, float | None]] = MappingProxyType(
    {Rank.READING: 0.5, Rank.PUBLISHING: 0.75, Rank.RELAYING: 0.9, Rank.CONTROL: None}
)
"""Share of the node's capacity from which a rank is refused; None for never."""


class Load:
    """What a node has in hand.

    Args:
        most: Requests in progress that are the full load.
        most_bytes: Bytes they hold that are the full load.
    """

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._count = 0
        self._bytes = 0

    @property
    def share(self) -> float:
        """Load now, 1 for full."""
        return max(self._count / self._most, self._bytes / self._most_bytes)

    def sheds(self, rank: Rank) -> bool:
        """Whether a request of a rank is refused now."""
        bound = SHED_AT[rank]
        return bound is not None and self._count > 0 and self.share >= bound

    def enter(self, size: int) -> None:
        """A request of ``size`` bytes is in progress."""
        self._count += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        """It is done."""
        self._count -= 1
        self._bytes -= size

"""Which rounds a client takes part in: never a matter of whether it has something to say.

protocol.md §5.4. Rules:

1. The choice follows from the signed header and the policy alone: two clients with one policy take
   part in the same rounds, talking or not.
2. Rounds come in pairs, one to reserve in and one to talk in; a cadence keeps pairs together.
3. Times are the opener's clock, which every client of a round sees alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from zipnet.protocol.header import RoundHeader

__all__ = ["Cover", "always", "every", "window"]

_DAY_S = 86_400
_MAX_PERIOD_S = 366 * _DAY_S


@dataclass(frozen=True, slots=True)
class Cover:
    """When a client sends, with a message or with cover.

    Attributes:
        pairs: 1 takes part in every round; n in two rounds out of every 2·n.
        lasting_s: Length of the window in each period, in seconds; the period itself: always.
        period_s: Time from one window's beginning to the next.
        offset_s: Where the first window begins, seconds after 1970 began (UTC).
    """

    pairs: int = 1
    lasting_s: int = _DAY_S
    period_s: int = _DAY_S
    offset_s: int = 0

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ConfigError: When a value is out of range.
        """
        if self.pairs < 1:
            raise ConfigError(f"cadence is {self.pairs}, it must be 1 or more")
        if not 1 <= self.period_s <= _MAX_PERIOD_S:
            raise ConfigError(f"a window's period is {self.period_s} s, 1 s to a year is allowed")
        if not 1 <= self.lasting_s <= self.period_s:
            raise ConfigError(
                f"a window lasts {self.lasting_s} s, 1 to its period of {self.period_s} is allowed"
            )

    def takes_part(self, header: RoundHeader) -> bool:
        """Tell whether a client with this policy sends in the round of ``header``."""
        within_s = (header.opened_at_ms // 1000 - self.offset_s) % self.period_s
        return within_s < self.lasting_s and header.round // 2 % self.pairs == 0


def always() -> Cover:
    """Take part in every round there is: the strongest cover."""
    return Cover()


def every(pairs: int) -> Cover:
    """Take part in two rounds, one to reserve and one to talk, out of every ``2 * pairs``.

    Raises:
        ConfigError: When ``pairs`` is below 1.
    """
    return Cover(pairs=pairs)


def window(*, lasting_s: int, period_s: int = _DAY_S, offset_s: int = 0) -> Cover:
    """Take part during one window of each period, such as the same hour of every day.

    Args:
        lasting_s: Length of a window, in seconds.
        period_s: From one window's beginning to the next; a day unless said otherwise.
        offset_s: When windows begin, in seconds from the period's beginning (UTC).

    Raises:
        ConfigError: When a value is out of range.
    """
    return Cover(lasting_s=lasting_s, period_s=period_s, offset_s=offset_s)

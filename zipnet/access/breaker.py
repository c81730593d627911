"""A circuit breaker: what keeps failing is left alone for a while (row A4).

Rules:

1. Closed, it lets everything through and counts failures in a row; ``failures`` of them open it.
2. Open, it lets nothing through for ``cool_s``, then one attempt (half-open). That one closes it
   when it succeeds, and opens it for twice as long when it fails, up to ``longest_s``.
3. An attempt that was let through and never reported back counts as failed after ``cool_s``.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Breaker", "BreakerState"]


class BreakerState(StrEnum):
    """Where a breaker is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Guards the way to one target. Time is passed in.

    Args:
        failures: Failures in a row that open it.
        cool_s: How long it stays open the first time.
        longest_s: How long it stays open at most.
    """

    def __init__(self, *, failures: int = 5, cool_s: float = 1.0, longest_s: float = 30.0) -> None:
        self._limit = failures
        self._first_s = cool_s
        self._longest_s = longest_s
        self._failed = 0
        self._cool_s = cool_s
        self._opened_at: float | None = None
        self._tried_at: float | None = None

    @property
    def state(self) -> BreakerState:
        """Where it is."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._tried_at is None else BreakerState.HALF_OPEN

    def allows(self, now: float) -> bool:
        """Whether an attempt may be made; True while open means: this is the one attempt."""
        if self._opened_at is None:
            return True
        if self._tried_at is not None:
            if now < self._tried_at + self._cool_s:
                return False
        elif now < self._opened_at + self._cool_s:
            return False
        self._tried_at = now
        return True

    def retry_after_s(self, now: float) -> float:
        """Return the seconds until the next attempt may be made."""
        if self._opened_at is None:
            return 0.0
        since = self._opened_at if self._tried_at is None else self._tried_at
        return max(0.0, since + self._cool_s - now)

    def succeeded(self) -> None:
        """Say that an attempt went well."""
        self._failed = 0
        self._cool_s = self._first_s
        self._opened_at = self._tried_at = None

    def failed(self, now: float) -> bool:
        """Say that an attempt failed; tells whether the breaker opened because of it."""
        self._failed += 1
        if self._opened_at is not None:
            if self._tried_at is None:
                return False  # one that was under way when it opened
            self._cool_s = min(self._cool_s * 2, self._longest_s)
        elif self._failed < self._limit:
            return False
        self._opened_at, self._tried_at = now, None
        return True

    def open_for_s(self, now: float) -> float:
        """Return for how long it has been open or half-open since it last opened; 0 when closed."""
        return 0.0 if self._opened_at is None else max(0.0, now - self._opened_at)

"""Token buckets, one for each principal or network prefix, in bounded memory (row H4).

Rules:

1. A bucket holds at most ``burst`` tokens and gains ``rate`` of them a second. Time is passed in.
2. At most ``most`` buckets are kept. One that has filled up again says nothing more than a new one
   would, so it may be forgotten.
3. When all places are taken by buckets that are in use, newcomers share one bucket: a crowd of new
   names can neither grow the table nor win a known caller's bucket back full.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

__all__ = ["TokenBuckets"]

_LOOKED_AT: Final = 4


class _Bucket:
    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at


class TokenBuckets:
    """What callers may still have.

    Args:
        rate: Tokens a bucket gains each second.
        burst: Tokens it holds at most.
        most: Buckets kept at once.
    """

    def __init__(self, *, rate: float, burst: float, most: int) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._shared = _Bucket(burst, 0.0)

    def __len__(self) -> int:
        """Return how many buckets are kept."""
        return len(self._buckets)

    def take(self, key: str, cost: float, now: float) -> float:
        """Take tokens; returns 0, or the seconds until there are enough when nothing was taken.

        Args:
            key: Whose bucket.
            cost: How many tokens; one above ``burst`` counts as ``burst``.
            now: Seconds on a clock that only goes forward.
        """
        bucket = self._bucket(key, now)
        self._refill(bucket, now)
        wanted = min(cost, self._burst)
        if bucket.tokens >= wanted:
            bucket.tokens -= wanted
            return 0.0
        return (wanted - bucket.tokens) / self._rate

    def _refill(self, bucket: _Bucket, now: float) -> None:
        if now > bucket.at:
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
            bucket.at = now

    def _bucket(self, key: str, now: float) -> _Bucket:
        bucket = self._buckets.get(key)
        if bucket is not None:
            self._buckets.move_to_end(key)
            return bucket
        if len(self._buckets) >= self._most and not self._make_room(now):
            return self._shared
        bucket = self._buckets[key] = _Bucket(self._burst, now)
        return bucket

    def _make_room(self, now: float) -> bool:
        """Forget a bucket among those longest unused that has filled up again."""
        for key in [key for key, _ in zip(self._buckets, range(_LOOKED_AT), strict=False)]:
            bucket = self._buckets[key]
            self._refill(bucket, now)
            if bucket.tokens >= self._burst:
                del self._buckets[key]
                return True
        return False

"""Whether the kernel's randomness can be relied on (row A2): 128 bits at least.

Rules:

1. The kernel's generator must be seeded: it is asked without waiting, which fails while it is not.
2. Where the kernel still counts what its pool holds, that must be 128 bits or more.
3. Two draws must differ from each other and from the last ones: a generator that repeats itself,
   as in a guest resumed twice from one image, must not make keys.

Draws are compared by their keyed digests; the bytes themselves are of no use to anybody.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from zipnet.observe.health import HOLDS, Finding, failed
from zipnet.protocol.ids import content_digest

__all__ = ["LEAST_BITS", "EntropyProbe"]

LEAST_BITS: Final = 128
_COUNTED = Path("/proc/sys/kernel/random/entropy_avail")
_DRAW_BYTES: Final = 32
_REMEMBERED: Final = 16


def _draw() -> bytes:
    return os.getrandom(_DRAW_BYTES, os.GRND_NONBLOCK)


class EntropyProbe:
    """Tries the kernel's generator.

    Args:
        draw: Returns random bytes without waiting for them.
        counted: File that says how many bits the pool holds.
    """

    name = "entropy"
    every_s = 2.0

    def __init__(self, draw: Callable[[], bytes] = _draw, counted: Path = _COUNTED) -> None:
        self._draw = draw
        self._counted = counted
        self._seen: list[bytes] = []

    async def look(self) -> Finding:
        """Failed when keys should not be drawn now."""
        try:
            draws = [bytes(content_digest(self._draw())) for _ in range(2)]
        except (BlockingIOError, OSError):
            return failed("entropy_not_seeded")
        known = [*self._seen, *draws]
        self._seen = known[-_REMEMBERED:]
        if len(set(known)) != len(known):
            return failed("entropy_repeats")
        bits = self._bits()
        return failed("entropy_low") if bits is not None and bits < LEAST_BITS else HOLDS

    def _bits(self) -> int | None:
        try:
            return int(self._counted.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None  # hidden from this process: the kernel's own word has to do

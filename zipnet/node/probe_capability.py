"""Whether the capability a node shows to others still counts (row L4)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from zipnet.observe.health import HOLDS, Finding, degraded, failed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CapabilityProbe"]

_SOON_S: Final = 600.0


class CapabilityProbe:
    """Compares a capability's end with the clock.

    Args:
        expires_s: Returns when the one in use ends, Unix seconds; None where there is none.
        wall: Unix seconds.
    """

    name = "capability"
    every_s = 2.0

    def __init__(
        self, expires_s: Callable[[], int | None], wall: Callable[[], float] = time.time
    ) -> None:
        self._expires_s = expires_s
        self._wall = wall

    async def look(self) -> Finding:
        """Degraded in its last ten minutes, failed after its end."""
        expires_s = self._expires_s()
        if expires_s is None:
            return HOLDS
        left_s = expires_s - self._wall()
        if left_s <= 0:
            return failed("capability_expired")
        return degraded("capability_expiring") if left_s < _SOON_S else HOLDS

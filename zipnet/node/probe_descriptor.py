"""Whether the descriptor this node works with is still good (row Z17)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from zipnet.observe.health import HOLDS, Finding, degraded, failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.observe.metrics import NodeMetrics
    from zipnet.protocol.descriptor import Descriptor

__all__ = ["DescriptorProbe"]

_WARN_S: Final = 7 * 86400.0
_WARN_SHARE: Final = 0.1


class DescriptorProbe:
    """Compares a descriptor's end with the clock.

    Args:
        descriptor: Returns the one in use; it may be replaced by a newer version.
        metrics: Where its end is shown.
        wall: Unix seconds.
    """

    name = "descriptor"
    every_s = 5.0

    def __init__(
        self,
        descriptor: Callable[[], Descriptor],
        metrics: NodeMetrics,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._descriptor = descriptor
        self._metrics = metrics
        self._wall = wall

    async def look(self) -> Finding:
        """Degraded in its last week (its last tenth, where that is less), failed after its end."""
        descriptor = self._descriptor()
        begins, ends = descriptor.not_before.timestamp(), descriptor.not_after.timestamp()
        self._metrics.descriptor_expiry.set(ends)
        left_s = ends - self._wall()
        if left_s <= 0:
            return failed("descriptor_expired")
        soon = left_s < min(_WARN_S, (ends - begins) * _WARN_SHARE)
        return degraded("descriptor_expiring") if soon else HOLDS

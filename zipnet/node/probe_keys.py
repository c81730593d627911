"""Whether the keys a node works with should be replaced (row L4)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zipnet.observe.health import HOLDS, Finding, degraded
from zipnet.protocol.key_ages import KEY_WARNING, ages_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.observe.metrics import NodeMetrics
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.ids import PeerId

__all__ = ["KeyAgeProbe"]


class KeyAgeProbe:
    """Compares the ages of keys with the clock.

    It degrades and never fails: a committee that stopped because nobody rotated a key in time would
    protect nobody. Production refuses to *start* with keys that are overdue.

    Args:
        descriptor: Returns the version in use, with those before it that are known.
        peer: This node.
        metrics: Where it is shown when each should be replaced.
        wall: Unix seconds.
    """

    name = "keys"
    every_s = 5.0

    def __init__(
        self,
        descriptor: Callable[[], TrustedDescriptor],
        peer: PeerId,
        metrics: NodeMetrics,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._descriptor = descriptor
        self._peer = peer
        self._metrics = metrics
        self._wall = wall

    async def look(self) -> Finding:
        """Degraded when a key has two weeks left, and when it should be gone."""
        least_s = float("inf")
        for age in ages_for(self._descriptor(), self._peer):
            due = age.due.timestamp()
            self._metrics.key_expires(age.kind, due)
            least_s = min(least_s, due - self._wall())
        if least_s <= 0:
            return degraded("key_overdue")
        return degraded("key_due") if least_s < KEY_WARNING.total_seconds() else HOLDS

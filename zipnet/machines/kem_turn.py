"""When a committee server's KEM key makes way for the next one (protocol.md §4.1).

Rules:

1. A key is due with each epoch by the wall clock, once an epoch's time after it came into use, and
   when the operator says so; whichever is first.
2. Epochs only grow: a server announces none that is not beyond its newest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.machines.server_effects import AnnounceKemKey
from zipnet.protocol.command import AnnounceKem

if TYPE_CHECKING:
    from zipnet.machines.server_effects import Instant, KemKeyReady

__all__ = ["KemTurn"]


class KemTurn:
    """Decides which KEM epoch one server is in.

    Args:
        epoch_s: Length of an epoch, seconds.
    """

    def __init__(self, epoch_s: int) -> None:
        self._epoch_s = epoch_s
        self._asked = -1
        self._to_replace = -2
        self._in_use = (-1, float("inf"))
        self._ready: KemKeyReady | None = None

    def ask(self, newest: int) -> None:
        """Note that the operator wants the key of epoch ``newest`` replaced now."""
        self._asked, self._to_replace = -1, newest

    def have(self, ready: KemKeyReady) -> None:
        """Note that a key was made, and can be announced."""
        self._ready = ready

    def command(self, newest: int) -> AnnounceKem | None:
        """Return what to propose: the key that is ready, where it is beyond ``newest``."""
        ready = self._ready
        if ready is None or ready.epoch <= newest:
            return None
        return AnnounceKem(ready.epoch, ready.announcement)

    def due(self, newest: int, now: Instant) -> AnnounceKemKey | None:
        """Return which key to have, once for each epoch.

        Args:
            newest: The epoch this server announced last, -1 for none.
            now: The moment.
        """
        if newest != self._in_use[0]:
            self._in_use = (newest, now.monotonic)
        # The second clock is for days when the first was wrong: a date far ahead names an epoch
        # that no later one follows for as long, and its key would stay in use until then.
        used_up = now.monotonic - self._in_use[1] > self._epoch_s or newest == self._to_replace
        epoch = max(newest + used_up, now.wall_ms // 1000 // self._epoch_s)
        if self._asked >= epoch:
            return None
        # After a restart too: the driver says whether the announced key is still held.
        self._asked = epoch
        return AnnounceKemKey(epoch, newest)

"""Whether a client may say something real now or goes on with cover (row Z19, protocol.md §5.5).

Rules:

1. The crowd is what the *least* of the committee's answers says: one honest server suffices.
2. Nothing real leaves before enough clients are registered and this one has taken part, with
   cover, in rounds of its own registration: its registration is then visible, and joining cannot be
   matched to a message.
3. A smaller crowd in the last round than the user asked for holds messages back for as long as it
   lasts.
4. Holding back is cover: nothing about the envelope shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["Withheld", "Withholding"]


@dataclass(frozen=True, slots=True)
class Withheld:
    """Why nothing real leaves now: what is known, and what to do about it."""

    text: str
    hint: str


class Withholding:
    """One client's reasons to wait.

    Args:
        min_registered: Fewest registered clients, this one included, before the first message; 0
            asks for none.
        settle_rounds: Rounds with cover before the first message.
        min_anonymity_set: Fewest participants of the last round; 0 asks for none.
    """

    __slots__ = ("_covered", "_min_registered", "_min_set", "_registered", "_settle")

    def __init__(self, *, min_registered: int, settle_rounds: int, min_anonymity_set: int) -> None:
        self._min_registered = min_registered
        self._settle = settle_rounds
        self._min_set = min_anonymity_set
        self._registered = 0
        self._covered = 0

    @property
    def wants_count(self) -> bool:
        """Whether the number of registered clients is still to be asked for."""
        return self._registered < self._min_registered

    @property
    def covered(self) -> int:
        """Rounds this registration took part in."""
        return self._covered

    def joined(self) -> None:
        """A new registration is in force: begin again."""
        self._registered = 0
        self._covered = 0

    def counted(self, registered: int) -> None:
        """The least of the committee's answers."""
        self._registered = registered

    def took_part(self) -> None:
        """An aggregator took an envelope of this registration."""
        self._covered += 1

    def reason(self, last: VerifiedRecord | None) -> Withheld | None:
        """Return why nothing real may leave now, or None when it may."""
        if self.wants_count:
            return Withheld(
                f"{self._registered} clients are registered, {self._min_registered} are needed "
                "before anything real is sent",
                "wait until more clients have joined, or give the message more time",
            )
        if self._covered < self._settle:
            return Withheld(
                "this client has only just joined and sends cover first",
                "give the message more time",
            )
        if not self._min_set:
            return None
        seen = 0 if last is None else last.record.content.participants
        if seen < self._min_set:
            return Withheld(
                f"the last round had {seen} participants, min_anonymity_set is {self._min_set}",
                "wait for a larger crowd, or lower min_anonymity_set",
            )
        return None

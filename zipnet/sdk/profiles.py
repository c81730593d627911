"""Round profiles: how fast rounds go and what they carry, for those who describe an instance.

The pace and the slots are the operator's to choose, in the descriptor; a profile is a pair that
goes together. Clients take both from the descriptor and need no profile.
"""

from __future__ import annotations

from dataclasses import dataclass

from zipnet.protocol.params import Cadence, RoundParams

__all__ = ["RoundProfile", "archival", "custom", "interactive"]


@dataclass(frozen=True, slots=True)
class RoundProfile:
    """Parameters of rounds and their pace.

    Attributes:
        params: What a round carries; part of the group id.
        cadence: When it opens, folds and is given up.
    """

    params: RoundParams
    cadence: Cadence

    @property
    def message_bytes_per_s(self) -> float:
        """What one group can say in all, in payload bytes per second."""
        per_round = self.params.num_slots * self.params.fragment_bytes
        return per_round * 1000 / self.cadence.round_period_ms


def interactive(*, min_participants: int = 3) -> RoundProfile:
    """Return rounds of one second with 64 slots of 256 bytes: chat, votes, transactions."""
    return RoundProfile(
        RoundParams(min_participants=min_participants),
        Cadence(round_period_ms=1000, fold_deadline_ms=700, round_deadline_ms=4000),
    )


def archival(*, min_participants: int = 3) -> RoundProfile:
    """Return rounds of thirty seconds with 256 slots of 2 KiB: documents, for large crowds."""
    return RoundProfile(
        RoundParams(num_slots=256, slot_bytes=2048, min_participants=min_participants),
        Cadence(round_period_ms=30_000, fold_deadline_ms=15_000, round_deadline_ms=60_000),
    )


def custom(
    *, period_s: float, num_slots: int, slot_bytes: int, min_participants: int = 3
) -> RoundProfile:
    """Return rounds of a given pace; they fold for half of it and are given up after three.

    Args:
        period_s: From one opening to the next, in seconds.
        num_slots: Slots of a round.
        slot_bytes: Bytes of a slot.
        min_participants: Fewest clients a round is unblinded for.

    Raises:
        ConfigError: When a value is out of the protocol's bounds.
    """
    period_ms = round(period_s * 1000)
    return RoundProfile(
        RoundParams(num_slots=num_slots, slot_bytes=slot_bytes, min_participants=min_participants),
        Cadence(
            round_period_ms=period_ms,
            fold_deadline_ms=max(period_ms // 2, 1),
            round_deadline_ms=3 * period_ms,
        ),
    )

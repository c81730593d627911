"""Parameters of a group: the shape of its rounds, and the pace its committee keeps.

:class:`RoundParams` is part of the group id (protocol.md §3): two parties with different values
are in different groups. :class:`Cadence` is not: the pace of a running group may change.
"""

from __future__ import annotations

from dataclasses import dataclass

from zipnet.errors import ConfigError
from zipnet.protocol.encoding import Writer

__all__ = [
    "MAX_BODY_BYTES",
    "RESERVATION_ENTRY_BYTES",
    "SLOT_OVERHEAD_BYTES",
    "Cadence",
    "RoundParams",
]

SLOT_OVERHEAD_BYTES = 38
"""Tag 16, length 2, message id 16, fragment index 2, fragment count 2 (protocol.md §5)."""

RESERVATION_ENTRY_BYTES = 2

MAX_BODY_BYTES = 1024 * 1024 - 64 * 1024
"""A body, the participants and every field around them must stay below the frame cap of 1 MiB."""

_PARAMS_LAYOUT = 1
_ENTRIES_PER_SLOT = 8
_BOUNDS = {
    "num_slots": (1, 4096),
    "slot_bytes": (64, 32_768),
    "min_participants": (2, 65_536),
    "kem_epoch_s": (1, 7 * 86_400),
    "max_skip_rounds": (1, 10_000_000),
}
_CADENCE_BOUND_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class RoundParams:
    """What every member of a group must agree on (protocol.md §3, §5).

    Attributes:
        num_slots: Message slots of a round, 1 … 4,096.
        slot_bytes: Full width of a slot in bytes, 64 … 32,768.
        min_participants: Fewest clients a round is unblinded for, 2 … 65,536.
        kem_epoch_s: Life of a server's KEM key in seconds, 1 … 604,800.
        max_skip_rounds: Most rounds a chain is stepped over at once, 1 … 10,000,000.

    Raises:
        ConfigError: When a value is out of bounds or a body would exceed :data:`MAX_BODY_BYTES`.
    """

    num_slots: int = 64
    slot_bytes: int = 256
    min_participants: int = 3
    kem_epoch_s: int = 3600
    max_skip_rounds: int = 100_000

    def __post_init__(self) -> None:
        """Check every bound."""
        for name, (low, high) in _BOUNDS.items():
            _require_between(name, getattr(self, name), low, high)
        if self.body_bytes > MAX_BODY_BYTES:
            raise ConfigError(
                f"num_slots and slot_bytes make a body of {self.body_bytes} bytes, "
                f"at most {MAX_BODY_BYTES} fit a frame",
                hint="lower num_slots or slot_bytes",
            )

    @property
    def matrix_bytes(self) -> int:
        """Length of the message matrix."""
        return self.num_slots * self.slot_bytes

    @property
    def reservation_entries(self) -> int:
        """Entries of the reservation vector: eight for each slot."""
        return _ENTRIES_PER_SLOT * self.num_slots

    @property
    def reservation_bytes(self) -> int:
        """Length of the reservation vector."""
        return RESERVATION_ENTRY_BYTES * self.reservation_entries

    @property
    def body_bytes(self) -> int:
        """Length of a round vector."""
        return self.matrix_bytes + self.reservation_bytes

    @property
    def fragment_bytes(self) -> int:
        """Payload one slot carries."""
        return self.slot_bytes - SLOT_OVERHEAD_BYTES

    def encode(self) -> bytes:
        """Lay the parameters out for the group id: layout u8, then five u32 in field order."""
        return (
            Writer()
            .u8(_PARAMS_LAYOUT)
            .u32(self.num_slots)
            .u32(self.slot_bytes)
            .u32(self.min_participants)
            .u32(self.kem_epoch_s)
            .u32(self.max_skip_rounds)
            .take()
        )


@dataclass(frozen=True, slots=True)
class Cadence:
    """The pace of rounds, in milliseconds; not part of the group id.

    Attributes:
        round_period_ms: From one opening to the next while all goes well.
        fold_deadline_ms: From opening to the moment aggregators stop folding.
        round_deadline_ms: From opening to the moment an unfinished round is aborted.

    Raises:
        ConfigError: When a value is not between 1 ms and 1 h, or folding would end no earlier than
            the round.
    """

    round_period_ms: int = 2000
    fold_deadline_ms: int = 1000
    round_deadline_ms: int = 5000

    def __post_init__(self) -> None:
        """Check every bound."""
        for name in ("round_period_ms", "fold_deadline_ms", "round_deadline_ms"):
            _require_between(name, getattr(self, name), 1, _CADENCE_BOUND_MS)
        if self.fold_deadline_ms >= self.round_deadline_ms:
            raise ConfigError(
                f"fold_deadline_ms ({self.fold_deadline_ms}) is not below "
                f"round_deadline_ms ({self.round_deadline_ms})",
                hint="leave the committee time to unblind and sign after folding ends",
            )


def _require_between(name: str, value: object, low: int, high: int) -> None:
    # bool is an int to isinstance; a parameter given as true is a mistake all the same.
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{name} is a {type(value).__name__}, a whole number is due")
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}, it must be between {low} and {high}")

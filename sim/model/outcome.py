"""What a run comes to: one plain value that reports, comparisons and tests read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.model.trace import Row

__all__ = ["Outcome", "RoundSummary", "quantile"]


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """One sealed round.

    Attributes:
        number: Round number.
        opened: Virtual seconds at which the first server announced it.
        sealed: Virtual seconds at which the first server had its record.
        participants: Clients in it.
        registered: Clients registered when it opened.
        used: Valid slots.
        void: Slots destroyed by collision or noise.
        reserved: Non-zero entries of the reservation vector.
        schedule: Schedule hash, hexadecimal.
    """

    number: int
    opened: float
    sealed: float
    participants: int
    registered: int
    used: int
    void: int
    reserved: int
    schedule: str

    @property
    def entropy_bits(self) -> float:
        """Entropy of the author of one message among the participants, in bits."""
        return math.log2(self.participants) if self.participants else 0.0


@dataclass(slots=True)
class Outcome:
    """One run.

    Attributes:
        scenario: Name of the scenario.
        seed: Its seed.
        digest: Digest over every event of the run.
        seconds: Virtual seconds it took.
        slots: Slots of a round.
        clients: Clients of the scenario.
        rounds: Sealed rounds in order.
        aborted: Rounds given up: number and reason.
        queued: Messages queued.
        latencies: Seconds from queueing to the receipt, of each delivered message.
        recovered: Messages a reader put together.
        recovered_bytes: Their bytes.
        links: Bytes sent and received by kind of node, and by message kind.
        counted: How many events there were of each kind.
        rows: The kept events.
        assumptions: What a reader of the figures must know.
        published: Figures of others.
        wire_body_bytes: Length of the vector that was charged for.
        mode: ``model`` for virtual time, ``cluster`` for real processes.
    """

    scenario: str
    seed: int
    digest: str
    seconds: float
    slots: int
    clients: int
    rounds: list[RoundSummary]
    aborted: list[tuple[int, str]]
    queued: int
    latencies: list[float]
    recovered: int
    recovered_bytes: int
    links: dict[str, float]
    counted: dict[str, int]
    rows: list[Row]
    vectors: str = "real"
    slot_bytes: int = 0
    assumptions: tuple[str, ...] = ()
    published: dict[str, str] = field(default_factory=dict)
    wire_body_bytes: int = 0
    mode: str = "model"

    @property
    def round_seconds(self) -> list[float]:
        """From opening to record, of each sealed round."""
        return [one.sealed - one.opened for one in self.rounds]

    def of(self, event: str) -> list[Row]:
        """Return the kept rows of one kind."""
        return [row for row in self.rows if row.event == event]

    def figures(self) -> dict[str, float]:
        """Return the figures that are compared between runs."""
        durations = self.round_seconds
        span = self.rounds[-1].sealed - self.rounds[0].opened if self.rounds else 0.0
        found = {
            "rounds": float(len(self.rounds)),
            "aborted": float(len(self.aborted)),
            "virtual_s": self.seconds,
            "round_median_s": median(durations) if durations else 0.0,
            "round_max_s": max(durations, default=0.0),
            "participants_min": float(min((r.participants for r in self.rounds), default=0)),
            "messages_queued": float(self.queued),
            "messages_recovered": float(self.recovered),
            "messages_delivered": float(len(self.latencies)),
            "latency_median_s": quantile(self.latencies, 0.5),
            "latency_p99_s": quantile(self.latencies, 0.99),
            "recovered_kb_per_s": self.recovered_bytes / 1000 / span if span else 0.0,
            "slots_void": float(sum(r.void for r in self.rounds)),
            "slots_used": float(sum(r.used for r in self.rounds)),
        }
        if self.vectors == "cost" and durations:
            # All slots full, which a cost-only round does not carry but is charged for.
            payload = self.slots * (self.slot_bytes - 46)
            found["payload_mb"] = payload / 1e6
            found["capacity_mb_per_s"] = payload / 1e6 / median(durations)
        return found


def quantile(values: list[float], share: float) -> float:
    """Return a quantile by rank, 0 where there are no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]

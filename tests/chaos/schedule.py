"""Which faults happen when: a function of the seed and nothing else."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KINDS", "ON_DISKS", "Fault", "draw_schedule"]

KINDS = (
    *("kill", "kill", "pause", "delay", "stall", "cut", "partition", "loss"),
    *("skew", "slow-disk", "full-disk", "memory"),
)
#: What only a server has: an aggregator keeps nothing, and is killed instead.
ON_DISKS = ("slow-disk", "full-disk")
_GAP_S = (1.5, 4.0)
_LASTS_S = (0.5, 3.0)


@dataclass(frozen=True)
class Fault:
    """One fault of one node; times in seconds from the start of the run."""

    at_s: float
    lasts_s: float
    kind: str
    node: str


def draw_schedule(seed: int, nodes: Sequence[str], duration_s: float) -> list[Fault]:
    """Return the faults of a run, in order; they end before it does."""
    draw = random.Random(seed)
    faults: list[Fault] = []
    at = 2.0
    while (at := at + draw.uniform(*_GAP_S)) < duration_s:
        lasts = draw.uniform(*_LASTS_S)
        faults.append(Fault(at, lasts, draw.choice(KINDS), draw.choice(list(nodes))))
    return faults

"""What an adversary came to know, as numbers with confidence intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

__all__ = ["Curve", "Finding", "Measure", "auc"]

_Z = 1.96


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: a value for each seed.

    Attributes:
        name: What it measures, with its unit.
        samples: One value for each seed.
    """

    name: str
    samples: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds; not a number where there are none."""
        return fmean(self.samples) if self.samples else math.nan

    @property
    def margin(self) -> float:
        """Half the width of the 95 % confidence interval of the mean."""
        if len(self.samples) < 2:  # noqa: PLR2004 - one sample has no spread
            return 0.0
        return _Z * stdev(self.samples) / math.sqrt(len(self.samples))

    def shown(self) -> str:
        """Return mean and interval as text."""
        return f"{self.mean:.4g} ± {self.margin:.2g} (n={len(self.samples)})"


@dataclass(frozen=True, slots=True)
class Curve:
    """A measure over rounds, averaged over seeds."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one adversary learned.

    Attributes:
        adversary: Its name.
        holds: Whether the protocol kept what it promises against it.
        text: That in a sentence.
        measures: Its measures.
        curves: What is worth a plot.
    """

    adversary: str
    holds: bool
    text: str
    measures: tuple[Measure, ...]
    curves: tuple[Curve, ...] = field(default=())

    def measure(self, name: str) -> Measure:
        """Return a measure by the beginning of its name."""
        return next(one for one in self.measures if one.name.startswith(name))


def auc(positive: Sequence[float], negative: Sequence[float], *, folded: bool = True) -> float:
    """Return how well a score tells two samples apart: 0.5 is guessing, 1 is certainty.

    Args:
        positive: Scores of one sample.
        negative: Scores of the other.
        folded: Let the better direction count, as somebody would who may choose it; guessing then
            comes out a little above 0.5 in small samples.
    """
    if not positive or not negative:
        return 0.5
    ranked = sorted([(v, 1) for v in positive] + [(v, 0) for v in negative])
    total, place = 0.0, 0
    while place < len(ranked):
        end = place
        while end < len(ranked) and ranked[end][0] == ranked[place][0]:
            end += 1
        mean_rank = (place + 1 + end) / 2
        total += mean_rank * sum(kind for _, kind in ranked[place:end])
        place = end
    n, m = len(positive), len(negative)
    area = (total - n * (n + 1) / 2) / (n * m)
    return max(area, 1 - area) if folded else area

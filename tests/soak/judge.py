"""What a soak's samples say: pure, so that it is tested without a soak (row A10).

Rules:

1. The first fifth of a run is warm-up: imports, caches, first registrations, first compactions.
2. A process's open descriptors at the end are what they were after the warm-up: the medians of the
   first and the last third of the rest differ by at most one. A connection that is being renewed
   while a sample is taken does not count as a leak; one that stays does.
3. Its resident memory grows by less than a tenth over the rest, by the line through all samples.
4. The p99 of the time a round takes is flat: the last third's is at most half as long again as the
   first third's, and at most one second longer.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Finding", "Sample", "judge", "judge_latency", "p99"]

WARM_UP_SHARE = 0.2
MAX_GROWTH = 0.10
MAX_DESCRIPTOR_DRIFT = 1
MAX_P99_RATIO = 1.5
MAX_P99_SLACK_S = 1.0
LEAST_SAMPLES = 6
LEAST_ROUNDS = 30


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process: seconds since the start, open descriptors, resident bytes."""

    at_s: float
    descriptors: int
    resident: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of one process, and whether it is what it should be."""

    subject: str
    measure: str
    value: str
    ok: bool


def judge(samples: Mapping[str, Sequence[Sample]]) -> list[Finding]:
    """Judge each process by its samples, in time order.

    Raises:
        ValueError: When a process has too few samples for a judgement.
    """
    found: list[Finding] = []
    for name, taken in samples.items():
        rest = _after_warm_up(taken)
        if len(rest) < LEAST_SAMPLES:
            raise ValueError(f"{name} has {len(rest)} samples after the warm-up: too few")
        third = max(2, len(rest) // 3)
        before = statistics.median(sample.descriptors for sample in rest[:third])
        after = statistics.median(sample.descriptors for sample in rest[-third:])
        drift = after - before
        found.append(
            Finding(name, "descriptors", f"{before:g} -> {after:g}", drift <= MAX_DESCRIPTOR_DRIFT)
        )
        growth = _growth(rest)
        found.append(Finding(name, "resident memory", f"{growth:+.1%}", growth < MAX_GROWTH))
    return found


def judge_latency(rounds: Sequence[tuple[float, float]]) -> Finding:
    """Judge when rounds were final and how many seconds each had taken.

    Raises:
        ValueError: When there are too few rounds for a judgement.
    """
    ordered = sorted(rounds)
    rest = ordered[int(len(ordered) * WARM_UP_SHARE) :]
    if len(rest) < LEAST_ROUNDS:
        raise ValueError(f"{len(rest)} rounds after the warm-up: too few")
    third = len(rest) // 3
    first = p99([took for _, took in rest[:third]])
    last = p99([took for _, took in rest[-third:]])
    ok = last <= min(first * MAX_P99_RATIO, first + MAX_P99_SLACK_S)
    return Finding("rounds", "p99", f"{first:.2f} s -> {last:.2f} s", ok)


def p99(values: Sequence[float]) -> float:
    """Return the value that 99 of 100 do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def _after_warm_up(taken: Sequence[Sample]) -> list[Sample]:
    if not taken:
        return []
    begin, end = taken[0].at_s, taken[-1].at_s
    return [sample for sample in taken if sample.at_s >= begin + (end - begin) * WARM_UP_SHARE]


def _growth(rest: Sequence[Sample]) -> float:
    """Growth over the samples by the line of least squares, as a share of where it begins."""
    times = [sample.at_s for sample in rest]
    slope, start = statistics.linear_regression(times, [float(s.resident) for s in rest])
    begin = start + slope * times[0]
    return slope * (times[-1] - times[0]) / begin

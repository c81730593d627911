"""What a soak is judged by would see a leak, and does not cry wolf."""

from __future__ import annotations

import random

import pytest

from tests.soak.judge import Finding, Sample, judge, judge_latency

COUNT = 120
MIB = 2**20


def run(*, leak: float = 0.0, grow: float = 0.0, warm_up: int = 0) -> list[Sample]:
    """Samples of a process: descriptors leaked, and share of memory grown, over the whole run."""
    draw = random.Random(7)
    samples = []
    for number in range(COUNT):
        share = number / COUNT
        descriptors = 30 + int(leak * share) + draw.choice([0, 0, 0, 2])
        noise = draw.uniform(-0.5, 0.5) * MIB
        resident = int(100 * MIB * (1 + grow * share) + noise)
        if number < warm_up:
            resident = int(resident * 0.6)
        samples.append(Sample(number * 15.0, descriptors, resident))
    return samples


def of(found: list[Finding], measure: str) -> Finding:
    (one,) = [finding for finding in found if finding.measure == measure]
    return one


@pytest.mark.requirement("A10")
def test_a_steady_process_passes_whatever_its_start_was_like() -> None:
    assert all(finding.ok for finding in judge({"s0": run(grow=0.05, warm_up=20)}))


@pytest.mark.requirement("A10")
def test_a_descriptor_lost_now_and_then_is_seen() -> None:
    found = judge({"s0": run(leak=6)})
    assert not of(found, "descriptors").ok
    assert of(found, "resident memory").ok


@pytest.mark.requirement("A10")
def test_memory_that_grows_by_a_fifth_is_seen() -> None:
    found = judge({"s0": run(grow=0.2)})
    assert not of(found, "resident memory").ok
    assert of(found, "descriptors").ok


def test_each_process_is_judged_alone() -> None:
    found = judge({"s0": run(), "s1": run(grow=0.3)})
    assert {finding.subject for finding in found if not finding.ok} == {"s1"}


@pytest.mark.parametrize(("last", "ok"), [(2.0, True), (2.8, True), (4.0, False)])
def test_rounds_that_get_slower_are_seen(last: float, ok: bool) -> None:
    rounds = [(float(n), 2.0 if n < 200 else last) for n in range(300)]
    assert judge_latency(rounds).ok is ok


def test_too_little_is_no_judgement() -> None:
    with pytest.raises(ValueError, match="too few"):
        judge({"s0": run()[:4]})
    with pytest.raises(ValueError, match="too few"):
        judge_latency([(1.0, 2.0)] * 10)

"""One short seed of ``make chaos``; the schedule is the seed's and nothing else's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.check import require_exactly_once
from tests.chaos.run import run_seed
from tests.chaos.schedule import draw_schedule

SEED = 4
SECONDS = 20.0


def test_a_seed_gives_the_same_faults_every_time_and_another_seed_others() -> None:
    nodes = ["s0", "s1", "root"]
    assert draw_schedule(7, nodes, 60) == draw_schedule(7, nodes, 60)
    assert draw_schedule(7, nodes, 60) != draw_schedule(8, nodes, 60)
    assert all(fault.at_s < 60 for fault in draw_schedule(7, nodes, 60))


@pytest.mark.parametrize(
    ("read", "complaint"),
    [([b"a"], "lost"), ([b"a", b"b", b"b"], "twice"), ([b"a", b"b", b"c"], "nobody sent")],
)
def test_a_lost_a_doubled_and_a_strange_message_are_told(read: list[bytes], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        require_exactly_once(Counter(read), [b"a", b"b"], [b"a", b"b"])


@pytest.mark.timeout(300)
@pytest.mark.requirement("A12")
async def test_nothing_acknowledged_is_lost_under_faults_of_a_seed(tmp_path: Path) -> None:
    outcome = await run_seed(SEED, SECONDS, tmp_path)
    print(outcome)
    assert outcome.faults
    assert outcome.recovered == len(outcome.acknowledged)

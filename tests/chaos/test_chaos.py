"""One short seed of ``make chaos``; the schedule is the seed's and nothing else's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.check import require_exactly_once, require_sound_logs
from tests.chaos.run import run_seed
from tests.chaos.schedule import draw_schedule

SEED = 4
SECONDS = 15.0


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


def logs(first: str, second: str, released: list[int]) -> Any:  # noqa: ANN401 - a network's outside
    """What the check asks of a network; a record is a place and a letter, such as ``0a``."""
    kept = {
        name: [told(word) for word in text.split()] for name, text in enumerate((first, second))
    }
    return SimpleNamespace(
        server_nodes=[SimpleNamespace(name=name) for name in kept],
        records=kept.__getitem__,
        releases=lambda _name: [SimpleNamespace(round=number) for number in released],
    )


def told(word: str) -> SimpleNamespace:
    content = SimpleNamespace(sequence=int(word[0]))
    return SimpleNamespace(hash=word, record=SimpleNamespace(content=content))


def test_a_fork_a_gap_and_a_second_release_are_told() -> None:
    assert require_sound_logs(logs("0a 1b", "0a", [1, 2])) == 2
    for bad, complaint in (
        (logs("0a 1b", "0x", []), "forks"),
        (logs("0a 2c", "0a", []), "gap"),
        (logs("0a", "0a", [3, 3]), "released twice"),
    ):
        with pytest.raises(AssertionError, match=complaint):
            require_sound_logs(bad)


@pytest.mark.timeout(300)
@pytest.mark.requirement("A12")
async def test_nothing_acknowledged_is_lost_under_faults_of_a_seed(tmp_path: Path) -> None:
    outcome = await run_seed(SEED, SECONDS, tmp_path)
    print(outcome)
    assert outcome.faults
    assert outcome.recovered == len(outcome.acknowledged)

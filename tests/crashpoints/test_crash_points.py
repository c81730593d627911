"""A few of the crash points of ``make crashpoints``, other ones each time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.crashpoints.run import Hunt

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)
TRIED = 3


@pytest.mark.requirement("L10")
@pytest.mark.requirement("L1")
async def test_servers_that_die_at_their_durable_writes_and_sends_lose_and_double_nothing(
    tmp_path: Path,
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed={seed}")
    outcome = await Hunt(tmp_path, most=TRIED, seed=seed, noting=6).run()
    print(outcome)
    if not outcome.died:  # one point in six is not reached again; now and then it is all of them
        again = tmp_path / "again"
        again.mkdir()
        outcome = await Hunt(again, most=TRIED, seed=seed + 1, noting=6).run()
        print(outcome)
    kinds = {point.split()[1] for point in outcome.points}
    assert {"pwrite", "fsync", "ftruncate", "replace", "unlink", "send"} <= kinds
    assert any("releases.journal" in point for point in outcome.points)
    assert any("CONSENSUS" in point and "PostPartial" in point for point in outcome.points)
    assert outcome.died, outcome.unreached

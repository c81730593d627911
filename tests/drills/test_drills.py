"""The drills that every test run can afford, and what a drill would say if a node gave way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.drills.attacks import DRILLS, QUICK, Drill
from tests.drills.run import run_drills
from tests.drills.world import World

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

NAMES = {
    "oversize-frame", "decompression-bomb", "quota-storm", "policy-outage", "bad-proof",
    "socket-permissions", "replay", "degraded-delivery", "slow-loris", "handshake-flood",
    "unknown-fields", "clock-jump",
}  # fmt: skip


def test_all_twelve_drills_are_there() -> None:
    assert {drill.name for drill in DRILLS} == NAMES
    assert len(DRILLS) == len(NAMES)


@pytest.mark.requirement("A11")
async def test_live_nodes_take_the_quick_drills_and_a_node_that_gave_way_would_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def gives_way(_world: World, _until: float) -> tuple[str, str]:
        raise AssertionError("it gave way")

    async with World(tmp_path, attested=False) as world:
        drills = (*QUICK, Drill("gives-way", "-", gives_way))
        *outcomes, broken = await run_drills(
            world, drills, window_s=1.5, quiet_s=2.5, least_ratio=0.0
        )
    # A short window may hold no round at all; whether the pace is kept is `make drills`.
    kept = [outcome.wrong for outcome in outcomes if outcome.rounds]
    assert kept == [None] * len(kept)
    assert all(outcome.response != "-" for outcome in outcomes)
    assert broken.wrong == "AssertionError: it gave way"
    printed = capsys.readouterr().out
    for word in ("attack", "response", "metric", "pace", "memory"):
        assert word in printed

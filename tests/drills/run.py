"""``make drills``: every drill against one live network, each with attack, response and metric.

A drill fails when the node does not respond as it must, when the rounds of honest publishers lose
their pace, or when a node's memory has a spike. The exit status is how many failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.drills.attacks import DRILLS, Drill
from tests.drills.world import COVERS, World

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Outcome", "run_drills"]

WINDOW_S = 8.0
QUIET_S = 10.0
LEAST_RATIO = 0.6
"""Attacker, nodes and publishers share a machine: what the attacker itself uses is lost too."""
MOST_GROWTH_MIB = 48.0


@dataclass(frozen=True)
class Outcome:
    """How a drill went.

    Attributes:
        name: The drill.
        response: What the node did.
        metric: What it counted.
        ratio: Rounds a second, of those in quiet.
        growth_mib: Most any node grew by meanwhile.
        rounds: Rounds that became final meanwhile.
        wrong: What was not as it must be; None when all was.
    """

    name: str
    response: str
    metric: str
    ratio: float
    growth_mib: float
    rounds: float
    wrong: str | None


async def run_drills(
    world: World,
    drills: Sequence[Drill],
    *,
    window_s: float = WINDOW_S,
    quiet_s: float = QUIET_S,
    least_ratio: float = LEAST_RATIO,
) -> list[Outcome]:
    """Run drills one after the other in a world that has started; prints each as it ends.

    Args:
        world: What is attacked.
        drills: Which.
        window_s: Seconds each is measured for, at least.
        quiet_s: Seconds without an attack that it is compared with.
        least_ratio: Pace that must be left of the quiet one's; one round more or less is much of a
            short window.
    """
    async with world.measured(quiet_s) as quiet:
        pass
    _say(f"quiet: {quiet[0].per_s:.2f} rounds a second, {quiet[0].participants} participants")
    per_s = quiet[0].per_s
    return [await _run_one(world, drill, per_s, window_s, least_ratio) for drill in drills]


async def _run_one(
    world: World, drill: Drill, quiet_per_s: float, window_s: float, least_ratio: float
) -> Outcome:
    wrong: str | None = None
    response = metric = "-"
    async with world.measured(window_s) as measured:
        try:
            response, metric = await drill.attack(world, time.monotonic() + window_s)
        except (AssertionError, OSError, TimeoutError) as error:
            wrong = f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - one drill's mistake must not hide the others
            wrong = f"the drill itself failed: {type(error).__name__}: {error}"
    pace = measured[0]
    ratio = pace.per_s / quiet_per_s if quiet_per_s else 0.0
    if wrong is None and ratio < least_ratio:
        wrong = f"rounds lost their pace: {ratio:.2f} of it is left"
    if wrong is None and pace.rounds and pace.participants < COVERS:
        wrong = f"honest publishers were left out: a round had {pace.participants}"
    if wrong is None and pace.most_mib > MOST_GROWTH_MIB:
        wrong = f"a node grew by {pace.most_mib:.0f} MiB"
    _say(
        f"\n{'FAILED' if wrong else 'ok    '} {drill.name}\n"
        f"   attack    {drill.what}\n"
        f"   response  {response}\n"
        f"   metric    {metric}\n"
        f"   honest    pace {ratio:.2f} of quiet ({pace.rounds:g} rounds in {pace.seconds:.1f} s, "
        f"{pace.participants} participants), memory +{pace.most_mib:.1f} MiB"
        + (f"\n   wrong     {wrong}" if wrong else "")
    )
    return Outcome(drill.name, response, metric, ratio, pace.most_mib, pace.rounds, wrong)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def _main(names: list[str]) -> int:
    chosen = [drill for drill in DRILLS if not names or drill.name in names]
    with tempfile.TemporaryDirectory(prefix="zipnet-drills-") as folder:
        async with World(Path(folder)) as world:
            outcomes = await run_drills(world, chosen)
    failed = [outcome.name for outcome in outcomes if outcome.wrong]
    worst = min((outcome.ratio for outcome in outcomes), default=0.0)
    most = max((outcome.growth_mib for outcome in outcomes), default=0.0)
    _say(
        f"\n{len(outcomes) - len(failed)} of {len(outcomes)} drills passed; worst pace "
        f"{worst:.2f} of quiet, most memory +{most:.1f} MiB"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return len(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Attack a live network and look how it takes it.")
    parser.add_argument("names", nargs="*", help="drills to run; all when none is named")
    sys.exit(asyncio.run(_main(parser.parse_args().names)))

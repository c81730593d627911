"""``make chaos SEED=…``: faults drawn from the seed, thrown at real processes; then all is checked.

Odd seeds run five servers of which one may be absent, even ones three of which none may.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import zipnet
from tests.chaos.check import read_all, require_exactly_once, require_sound_logs
from tests.chaos.schedule import draw_schedule
from tests.chaos.world import World
from zipnet.errors import PublishError

__all__ = ["Outcome", "run_seed"]

PUBLISHERS = 4
PUBLISH_S = 90.0


@dataclass
class Outcome:
    """What a run came to; counts, and seconds."""

    seed: int
    faults: int = 0
    sent: list[bytes] = field(default_factory=list)
    acknowledged: list[bytes] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    recovered: int = 0
    records: int = 0
    restarts_s: list[float] = field(default_factory=list)
    safe_modes: int = 0
    starved: int = 0

    def __str__(self) -> str:
        """Return the line that is printed."""
        median = f"{statistics.median(self.restarts_s):.2f}s" if self.restarts_s else "none"
        return (
            f"chaos ok: seed={self.seed} faults={self.faults} "
            f"acknowledged={len(self.acknowledged)} recovered={self.recovered} "
            f"restart_to_ready_median={median} restarts={len(self.restarts_s)} "
            f"records={self.records} not_acknowledged={len(self.refused)} "
            f"safe_modes={self.safe_modes} starved={self.starved}"
        )


async def run_seed(seed: int, duration_s: float, folder: Path) -> Outcome:
    """Run one seed and check what it left.

    Raises:
        AssertionError: When an invariant does not hold; it says which.
    """
    five = seed % 2 == 1
    world = World(folder, servers=5 if five else 3, max_absent=int(five), seed=seed)
    outcome = Outcome(seed)
    try:
        await world.start()
        await _trouble(world, outcome, duration_s)
        read = await read_all(world.network)
    finally:
        await world.close()
    outcome.faults, outcome.restarts_s = world.applied, world.restarts_s
    outcome.safe_modes, outcome.starved = world.safe_modes, world.starved
    outcome.recovered = require_exactly_once(read, outcome.acknowledged, outcome.sent)
    outcome.records = require_sound_logs(world.network)
    assert outcome.acknowledged, "nothing was acknowledged: the run shows nothing"
    return outcome


async def _trouble(world: World, outcome: Outcome, duration_s: float) -> None:
    """Publish without a pause while the schedule runs; returns when every publish has its end."""
    async with AsyncExitStack() as stack:
        made = [
            zipnet.Publisher(world.network.descriptor, transport="quic" if number % 2 else "tls")
            for number in range(PUBLISHERS)
        ]
        for publisher in made:
            await stack.enter_async_context(publisher)
        for publisher in made:
            await publisher.when.registered()
        began = time.monotonic()
        schedule = draw_schedule(outcome.seed, list(world.network.nodes), duration_s)
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                group.create_task(world.bring(fault, began))
            for number, publisher in enumerate(made):
                group.create_task(_publish(publisher, number, outcome, began + duration_s))


async def _publish(
    publisher: zipnet.Publisher, number: int, outcome: Outcome, until: float
) -> None:
    count = 0
    while time.monotonic() < until:
        count += 1
        text = f"seed {outcome.seed} publisher {number} message {count}".encode()
        outcome.sent.append(text)
        try:
            await publisher.publish(text, timeout=PUBLISH_S)
        except PublishError as error:
            outcome.refused.append(f"{text.decode()}: {type(error).__name__}: {error}")
        else:
            outcome.acknowledged.append(text)


async def _stoppable(seed: int, duration_s: float, folder: Path) -> Outcome:
    """Let SIGTERM unwind the run, so that no node outlives it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run_seed(seed, duration_s, folder)


def main() -> int:
    """Run the seeds asked for, one after the other."""
    parser = argparse.ArgumentParser(description="throw faults at real processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=2.0)
    options = parser.parse_args()
    failed = 0
    done: list[Outcome] = []
    for seed in range(options.seed, options.seed + options.seeds):
        print(f"chaos: seed={seed} minutes={options.minutes:g}", flush=True)
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
        try:
            done.append(asyncio.run(_stoppable(seed, options.minutes * 60, folder)))
            print(done[-1], flush=True)
            shutil.rmtree(folder)
        except (AssertionError, ExceptionGroup, zipnet.ZipnetError) as error:
            failed += 1
            print(f"chaos FAILED: seed={seed} {error!r}; logs in {folder}", flush=True)
    print(_total(done, failed), flush=True)
    return 1 if failed else 0


def _total(done: list[Outcome], failed: int) -> str:
    """Return the last line: what all seeds came to."""
    restarts = [taken for outcome in done for taken in outcome.restarts_s]
    median = f"{statistics.median(restarts):.2f}s" if restarts else "none"
    return (
        f"chaos total: ok={len(done)} failed={failed} "
        f"acknowledged={sum(len(outcome.acknowledged) for outcome in done)} "
        f"recovered={sum(outcome.recovered for outcome in done)} "
        f"restart_to_ready_median={median} restarts={len(restarts)}"
    )


if __name__ == "__main__":
    sys.exit(main())

"""``make crashpoints``: let servers die at every durable write and send of a round, one by one.

A network of processes seals rounds under load. First its servers only note the points they come by.
Then each point, before, after and torn, is where one of them is killed; it is started again and the
next point is armed. At the end nothing acknowledged may be lost, no record may fork, and no server
may have released two partials for a round.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.network import LiveNetwork, Node, wait_for
from zipnet.protocol.params import Cadence
from zipnet.sdk import Publisher

__all__ = ["Hunt", "Outcome"]

CADENCE = Cadence(round_period_ms=200, fold_deadline_ms=1000, round_deadline_ms=4000)
PUBLISHERS = 3
NOTING_ROUNDS = 25
REACH_S = 5.0
ATTEMPTS = 2
#: A snapshot of the consensus log every few rounds, so that its points are come by.
SNAPSHOT_EVERY = "40"


@dataclass
class Outcome:
    """What a hunt came to.

    Attributes:
        points: Every point found, with its moment.
        died: Those at which a server died.
        unreached: Those tried that no server came by again in time.
        acknowledged: Messages with a receipt, and whether each stands in the records.
        records: Records at the end.
    """

    points: list[str] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)
    acknowledged: int = 0
    recovered: int = 0
    records: int = 0

    def __str__(self) -> str:
        """Return the line that is printed."""
        return (
            f"points={len(self.points)} died_at={len(self.died)} unreached={len(self.unreached)} "
            f"acknowledged={self.acknowledged} recovered={self.recovered} records={self.records}"
        )


class Hunt:
    """A network whose servers die where they are told to.

    Args:
        folder: Everything is in here.
        most: How many points to try; None for all.
        seed: Which, and in which order.
        noting: Rounds in which points are found, twice.
    """

    def __init__(
        self, folder: Path, *, most: int | None, seed: int, noting: int = NOTING_ROUNDS
    ) -> None:
        self.outcome = Outcome()
        self._noting = noting
        self._most = most
        self._draw = random.Random(seed)
        self._network = LiveNetwork(folder, cadence=CADENCE)
        self._receipts: list[tuple[int, int]] = []
        for node in self._network.server_nodes:
            control = self._control(node)
            control.mkdir()
            node.program = ("tests.crashpoints.instrument", str(control))
            node.environment["ZIPNET_SNAPSHOT_EVERY"] = SNAPSHOT_EVERY

    def _control(self, node: Node) -> Path:
        return self._network.folder / f"{node.name}.points"

    async def run(self) -> Outcome:
        """Find the points, die at them, and check what is left.

        Raises:
            AssertionError: When something was lost, forked or doubled.
        """
        try:
            await asyncio.to_thread(self._network.start)
            async with AsyncExitStack() as stack:
                publishers = [
                    await stack.enter_async_context(
                        Publisher(self._network.descriptor, transport="tls")
                    )
                    for _ in range(PUBLISHERS)
                ]
                stop = asyncio.Event()
                async with asyncio.TaskGroup() as group:
                    for number, publisher in enumerate(publishers):
                        group.create_task(self._publish(publisher, number, stop))
                    await asyncio.to_thread(self._die_everywhere)
                    stop.set()
        finally:
            await asyncio.to_thread(self._network.close)
        self._check()
        return self.outcome

    async def _publish(self, publisher: Publisher, number: int, stop: asyncio.Event) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            receipt = await publisher.publish(f"{number} says {count}".encode(), timeout=180)
            self._receipts.extend((p.sequence, p.slot) for p in receipt.placements)

    # -- dying ---------------------------------------------------------------------------------

    def _die_everywhere(self) -> None:
        self._find()
        tried = list(self.outcome.points)
        self._draw.shuffle(tried)
        for number, point in enumerate(tried[: self._most]):
            reached = self._die_at(point)
            (self.outcome.died if reached else self.outcome.unreached).append(point)
            word = "died" if reached else "not reached"
            print(f"{number + 1:4}/{len(tried[: self._most])} {word}: {point}", flush=True)

    def _find(self) -> None:
        """Let the servers note their points, through a change of leader."""
        first = self._network.server_nodes[0]
        self._wait_rounds(first, self._noting)
        leader = self._leader()
        leader.kill()
        self._start(leader)
        self._wait_rounds(first, self._noting)
        found: set[str] = set()
        for node in self._network.server_nodes:
            found.update((self._control(node) / "points").read_text().splitlines())
        self.outcome.points = sorted(found)

    def _die_at(self, point: str) -> bool:
        """Have some server die at a point and start it again; False when none came by it."""
        for attempt in range(ATTEMPTS):
            leader = self._leader()
            followers = [node for node in self._network.server_nodes if node is not leader]
            self._draw.shuffle(followers)
            # The leader first: most of what it does the others do as well.
            for victim in (leader, *followers):
                if self._arm(victim, point):
                    return True
            if attempt < ATTEMPTS - 1:
                leader.kill()
                self._start(leader)
        return False

    def _arm(self, victim: Node, point: str) -> bool:
        arm = self._control(victim) / "arm"
        arm.write_text(point)
        end = time.monotonic() + REACH_S
        while victim.is_running() and time.monotonic() < end:
            time.sleep(0.02)
        died = not victim.is_running()
        arm.unlink()
        if not died:
            victim.kill()  # it has read the order already
        self._start(victim)
        return died

    def _start(self, node: Node) -> None:
        node.start()
        node.wait_ready()
        self._wait_rounds(node, 1)

    def _wait_rounds(self, node: Node, more: int) -> None:
        before = node.metric("zipnet_rounds_finalized_total")
        wait_for(
            lambda: node.metric("zipnet_rounds_finalized_total") >= before + more,
            f"{node.name} to finalise {more} rounds",
        )

    def _leader(self) -> Node:
        found: list[Node] = []

        def look() -> bool:
            leader = self._network.leader()
            found.extend([leader] if leader is not None else [])
            return bool(found)

        wait_for(look, "a leader")
        return found[-1]

    # -- checking ------------------------------------------------------------------------------

    def _check(self) -> None:
        names = [node.name for node in self._network.server_nodes]
        logs = [self._network.records(name) for name in names]
        longest = max(logs, key=len)
        for log in logs:
            ours = [record.hash for record in log]
            assert ours == [record.hash for record in longest[: len(log)]], "records fork"
        for name in names:
            counts = Counter(int(released.round) for released in self._network.releases(name))
            doubled = [number for number, count in counts.items() if count > 1]
            assert not doubled, f"{name} released twice in rounds {doubled}"
        outcome = self.outcome
        outcome.records = len(longest)
        outcome.acknowledged = len(self._receipts)
        lost = [(s, slot) for s, slot in self._receipts if slot not in longest[s].fragments]
        outcome.recovered = len(self._receipts) - len(lost)
        assert self._receipts, "nothing was acknowledged: the hunt shows nothing"
        assert not lost, f"acknowledged and lost: {lost}"


def main() -> int:
    """Hunt and print what came of it."""
    parser = argparse.ArgumentParser(description="kill servers at every durable write and send")
    parser.add_argument("--most", type=int, default=None, help="try this many points only")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"crashpoints: seed={options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="crashpoints-") as folder:
        outcome = asyncio.run(Hunt(Path(folder), most=options.most, seed=options.seed).run())
    for point in outcome.unreached:
        print(f"not reached again: {point}")
    print(f"crashpoints ok: {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

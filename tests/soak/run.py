"""``make soak MINUTES=30``: a network of processes under steady load, sampled and judged.

Three servers, two leaves below a root, publishers that talk now and then and one that comes and
goes, a reader that follows. Samples and plot are kept below ``out/soak``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import zipnet
from sim.report.plots import Plot, Series, draw
from tests.harness.network import LiveNetwork
from tests.soak.judge import Finding, Sample, judge, judge_latency
from zipnet.errors import PublishError
from zipnet.machines.reader import Advanced, Message
from zipnet.protocol.params import Cadence

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Soak", "soak"]

TREE: dict[str, str | None] = {"root": None, "leaf-a": "root", "leaf-b": "root"}
CADENCE = Cadence(round_period_ms=1000, fold_deadline_ms=2000, round_deadline_ms=10_000)
PUBLISHERS = 4
TALK_S = 5.0
GUEST_S = 30.0
SAMPLES = 120
MAX_SAMPLE_S = 10.0
PUBLISH_S = 60.0


@dataclass
class Soak:
    """What a soak came to.

    Attributes:
        samples: By process.
        rounds: Seconds since the start when a round was final, and seconds it had taken.
        acknowledged: Receipts.
        failed: Messages without one.
        recovered: Messages a reader was told of.
    """

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    rounds: list[tuple[float, float]] = field(default_factory=list)
    acknowledged: int = 0
    failed: list[str] = field(default_factory=list)
    recovered: int = 0

    def findings(self) -> list[Finding]:
        """Judge the run.

        Raises:
            ValueError: When it was too short for a judgement.
        """
        lost = self.acknowledged - self.recovered
        said = f"acknowledged={self.acknowledged} recovered={self.recovered}"
        return [
            *judge(self.samples),
            judge_latency(self.rounds),
            Finding("messages", "lost", said, lost <= 0 and not self.failed),
        ]


async def soak(folder: Path, seconds: float) -> Soak:
    """Run a network for a while and return what was seen of it."""
    made = Soak()
    network = LiveNetwork(folder, tree=dict(TREE), cadence=CADENCE)
    try:
        await asyncio.to_thread(network.start)
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            publishers = [
                await stack.enter_async_context(_publisher(network)) for _ in range(PUBLISHERS)
            ]
            for publisher in publishers:
                await publisher.when.registered()
            async with asyncio.TaskGroup() as group:
                following = group.create_task(_follow(network, made, began))
                talks = [
                    group.create_task(_talk(publisher, number, made, began + seconds))
                    for number, publisher in enumerate(publishers)
                ]
                talks.append(group.create_task(_come_and_go(network, made, began + seconds)))
                talks.append(group.create_task(_sample(network, made, began, seconds)))
                await asyncio.wait(talks)
                await _until(lambda: made.recovered >= made.acknowledged, PUBLISH_S)
                following.cancel()
    finally:
        await asyncio.to_thread(network.close)
    return made


def _publisher(network: LiveNetwork) -> zipnet.Publisher:
    return zipnet.Publisher(network.descriptor, transport="tls", on_warning=lambda _text: None)


async def _talk(publisher: zipnet.Publisher, number: int, made: Soak, until: float) -> None:
    count = 0
    while time.monotonic() < until:
        count += 1
        await _say(publisher, f"{number} says {count}", made)
        await asyncio.sleep(TALK_S)


async def _come_and_go(network: LiveNetwork, made: Soak, until: float) -> None:
    """A client that registers, says one thing and leaves, again and again."""
    count = 0
    while time.monotonic() < until:
        count += 1
        async with _publisher(network) as publisher:
            await _say(publisher, f"guest {count}", made)
        await asyncio.sleep(GUEST_S)


async def _say(publisher: zipnet.Publisher, text: str, made: Soak) -> None:
    try:
        await publisher.publish(text.encode(), timeout=PUBLISH_S)
    except PublishError as error:
        made.failed.append(f"{text}: {error}")
    else:
        made.acknowledged += 1


async def _follow(network: LiveNetwork, made: Soak, began: float) -> None:
    """Count messages as a reader is told of them, and time rounds by their records."""
    reader = zipnet.Reader(network.descriptor, transport="tls", from_sequence=0, follow=True)
    async with reader:
        async for event in reader.events():
            if isinstance(event, Message):
                made.recovered += 1
            elif isinstance(event, Advanced):
                header = event.record.record.content.header
                took = time.time() - header.opened_at_ms / 1000
                made.rounds.append((time.monotonic() - began, took))


async def _sample(network: LiveNetwork, made: Soak, began: float, seconds: float) -> None:
    pause = min(MAX_SAMPLE_S, seconds / SAMPLES)
    while (now := time.monotonic()) < began + seconds:
        for name, node in network.nodes.items():
            seen = psutil.Process(node.pid)
            sample = Sample(now - began, seen.num_fds(), seen.memory_info().rss)
            made.samples.setdefault(name, []).append(sample)
        await asyncio.sleep(pause)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # noqa: ASYNC110 - ends by itself
        await asyncio.sleep(0.2)


def write(made: Soak, folder: Path) -> None:
    """Keep samples and plots."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "samples": {name: [asdict(s) for s in taken] for name, taken in made.samples.items()},
        "rounds": made.rounds,
        "acknowledged": made.acknowledged,
        "recovered": made.recovered,
        "failed": made.failed,
    }
    (folder / "soak.json").write_text(json.dumps(data) + "\n")
    for plot in _plots(made):
        (folder / f"{plot.name}.svg").write_text(draw(plot))


def _plots(made: Soak) -> list[Plot]:
    def of(pick: Callable[[Sample], float]) -> list[Series]:
        return [
            Series(name, [(s.at_s / 60, pick(s)) for s in taken])
            for name, taken in made.samples.items()
        ]

    descriptors, memory = of(lambda s: s.descriptors), of(lambda s: s.resident / 2**20)
    rounds = [Series("opening to record", [(at / 60, took) for at, took in made.rounds])]
    return [
        Plot("descriptors", "Open descriptors", "minutes", "descriptors", descriptors),
        Plot("memory", "Resident memory", "minutes", "MiB", memory),
        Plot("latency", "Time a round takes", "minutes", "seconds", rounds),
    ]


def main() -> int:
    """Run, keep what was seen, print the findings; 1 when one is not as it should be."""
    parser = argparse.ArgumentParser(description="run a network for long and watch it")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=Path("out") / "soak")
    options = parser.parse_args()
    print(f"soak: minutes={options.minutes:g} pid={os.getpid()}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        made = asyncio.run(_stoppable(Path(folder), options.minutes * 60))
    write(made, options.out)
    try:
        findings = made.findings()
    except ValueError as error:
        print(f"soak FAILED: {error}")
        return 1
    for found in findings:
        word = "ok" if found.ok else "NOT OK"
        print(f"{found.subject:8} {found.measure:16} {found.value:32} {word}")
    for line in made.failed:
        print(f"not acknowledged: {line}")
    ok = all(found.ok for found in findings)
    print(f"soak {'ok' if ok else 'FAILED'}: rounds={len(made.rounds)} plots in {options.out}")
    return 0 if ok else 1


async def _stoppable(folder: Path, seconds: float) -> Soak:
    """Let SIGTERM unwind the run, so that no node outlives it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await soak(folder, seconds)


if __name__ == "__main__":
    sys.exit(main())

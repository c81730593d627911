"""Talk and cover are alike to somebody who sees one publisher's packets (protocol.md §5.4).

The watched publisher runs in a process of its own behind a relay that notes every packet. In each
round either it or another client has something to say, drawn at random, so that the public record
looks the same either way; the observer guesses which of the two it was.

``make observer`` runs 2,400 rounds over each transport and writes plots to ``out/observer``.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import zipnet
from tests.harness.fake_network import FakeNetwork
from tests.harness.network import clean_environment, free_ports
from tests.harness.observer import Tap, auc, cross_validated, features_of, tap, write_plot

if TYPE_CHECKING:
    from asyncio.subprocess import Process

ROOT = Path(__file__).parents[3]
ROUNDS = int(os.environ.get("ZIPNET_OBSERVER_ROUNDS", "260"))
SEED = int(os.environ.get("ZIPNET_OBSERVER_SEED", "1"))
OUT = os.environ.get("ZIPNET_OBSERVER_OUT")
ROUND_S = 0.05
TRANSPORTS = ["tls", "quic"] if OUT else ["tls"]

CHILD = """
import asyncio, json, sys
import zipnet

async def main():
    descriptor = zipnet.load_descriptor(sys.argv[1])
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    sent = []
    async def publish(text):
        receipt = await publisher.publish(text, timeout=3600)
        sent.extend(int(p.round) for p in receipt.placements)
    async with zipnet.Publisher(
        descriptor, transport=sys.argv[2], on_warning=lambda text: None
    ) as publisher:
        await publisher.when.registered()
        print("registered", flush=True)
        tasks = set()
        while line := await reader.readline():
            if line.startswith(b"talk"):
                tasks.add(asyncio.create_task(publish(line)))
        await asyncio.gather(*tasks)
    print(json.dumps(sent), flush=True)

asyncio.run(main())
"""


@dataclass
class Seen:
    """One watched run.

    Attributes:
        opened: When each round was opened, by round number.
        sealed: When its record went out.
        mine: Rounds in which the watched client's messages stand.
        others: Rounds in which the other client's stand.
    """

    tap: Tap
    opened: dict[int, float] = field(default_factory=dict)
    sealed: dict[int, float] = field(default_factory=dict)
    mine: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)

    def labelled(self) -> list[tuple[int, bool]]:
        """Rounds in which exactly one of the two reserved or talked; True: the watched one."""
        talks = {r for sent in self.mine for r in (sent, sent - 1)}
        rests = {r for sent in self.others for r in (sent, sent - 1)}
        return sorted(
            (r, r in talks) for r in talks ^ rests if r in self.sealed and r + 1 in self.opened
        )


async def _start_child(network: FakeNetwork, folder: Path, transport: str) -> Process:
    (folder / "d.toml").write_bytes(network.committee.descriptor_bytes)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, str(folder / "d.toml"), transport),
        cwd=ROOT,
        env={**clean_environment(), "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"registered\n"
    return process


async def _run(transport: str, folder: Path) -> Seen:
    network = FakeNetwork(transport)
    shown = network.ports["root"]
    (network.ports["root"],) = free_ports(1)  # the descriptor's port is the relay's
    draw = random.Random(SEED)
    async with tap(transport, shown, network.ports["root"]) as noted, network:
        seen = Seen(noted)
        child = await _start_child(network, folder, transport)
        first = len(noted.packets)
        assert child.stdin is not None
        assert child.stdout is not None
        async with zipnet.Publisher(
            network.committee.descriptor, transport="tls" if transport == "tls" else "quic"
        ) as other:
            await other.when.registered()
            sending: set[asyncio.Task[zipnet.Receipt]] = set()
            began = time.monotonic()
            for number in range(ROUNDS):
                # A grid of time: when a round opens tells nothing about the one before.
                await asyncio.sleep(began + number * ROUND_S - time.monotonic())
                seen.opened[number + 1] = time.monotonic()
                assert await network.run_round(2), "both take part in every round"
                seen.sealed[number + 1] = time.monotonic()
                if number % 2 == 1:
                    watched = draw.random() < 0.5
                    text = b"talk %06d\n" % number
                    child.stdin.write(text if watched else text.replace(b"talk", b"rest"))
                    if not watched:
                        sending.add(asyncio.create_task(other.publish(text, timeout=3600)))
            last = asyncio.create_task(child.stdout.readline())
            async with asyncio.timeout(30):  # what is under way comes to its end
                while not all(task.done() for task in sending):
                    await network.run_round(2)
                child.stdin.close()
                while not last.done():
                    await network.run_round(2, wait_s=0.5)
                await child.wait()
            seen.mine = json.loads(await last)
            for receipt in await asyncio.gather(*sending):
                seen.others += [int(p.round) for p in receipt.placements]
    assert first < len(noted.packets), "the relay saw what it was to watch"
    return seen


@pytest.mark.timeout(900)
@pytest.mark.requirement("Z27")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_observer_of_the_packets_cannot_tell_talk_from_cover(
    transport: str, tmp_path: Path
) -> None:
    print(f"rounds={ROUNDS} seed={SEED}")
    seen = await _run(transport, tmp_path)
    rounds = seen.labelled()
    labels = np.array([talk for _, talk in rounds])
    rows = []
    sizes: dict[bool, set[int]] = {}  # of envelopes, by whether the round's number takes 3 bytes
    for number, _ in rounds:
        packets = seen.tap.between(seen.opened[number], seen.opened[number + 1])
        now = features_of(packets, seen.opened[number])
        before = seen.tap.between(seen.opened[number - 1], seen.opened[number])
        rows.append(now + features_of(before, seen.opened[number - 1]))
        if number >= 128:
            sizes.setdefault(number >= 256, set()).add(max(p.size for p in packets if p.up))
    table = np.array(rows)
    scores = cross_validated(table, labels, SEED)
    found = {name: auc(values, labels) for name, values in scores.items()}
    print(f"{transport}: {len(labels)} labelled rounds, {int(labels.sum())} with talk, AUC {found}")
    folder = Path(OUT) if OUT else tmp_path
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    title = f"{transport}: {len(labels)} rounds of one client, talk or cover"
    write_plot(folder / f"observer-{transport}.svg", title, table[:, 4], labels, scores)
    assert len(labels) >= 0.75 * ROUNDS
    assert 0.35 < labels.mean() < 0.65
    if transport == "tls":
        assert {len(found) for found in sizes.values()} == {1}, "every envelope is as long"
    # Chance alone strays by some standard deviations; with 2,000 rounds that is below 0.05.
    stray = 4 * np.sqrt((len(labels) + 1) / (12 * labels.sum() * (~labels).sum()))
    bound = 0.55 if OUT else 0.5 + max(stray, 0.05)
    assert max(found.values()) <= bound


async def test_the_same_observer_does_tell_them_apart_when_there_is_something_to_see() -> None:
    """What would pass a blind observer is no evidence: this one sees two milliseconds."""
    draw = np.random.default_rng(SEED)
    labels = draw.random(400) < 0.5
    table = draw.uniform(0, 0.010, (400, 6))
    table[:, 3] += np.where(labels, 0.002, 0.0)
    scores = cross_validated(table, labels, SEED)
    assert min(auc(values, labels) for values in scores.values()) > 0.55
    assert abs(auc(np.zeros(400), labels) - 0.5) < 1e-9

"""Talk and cover are alike to somebody who sees one publisher's packets (protocol.md §5.4).

Two publishers run in processes of their own behind a relay that notes every packet. In each round
one of them has something to say, drawn at random, so that the public record looks the same either
way; the observer watches the first one and guesses which of the two it was.

``make observer`` runs 2,400 rounds over each transport and writes plots to ``out/observer``.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.harness.fake_network import FakeNetwork
from tests.harness.network import clean_environment
from tests.harness.observer import (
    Packet,
    Tap,
    auc,
    cross_validated,
    features_of,
    tap,
    write_plot,
)
from zipnet.host.loopback import free_ports

if TYPE_CHECKING:
    from asyncio.subprocess import Process

ROOT = Path(__file__).parents[3]
ROUNDS = int(os.environ.get("ZIPNET_OBSERVER_ROUNDS", "300"))
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
            elif line.startswith(b"end"):
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
        watched = await _start_child(network, folder, transport)
        await network.until(lambda: len(network.nodes["root"].subscribers) == 1)
        other = await _start_child(network, folder, transport)
        await network.until(lambda: len(network.nodes["root"].subscribers) == 2)
        began = time.monotonic()
        for number in range(ROUNDS):
            # A grid of time: when a round opens tells nothing about the one before.
            await asyncio.sleep(began + number * ROUND_S - time.monotonic())
            seen.opened[number + 1] = time.monotonic()
            assert await network.run_round(2), f"both take part in round {number + 1}"
            seen.sealed[number + 1] = time.monotonic()
            if number % 2 == 1:
                talks = draw.random() < 0.5
                for child, word in ((watched, talks), (other, not talks)):
                    assert child.stdin is not None
                    child.stdin.write(b"%s %06d\n" % (b"talk" if word else b"rest", number))
        async with asyncio.timeout(60):  # what is under way comes to its end
            seen.mine = await _finish(network, watched)
            seen.others = await _finish(network, other)
            for child in (watched, other):
                child.kill()
                await child.wait()
    return seen


async def _finish(network: FakeNetwork, child: Process) -> list[int]:
    """Let a child send what it still has; it stays, so that the other one has company."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"end\n")
    last = asyncio.create_task(child.stdout.readline())
    while not last.done():
        await network.run_round(2)
    rounds: list[int] = json.loads(await last)
    return rounds


@pytest.mark.timeout(900)
@pytest.mark.requirement("Z27")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_observer_of_the_packets_cannot_tell_talk_from_cover(
    transport: str, tmp_path: Path
) -> None:
    print(f"rounds={ROUNDS} seed={SEED}")
    seen = await _run(transport, tmp_path)
    rows = []
    # Sizes of envelopes: by whether the round's number takes three bytes, and by talk.
    sizes: dict[tuple[bool, bool], Counter[int]] = {}
    passed = seen.tap.of_link(0)
    times = [packet.at for packet in passed]

    def window(number: int) -> list[Packet]:
        first = bisect.bisect_left(times, seen.opened[number])
        return passed[first : bisect.bisect_left(times, seen.opened[number + 1])]

    # A round that a busy machine held up until the next one opened is nobody's to judge.
    rounds = [(n, talk) for n, talk in seen.labelled() if any(p.up for p in window(n))]
    labels = np.array([talk for _, talk in rounds])
    for number, talk in rounds:
        now = features_of(window(number), seen.opened[number])
        rows.append(now + features_of(window(number - 1), seen.opened[number - 1]))
        if number >= 128:
            largest = max(p.size for p in window(number) if p.up)
            sizes.setdefault((number >= 256, talk), Counter())[largest] += 1
    table = np.array(rows)
    # A message is two rounds of one label, which share a window and the machine's mood: what is
    # learnt of one is no guess at the other, and there are half as many independent samples.
    drawn = np.array([(number - 1) // 2 for number, _ in rounds])
    scores = cross_validated(table, labels, SEED, drawn // 4)
    found = {name: auc(values, labels) for name, values in scores.items()}
    print(f"{transport}: {len(labels)} labelled rounds, {int(labels.sum())} with talk, AUC {found}")
    folder = Path(OUT) if OUT else tmp_path
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    title = f"{transport}: {len(labels)} rounds of one client, talk or cover"
    write_plot(folder / f"observer-{transport}.svg", title, table[:, 4], labels, scores)
    assert len(labels) >= 0.75 * ROUNDS
    assert 0.35 < labels.mean() < 0.65
    if transport == "tls":  # now and then the relay reads a ping in one go with an envelope
        for long_number in (False, True):
            usual = [sizes[long_number, talk].most_common(1)[0] for talk in (False, True)]
            assert usual[0][0] == usual[1][0], "every envelope is as long"
            for talk in (False, True):
                assert usual[talk][1] >= 0.95 * sizes[long_number, talk].total()
    # Chance alone strays by some standard deviations; with 2,400 rounds three of them are 0.05.
    stray = 4 * np.sqrt(2 * (len(labels) + 1) / (12 * labels.sum() * (~labels).sum()))
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

"""The consensus port's promises, on every engine, under trouble drawn from seeds.

``make conformance`` runs 500 seeds of the embedded engine (SEEDS=…, FIRST=… where they start) over
all committee sizes; the ordinary run has a short list. Either prints the seeds, the faults they met
and a digest over everything that happened. A failure prints engine, size and seed, and the same
three give the same failure again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter

import pytest

from tests.conformance.consensus.cluster import run_one
from tests.conformance.consensus.engines import ENGINES, EngineUnderTest

FIRST = int(os.environ.get("ZIPNET_CONFORMANCE_FIRST", "0"))
LONG = int(os.environ.get("ZIPNET_CONFORMANCE_SEEDS", "0"))
#: Seeds of each committee size: in the ordinary run, and out of 100 in the long one.
SHORT = {1: 3, 3: 32, 5: 12, 7: 4}
SHARE = {1: 4, 3: 60, 5: 30, 7: 6}
#: Faults that a run of this many seeds or more must have met.
ENOUGH = 30
MUST_MEET = ("snapshots", "snapshots begun from", "snapshots sent", "replace", "torn writes")
RARE = ("damage", "damage made up for", "lost to damage")


@pytest.fixture(autouse=True)
def _quiet_library() -> None:
    # The library reports every failed election to the root logger.
    logging.getLogger("pysyncobj").setLevel(logging.CRITICAL)


@pytest.mark.timeout(7200 if LONG else 120)
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("size", sorted(SHORT))
def test_promises_hold_under_trouble(engine: EngineUnderTest, size: int) -> None:
    count = -(-LONG * SHARE[size] // 100) if LONG else SHORT[size]
    seeds = range(FIRST, FIRST + count)
    acknowledged = 0
    met: Counter[str] = Counter()
    digest = hashlib.sha256()
    for seed in seeds:
        cluster = run_one(engine, size=size, seed=seed)
        acknowledged += len(cluster.acknowledged)
        met += cluster.seen
        digest.update("\n".join(cluster.events).encode() + cluster.digests[-1])
    faults = ", ".join(f"{name} {number}" for name, number in sorted(met.items()))
    print(f"\n{engine.name} size={size} seeds={FIRST}..{FIRST + count - 1} clean")
    print(f"  acknowledged {acknowledged}, met: {faults}")
    print(f"  digest {digest.hexdigest()[:32]}")
    assert acknowledged > 10 * len(seeds)
    if size > 1 and count >= ENOUGH:
        assert not [name for name in MUST_MEET if not met[name]]
    if size > 1 and count >= 10 * ENOUGH:
        assert not [name for name in RARE if not met[name]]


def test_a_seed_repeats_exactly() -> None:
    runs = [run_one(ENGINES[0], size=3, seed=FIRST) for _ in range(2)]
    assert runs[0].canonical == runs[1].canonical
    assert runs[0].events == runs[1].events
    assert runs[0].seen == runs[1].seen

"""The consensus port's promises, on every engine, under trouble drawn from seeds.

``ZIPNET_CONFORMANCE_SEEDS=500`` runs that many seeds per committee size instead of the short list;
``ZIPNET_CONFORMANCE_FIRST`` says where they start. A failure prints engine, size and seed, and the
same three give the same failure again.
"""

from __future__ import annotations

import logging
import os

import pytest

from tests.conformance.consensus.cluster import run_one
from tests.conformance.consensus.engines import ENGINES, EngineUnderTest

FIRST = int(os.environ.get("ZIPNET_CONFORMANCE_FIRST", "0"))
LONG = int(os.environ.get("ZIPNET_CONFORMANCE_SEEDS", "0"))
SHORT = {1: 3, 3: 32, 5: 16, 7: 4}


@pytest.fixture(autouse=True)
def _quiet_library() -> None:
    # The library reports every failed election to the root logger.
    logging.getLogger("pysyncobj").setLevel(logging.CRITICAL)


@pytest.mark.timeout(3600 if LONG else 120)
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("size", sorted(SHORT))
def test_promises_hold_under_trouble(engine: EngineUnderTest, size: int) -> None:
    seeds = range(FIRST, FIRST + (LONG or SHORT[size]))
    acknowledged = 0
    for seed in seeds:
        cluster = run_one(engine, size=size, seed=seed)
        acknowledged += len(cluster.acknowledged)
    print(f"{engine.name} size={size} seeds={seeds} acknowledged={acknowledged}")
    assert acknowledged > 10 * len(seeds)


def test_a_seed_repeats_exactly() -> None:
    runs = [run_one(ENGINES[0], size=3, seed=FIRST) for _ in range(2)]
    assert runs[0].canonical == runs[1].canonical
    assert runs[0].events == runs[1].events

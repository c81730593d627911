"""The suite catches engines and disks that are broken on purpose, each in its own way."""

from __future__ import annotations

import logging

import pytest

from tests.conformance.consensus.cluster import InvariantError, run_one
from tests.conformance.consensus.engines import BROKEN, EngineUnderTest

#: Seeds tried per committee size. Some faults need two candidates, a crash and bad luck to show.
ATTEMPTS = 120


@pytest.fixture(autouse=True)
def _quiet_library() -> None:
    logging.getLogger("pysyncobj").setLevel(logging.CRITICAL)


@pytest.mark.parametrize("engine", BROKEN, ids=lambda engine: engine.name)
def test_a_broken_engine_is_caught(engine: EngineUnderTest) -> None:
    for seed in range(ATTEMPTS):
        for size in (5, 3):
            try:
                run_one(engine, size=size, seed=seed)
            except InvariantError as broken:
                print(f"{engine.name}: caught at size={size} seed={seed}: {broken}")
                return
    pytest.fail(f"{engine.name} was not caught in {ATTEMPTS} seeds of each size")

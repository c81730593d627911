"""The suite catches engines and disks that are broken on purpose, each in its own way."""

from __future__ import annotations

import logging

import pytest

from tests.conformance.consensus.cluster import InvariantError, run_one
from tests.conformance.consensus.engines import BROKEN, EngineUnderTest

#: Seeds tried. Some faults need two candidates, a repeated message and bad luck to show.
ATTEMPTS = 120
#: Committee size and first seed per fault, chosen so that the search is short as things are now.
START = {
    "fsync does nothing": (3, 0),
    "messages leave before the write": (5, 20),
    "a repeated vote counts twice": (5, 130),
    "the library's way with entries": (3, 0),
    "the commit index outruns what was confirmed": (5, 0),
    "an answer confirms more than it says": (3, 0),
    "entries behind a snapshot are not restated": (3, 0),
    "a replaced member still counts": (3, 15),
    "a newcomer founds a committee of its own": (3, 155),
    "what came after a damaged snapshot is passed over": (3, 110),
}


@pytest.fixture(autouse=True)
def _quiet_library() -> None:
    logging.getLogger("pysyncobj").setLevel(logging.CRITICAL)


@pytest.mark.parametrize("engine", BROKEN, ids=lambda engine: engine.name)
def test_a_broken_engine_is_caught(engine: EngineUnderTest) -> None:
    size, first = START[engine.name]
    for seed in range(first, first + ATTEMPTS):
        try:
            run_one(engine, size=size, seed=seed)
        except InvariantError as broken:
            print(f"{engine.name}: caught at size={size} seed={seed}: {broken}")
            return
    pytest.fail(f"{engine.name} was not caught in {ATTEMPTS} seeds")

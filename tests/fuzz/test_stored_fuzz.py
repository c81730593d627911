"""Whatever stands in a file or comes from a platform ends in a value or in a typed error."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.fuzz_stored import OUTSIDE, PARSERS, one_input
from tests.fuzz.seeds import make_seeds

ROOT = Path(__file__).parents[2]
SEEDS = make_seeds()


def frame(name: str, data: bytes) -> bytes:
    return bytes([list(PARSERS).index(name)]) + data


def name_for(seed: str) -> str:
    return {"consensus vote": "consensus message", "quote v5": "quote"}.get(seed, seed)


@pytest.mark.requirement("M12")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_is_well_formed(seed: str) -> None:
    PARSERS[name_for(seed)](SEEDS[seed])


@pytest.mark.requirement("M12")
@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=400))
def test_any_bytes_end_in_a_value_or_a_typed_error(name: str, data: bytes) -> None:
    one_input(frame(name, data))


@pytest.mark.parametrize("seed", SEEDS)
@given(data=st.data())
def test_a_seed_with_bytes_changed_ends_in_a_value_or_a_typed_error(
    seed: str, data: st.DataObject
) -> None:
    altered = bytearray(SEEDS[seed])
    for _ in range(data.draw(st.integers(1, 4))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(altered)))
    try:
        PARSERS[name_for(seed)](bytes(altered[: cut or None]))
    except OUTSIDE:
        return


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_a_short_coverage_guided_run_finds_nothing(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for seed, good in SEEDS.items():
        (corpus / seed.replace(" ", "-")).write_bytes(frame(name_for(seed), good))
    options = ["-max_total_time=5", "-max_len=16384", "-seed=20261121"]
    found = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.fuzz_stored", *options),
            *(f"-artifact_prefix={tmp_path}/", str(corpus)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    print(found.stderr[-500:])
    assert found.returncode == 0, found.stderr[-2000:]
    assert not list(tmp_path.glob("crash-*"))

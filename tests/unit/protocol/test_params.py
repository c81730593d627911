"""Round parameters and cadence: the sizes that follow, and every bound."""

from __future__ import annotations

import pytest

from zipnet.errors import ConfigError
from zipnet.protocol.params import MAX_BODY_BYTES, Cadence, RoundParams


def test_default_sizes_follow_from_the_parameters() -> None:
    params = RoundParams()
    assert params.matrix_bytes == 64 * 256
    assert params.reservation_entries == 512
    assert params.reservation_bytes == 1024
    assert params.body_bytes == 17_408
    assert params.fragment_bytes == 218


def test_the_papers_evaluation_point_fits() -> None:
    assert RoundParams(num_slots=1024, slot_bytes=160).body_bytes == 180_224


def test_largest_body_is_accepted_and_one_slot_more_is_not() -> None:
    slots = MAX_BODY_BYTES // (1024 + 16)
    assert RoundParams(num_slots=slots, slot_bytes=1024).body_bytes <= MAX_BODY_BYTES
    with pytest.raises(ConfigError, match="frame"):
        RoundParams(num_slots=slots + 1, slot_bytes=1024)


BAD_PARAMS: dict[str, dict[str, int]] = {
    "no slot": {"num_slots": 0},
    "too many slots": {"num_slots": 4097},
    "narrow slot": {"slot_bytes": 63},
    "wide slot": {"slot_bytes": 32_769},
    "lone client": {"min_participants": 1},
    "huge minimum": {"min_participants": 65_537},
    "no epoch": {"kem_epoch_s": 0},
    "endless epoch": {"kem_epoch_s": 604_801},
    "no skip": {"max_skip_rounds": 0},
    "endless skip": {"max_skip_rounds": 10_000_001},
    "a boolean": {"num_slots": True},
}


@pytest.mark.parametrize("title", BAD_PARAMS)
def test_parameter_out_of_bounds_is_refused_by_name(title: str) -> None:
    (name,) = BAD_PARAMS[title]
    with pytest.raises(ConfigError, match=name):
        RoundParams(**BAD_PARAMS[title])


BAD_CADENCES: dict[str, dict[str, int]] = {
    "no period": {"round_period_ms": 0},
    "endless period": {"round_period_ms": 3_600_001},
    "no folding": {"fold_deadline_ms": 0},
    "folding as long as the round": {"fold_deadline_ms": 5000},
    "no deadline": {"round_deadline_ms": 0},
}


@pytest.mark.parametrize("title", BAD_CADENCES)
def test_cadence_out_of_bounds_is_refused_by_name(title: str) -> None:
    (name,) = BAD_CADENCES[title]
    with pytest.raises(ConfigError, match=name):
        Cadence(**BAD_CADENCES[title])


def test_cadence_defaults_are_two_one_and_five_seconds() -> None:
    cadence = Cadence()
    assert (cadence.round_period_ms, cadence.fold_deadline_ms, cadence.round_deadline_ms) == (
        2000,
        1000,
        5000,
    )

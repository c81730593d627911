"""The models hold, and every wrong design in them is caught: small instances of `make model`."""

from __future__ import annotations

import pytest

from tests.models.check import CHECKS, Check, run, tools_missing

pytestmark = pytest.mark.timeout(300)
SMALL = [check for check in CHECKS if check.small]


@pytest.mark.requirement("L9")
@pytest.mark.requirement("A16")
@pytest.mark.parametrize("check", SMALL, ids=lambda c: "-".join((c.model, *c.defines)))
def test_right_designs_hold_and_wrong_ones_are_caught(check: Check) -> None:
    missing = tools_missing()
    if missing:
        pytest.skip(missing)
    went_right, line = run(check)
    assert went_right, line


def test_every_model_has_a_wrong_design_that_must_be_caught() -> None:
    models = {check.model for check in CHECKS}
    assert {check.model for check in CHECKS if not check.holds} == models

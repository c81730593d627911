"""A server whose clock is off says so and is not ready; those who disagree with it alone are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork, wait_for
from zipnet.node.clock_watch import clock_is_off, estimate_skew

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)
SKEWED = """
import sys, time
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + 60
time.time_ns = lambda: real_ns() + 60_000_000_000
from zipnet.cli import main
sys.exit(main())
"""


@pytest.mark.requirement("Z22")
def test_a_server_with_a_wrong_clock_is_not_ready_and_the_others_are(tmp_path: Path) -> None:
    network = LiveNetwork(tmp_path)
    (tmp_path / "skewed.py").write_text(SKEWED)
    wrong, right = network.nodes["s2"], network.nodes["s0"]
    wrong.program = ("skewed",)
    wrong.environment = {"PYTHONPATH": f"{tmp_path}:{sys.path[0]}"}
    try:
        network.start()
        wait_for(lambda: "clock_skew" in wrong.http("/readyz")[1], "the wrong clock to be noticed")
        assert wrong.http("/readyz")[0] == 503
        wait_for(lambda: abs(right.metric("zipnet_clock_skew_seconds") - 60) < 5, "the metric")
        wait_for(lambda: right.http("/readyz")[0] == 200, "the others to be ready")
    finally:
        network.close()


def test_a_journey_is_taken_off_and_what_it_hides_is_no_skew() -> None:
    assert estimate_skew(100.0, 110.5, 101.0) == (10.0, 0.5)
    assert not clock_is_off([(6.0, 2.0)], 5.0)
    assert clock_is_off([(8.0, 2.0)], 5.0)


def test_a_minority_with_another_time_is_not_believed() -> None:
    assert not clock_is_off([], 5.0)
    assert not clock_is_off([(60.0, 0.0), (0.0, 0.0)], 5.0)
    assert clock_is_off([(-60.0, 0.0), (-60.0, 0.0)], 5.0)

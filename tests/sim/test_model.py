"""Virtual-time mode: one seed is one run, and a run does what the protocol promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sim.model.scenario import Fault, Load, Scenario, parse_scenario
from sim.model.world import simulate
from sim.report.compare import compare_reports
from sim.report.page import write_report
from sim.report.sweeps import reservation_success
from sim.scenarios import load_scenario, scenario_names
from zipnet.errors import ConfigError
from zipnet.protocol.params import RoundParams

if TYPE_CHECKING:
    from sim.model.outcome import Outcome

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def quickstart() -> Outcome:
    return simulate(load_scenario("quickstart"), 1)


@pytest.mark.requirement("D2")
def test_every_message_of_the_quickstart_comes_through(quickstart: Outcome) -> None:
    assert quickstart.queued == quickstart.recovered == len(quickstart.latencies) == 8
    assert [r.number for r in quickstart.rounds] == list(range(1, 7))
    assert {r.participants for r in quickstart.rounds} == {8}
    assert not quickstart.aborted


def test_one_seed_is_one_run_in_every_process(quickstart: Outcome) -> None:
    """Other processes order their sets differently; nothing of a run may depend on it."""
    program = (
        "from sim.model.world import simulate\nfrom sim.scenarios import load_scenario\n"
        "print(simulate(load_scenario('quickstart'), 1).digest)"
    )
    for hash_seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        )
        assert found.stdout.strip() == quickstart.digest


def test_another_seed_is_another_run(quickstart: Outcome) -> None:
    assert simulate(load_scenario("quickstart"), 2).digest != quickstart.digest


def test_rounds_go_on_without_a_crashed_leader_and_with_it_again() -> None:
    outcome = simulate(load_scenario("server-crash"), 3)
    crash = next(row for row in outcome.rows if row.event == "server_crashed")
    elected = [r for r in outcome.rows if r.event == "leader_elected" and r.at > crash.at]
    assert elected
    assert elected[0].node != crash.node
    assert len(outcome.rounds) >= 14
    stored = {(r.node, r.round) for r in outcome.rows if r.event == "record_stored"}
    assert all((crash.node, r.number) in stored for r in outcome.rounds[:-1]), "it caught up"
    assert outcome.recovered == len(outcome.latencies) > 20


@pytest.mark.parametrize("kind", ["partition", "slow"])
def test_a_server_that_is_cut_off_or_slow_is_left_out_or_waited_for(kind: str) -> None:
    fault = Fault(at_s=3.0, kind=kind, server=1, for_s=3.0)  # type: ignore[arg-type]
    scenario = replace(load_scenario("quickstart"), max_absent=1, rounds=7, faults=(fault,))
    outcome = simulate(scenario, 6)
    assert outcome.recovered == outcome.queued
    assert outcome.counted["fault_began"] == outcome.counted["fault_ended"] == 1
    stored = {row.round for row in outcome.of("record_stored") if row.node == "server-1"}
    assert {r.number for r in outcome.rounds} <= stored | {outcome.rounds[-1].number}


def test_clients_that_come_and_go_take_part_again() -> None:
    outcome = simulate(replace(load_scenario("client-churn"), rounds=12), 4)
    counts = {r.participants for r in outcome.rounds}
    assert len(counts) > 1
    assert outcome.counted["client_registered"] > 0
    assert sum(r.void for r in outcome.rounds) == 0


def test_a_cost_only_network_decides_like_a_real_one() -> None:
    real = replace(load_scenario("quickstart"), load=Load(), rounds=3, clients=16)
    cheap = replace(real, vectors="cost")
    first, second = simulate(real, 5), simulate(cheap, 5)
    assert [r.participants for r in first.rounds] == [r.participants for r in second.rounds]
    assert [r.number for r in first.rounds] == [r.number for r in second.rounds]
    for one, other in zip(first.round_seconds, second.round_seconds, strict=True):
        assert other == pytest.approx(one, rel=0.3)


def test_links_and_bandwidth_set_the_pace() -> None:
    fast = simulate(replace(load_scenario("panetiere-1k-1k-20k"), rounds=1), 1)
    slow = simulate(replace(load_scenario("panetiere-100-1k-1k"), rounds=1), 1)
    assert slow.round_seconds[0] > fast.round_seconds[0] > 0.6, "ten hops of 60 ms at the least"


def test_seven_link_rows_are_shipped_with_figures_to_compare() -> None:
    rows = [name for name in scenario_names() if name.startswith("panetiere-")]
    assert len(rows) == 7
    for name in rows:
        scenario = load_scenario(name)
        assert scenario.published
        assert scenario.assumptions
        assert scenario.wire_body_bytes == 300 * (16_430 + 16)


def test_a_mistyped_scenario_is_refused() -> None:
    with pytest.raises(ConfigError, match="clents"):
        parse_scenario("clents = 3", name="x")
    with pytest.raises(ConfigError, match="upp_s"):
        parse_scenario("[churn]\nupp_s = 3", name="x")
    with pytest.raises(ConfigError, match="committee"):
        Scenario("x", servers=4)
    with pytest.raises(ConfigError, match="no scenario"):
        load_scenario("nowhere")


@pytest.mark.spec("5.3")
def test_reservations_succeed_as_often_as_the_protocol_says() -> None:
    params = RoundParams(num_slots=256, slot_bytes=64)
    points = {p.load: p for p in reservation_success(params, seeds=20)}
    assert points[1.0].granted >= 0.87
    assert points[0.25].granted >= 0.96
    assert points[2.0].granted <= 0.55, "past full load they wait"


def test_a_report_is_one_page_with_every_plot_and_comparable(
    tmp_path: Path, quickstart: Outcome
) -> None:
    write_report(quickstart, tmp_path / "a")
    write_report(quickstart, tmp_path / "b")
    page = (tmp_path / "a" / "report.html").read_text()
    for name in ("latency", "slots", "entropy", "links", "timeline"):
        assert f'id="{name}"' in page
        assert (tmp_path / "a" / f"{name}.svg").is_file()
    assert "http-equiv" not in page
    assert "<script" not in page
    assert 'src="' not in page
    events = (tmp_path / "a" / "events.jsonl").read_text().splitlines()
    assert len(events) == len(quickstart.rows)
    assert json.loads(events[0])["event"]
    lines, same = compare_reports(tmp_path / "a", tmp_path / "b")
    assert same
    assert "event digests are equal" in lines


def test_a_run_that_should_be_the_same_and_is_not_is_told(
    tmp_path: Path, quickstart: Outcome
) -> None:
    write_report(quickstart, tmp_path / "a")
    write_report(replace(quickstart, digest="0" * 64), tmp_path / "b")
    assert compare_reports(tmp_path / "a", tmp_path / "b")[1] is False


def test_raw_events_are_parquet_where_the_library_is(tmp_path: Path, quickstart: Outcome) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_report(quickstart, tmp_path)
    table = parquet.read_table(tmp_path / "events.parquet")
    assert table.num_rows == len(quickstart.rows)
    assert table.column("event")[0].as_py() == quickstart.rows[0].event

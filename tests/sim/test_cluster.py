"""``zipnet-sim run``: real processes, watched and reported on, beside the same in virtual time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sim.cluster.plan import LEADER, ClusterFault, adjusted, parse_fault, plan_of
from sim.scenarios import load_scenario
from tests.harness.browser import open_browser
from zipnet.errors import ConfigError

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]
PLOTS = {"latency", "slots", "entropy", "links", "timeline", "throughput", "reservations"}


def program(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sim", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
        text=True,
    )


def _lines(folder: Path) -> list[str]:
    return (folder / "events.jsonl").read_text().splitlines()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("cluster")
    done = program("run", "--servers", "3", "--clients", "8", "--rounds", "5", "--report", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.requirement("D2")
def test_a_cluster_runs_its_rounds_and_recovers_what_was_published(ran: tuple[Path, str]) -> None:
    _, said = ran
    found = re.fullmatch(r"sim ok: rounds=5 published=(\d+) recovered=(\d+)", said.splitlines()[-1])
    assert found, said
    assert found[1] == found[2] == "16"
    assert len(re.findall(r"^round +\d+ +8 participants", said, re.MULTILINE)) >= 5


def test_its_report_opens_in_a_browser_with_every_plot(
    ran: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = ran
    assert {path.stem for path in folder.glob("*.svg")} == PLOTS
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["mode"] == "cluster"
    assert summary["links"]["sent/server"] > 10_000
    events = [json.loads(line)["event"] for line in _lines(folder)]
    assert events.count("message_delivered") == 16
    with open_browser() as browser:
        browser.open((folder / "report.html").as_uri())
        browser.until("return document.readyState === 'complete'")
        sizes = browser.run(
            "return [...document.querySelectorAll('svg')].map(s => "
            "[s.id, s.getBoundingClientRect().width, s.querySelectorAll('path,rect').length])"
        )
        assert {name for name, _, _ in sizes} == PLOTS
        assert all(width > 200 and drawn > 5 for _, width, drawn in sizes), sizes
        browser.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000


def test_virtual_time_and_real_processes_agree_round_by_round(tmp_path: Path) -> None:
    """Slots are drawn: what cannot agree is which; how many, and when, must."""
    shared = ("--scenario", "crossvalidation", "--no-sweep")
    modelled, real = tmp_path / "model", tmp_path / "cluster"
    done = program("model", *shared, "--report", modelled)
    assert done.returncode == 0, done.stderr
    done = program(
        "run", *shared, "--transport", "tls", "--fault", "stop:root:10:0.5", "--report", real
    )
    assert done.returncode == 0, done.stdout + done.stderr
    compared = program("compare", modelled, real)
    print(compared.stdout)
    assert "all 6 rounds agree in participants, used, void, reserved" in compared.stdout
    one, other = (json.loads((f / "summary.json").read_text()) for f in (modelled, real))
    for name in ("rounds", "messages_queued", "messages_recovered", "slots_used", "slots_void"):
        assert one["figures"][name] == other["figures"][name], name
    timeline = [json.loads(line) for line in _lines(real)]
    assert [row["note"] for row in timeline if row["event"] == "fault_began"] == ["stop"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("crash:leader:3:2", ClusterFault(3.0, "crash", LEADER, 2.0)),
        ("slow:1:0.5:4", ClusterFault(0.5, "slow", "server-1", 4.0)),
        ("partition:leaf-0:1:1", ClusterFault(1.0, "partition", "leaf-0", 1.0)),
    ],
)
def test_a_fault_is_read_as_written(text: str, fault: ClusterFault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "crash",
        "burn:leader:1:1",
        "crash:leader:x:1",
        "crash:0:-1:1",
        "crash:0:1:0",
        "crash:0:nan:1",
    ],
)
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="KIND:WHO:AT:FOR"):
        parse_fault(text)


@pytest.mark.parametrize(
    ("scenario", "options", "said"),
    [
        ("crowd", {}, "cost-only vectors"),
        ("quickstart", {"aggregators": 0}, "no aggregator"),
        ("quickstart", {"readers": 0}, "no reader"),
        ("quickstart", {"transport": "pigeon"}, "no such transport"),
        ("quickstart", {"faults": (parse_fault("crash:9:1:1"),)}, "server-9"),
    ],
)
def test_what_real_processes_cannot_be_is_refused(
    scenario: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_of(load_scenario(scenario), **options)


def test_talkers_that_come_and_go_are_refused() -> None:
    churning = adjusted(load_scenario("client-churn"), servers=None, clients=8, rounds=None)
    assert churning.load.talkers == plan_of(churning).moving == 4
    with pytest.raises(ConfigError, match="talkers that come and go"):
        plan_of(replace(churning, load=replace(churning.load, talkers=5)))


_TROUBLED = """
about = "a jammer, clients that come and go"
servers = 3
clients = 8
rounds = 6
limit_s = 120
[params]
num_slots = 32
slot_bytes = 256
min_participants = 3
[cadence]
round_period_ms = 500
fold_deadline_ms = 300
round_deadline_ms = 4000
[load]
talkers = 3
messages = 2
jammers = 1
[churn]
share = 0.5
up_s = 1.0
down_s = 1.0
rejoin = 0.5
"""


def test_jammers_churn_and_a_wrong_clock_cost_no_message(tmp_path: Path) -> None:
    scenario, report = tmp_path / "troubled.toml", tmp_path / "out"
    scenario.write_text(_TROUBLED)
    faults = ("--fault", "skew:leader:1:2", "--fault", "rotate:2:4:1", "--fault", "rotate:root:6:1")
    done = program("run", "--scenario", scenario, "--no-sweep", *faults, "--report", report)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("published=6 recovered=6")
    events = [json.loads(line) for line in _lines(report)]
    names = [row["event"] for row in events]
    assert "client_left" in names
    assert "client_returned" in names
    begun = [row["note"] for row in events if row["event"] == "fault_began"]
    assert begun == ["skew", "rotate", "rotate"]
    adopted = {
        (row["node"], row["value"]) for row in events if row["event"] == "descriptor_adopted"
    }
    nodes = ("server-0", "server-1", "server-2", "root")
    assert {(name, version) for name in nodes for version in (2, 3)} <= adopted
    took = [row["value"] for row in events if row["event"] == "round_sealed"]
    assert all(0 <= seconds < 60 for seconds in took), took
    assert json.loads((report / "summary.json").read_text())["figures"]["slots_void"] > 0


def test_the_command_line_changes_a_scenario_and_waits_for_the_whole_crowd() -> None:
    made = adjusted(load_scenario("quickstart"), servers=5, clients=20, rounds=9)
    assert (made.servers, made.clients, made.rounds) == (5, 20, 9)
    assert made.load.talkers == 20
    assert made.params.min_participants == 20
    with_faults = load_scenario("server-crash")
    same = adjusted(with_faults, servers=None, clients=None, rounds=None)
    assert same.params == with_faults.params
    assert [fault.node for fault in plan_of(same).faults] == [LEADER]

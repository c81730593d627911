"""``zipnet-sim`` as a program: what it prints, what it leaves behind, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sim.model.costs import load_costs, write_costs
from tests.harness.browser import open_browser

ROOT = Path(__file__).parents[2]


def program(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sim", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    done = program("model", "--scenario", "quickstart", "--seed", "1", "--report", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model ok: scenario=quickstart seed=1 rounds=6 aborted=0")
    return folder


def test_a_report_has_every_plot_the_summary_and_the_events(report: Path) -> None:
    page = (report / "report.html").read_text()
    names = {"latency", "slots", "entropy", "links", "timeline", "throughput", "reservations"}
    assert {path.stem for path in report.glob("*.svg")} == names
    assert all(f'id="{name}"' in page for name in names)
    assert json.loads((report / "summary.json").read_text())["figures"]["rounds"] == 6


def test_the_page_opens_in_a_browser_and_every_plot_is_drawn(report: Path, tmp_path: Path) -> None:
    with open_browser() as browser:
        browser.open((report / "report.html").as_uri())
        browser.until("return document.readyState === 'complete'")
        sizes = browser.run(
            "return [...document.querySelectorAll('svg')].map(s => "
            "[s.id, s.getBoundingClientRect().width, s.querySelectorAll('path,rect').length])"
        )
        assert len(sizes) == 7
        assert all(width > 200 and drawn > 5 for _, width, drawn in sizes), sizes
        browser.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000


def test_two_reports_are_compared(report: Path) -> None:
    done = program("compare", report, report)
    assert done.returncode == 0, done.stderr
    assert "event digests are equal" in done.stdout
    assert "all 6 rounds agree" in done.stdout


def test_a_mistake_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "x"
    for words in (
        ("model", "--scenario", "nowhere"),
        ("model", "--scenario", "nowhere-*"),
        ("model", "--scenario", "quickstart", "--report", inside),
        ("run", "--clients", "1"),
        ("run", "--report", inside),
        ("compare", tmp_path, tmp_path),
        ("lab", "--adversary", "nobody"),
    ):
        done = program(*words)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_the_laboratory_prints_its_table(tmp_path: Path) -> None:
    done = program("lab", "--adversary", "replay", "--seeds", "1", "--report", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "as promised: posterior = prior" in done.stdout
    (found,) = json.loads((tmp_path / "summary.json").read_text())
    assert found["adversary"] == "replay"


def test_a_broken_promise_is_exit_1() -> None:
    done = program(
        "lab", "--adversary", "differencing", "--seeds", "1", "--mutant", "release-twice"
    )
    assert done.returncode == 1
    assert "PROMISE BROKEN: guards released twice" in done.stdout


def test_the_program_is_installed_under_its_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["zipnet-sim"] == "sim.cli:main"
    for words in (("--help",), ("model", "--help"), ("lab", "--help"), ("scenarios",)):
        assert program(*words).returncode == 0


def test_costs_survive_being_written(tmp_path: Path) -> None:
    costs = load_costs()
    (tmp_path / "costs.toml").write_text(write_costs(costs))
    assert load_costs(tmp_path / "costs.toml") == costs

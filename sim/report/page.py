"""Writes a report: one self-contained page, SVG files, a summary and the raw events.

The folder gets ``report.html``, ``<plot>.svg``, ``summary.json``, ``events.jsonl`` and, where
pyarrow is installed (``zipnet[sim]``), ``events.parquet``.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING

from sim.report.figures import run_plots, sweep_plots
from sim.report.plots import Plot, Series, draw
from sim.report.sweeps import reservation_success, throughput
from sim.report.text import lab_lines, outcome_lines
from zipnet.protocol.params import RoundParams

if TYPE_CHECKING:
    from pathlib import Path

    from sim.lab.finding import Finding
    from sim.model.outcome import Outcome
    from sim.model.scenario import Scenario
    from sim.model.trace import Row

__all__ = ["write_lab_report", "write_report"]

_STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:1360px;margin:1.5em auto;padding:0 1em;color:#222}"
    "main{display:grid;grid-template-columns:repeat(auto-fit,minmax(480px,1fr));gap:1em}"
    "figure{margin:0;border:1px solid #ddd}table{border-collapse:collapse}"
    "td,th{padding:.15em .8em;text-align:left;border-bottom:1px solid #ddd}pre{overflow:auto}"
)


def write_report(outcome: Outcome, folder: Path, *, sweep: Scenario | None = None) -> None:
    """Write the report of a run; ``sweep`` adds the plots that need further, short runs."""
    plots = run_plots(outcome)
    if sweep is not None:
        points = reservation_success(RoundParams(num_slots=256, slot_bytes=64))
        plots += sweep_plots(throughput(sweep, outcome.seed), points)
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{outcome.scenario}, seed {outcome.seed}"
    _write_page(folder, title, outcome_lines(outcome), outcome.figures(), plots)
    summary = {k: v for k, v in asdict(outcome).items() if k not in {"rows", "latencies"}}
    summary["figures"] = outcome.figures()
    (folder / "summary.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")
    with (folder / "events.jsonl").open("w") as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in outcome.rows)
    if importlib.util.find_spec("pyarrow") is not None:
        _write_parquet(outcome.rows, folder / "events.parquet")


def write_lab_report(findings: list[Finding], folder: Path) -> None:
    """Write the laboratory's table and a plot of what each adversary's measures came to."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = [
        Plot(
            f"lab-{number}",
            f"{finding.adversary}: {curve.label}",
            "rounds",
            "bits",
            [Series("", curve.points)],
        )
        for number, finding in enumerate(findings)
        for curve in finding.curves
    ]
    figures = {
        f"{finding.adversary}: {measure.name}": measure.mean
        for finding in findings
        for measure in finding.measures
    }
    _write_page(folder, "laboratory", lab_lines(findings), figures, plots)
    summary = [asdict(finding) for finding in findings]
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def _write_page(
    folder: Path, title: str, lines: list[str], figures: dict[str, float], plots: list[Plot]
) -> None:
    pictures: list[str] = []
    for plot in plots:
        picture = draw(plot)
        (folder / f"{plot.name}.svg").write_text(picture + "\n")
        pictures.append(f"<figure>{picture}</figure>")
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{value:.5g}</td></tr>" for name, value in figures.items()
    )
    (folder / "report.html").write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><main>{''.join(pictures)}</main>"
        f"<h2>Figures</h2><table>{rows}</table><h2>Said</h2>"
        f"<pre>{escape(chr(10).join(lines))}</pre></html>\n"
    )


def _write_parquet(rows: list[Row], path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415 - only where the extra is installed
    from pyarrow import parquet  # noqa: PLC0415

    columns = {
        "at": pa.array([row.at for row in rows], pa.float64()),
        "event": pa.array([row.event for row in rows], pa.string()),
        "node": pa.array([row.node for row in rows], pa.string()),
        "round": pa.array([row.round for row in rows], pa.int64()),
        "value": pa.array([row.value for row in rows], pa.float64()),
        "note": pa.array([row.note for row in rows], pa.string()),
    }
    parquet.write_table(pa.table(columns), path)

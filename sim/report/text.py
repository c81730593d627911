"""What the command prints: lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.lab.finding import Finding
    from sim.model.outcome import Outcome

__all__ = ["lab_lines", "outcome_lines", "table_lines"]


def outcome_lines(outcome: Outcome) -> list[str]:
    """Return a run's figures, with published ones and assumptions where there are any."""
    figures = outcome.figures()
    lines = [
        (
            f"{outcome.mode} {'ok' if outcome.rounds else 'failed'}: scenario={outcome.scenario} "
            f"seed={outcome.seed} rounds={len(outcome.rounds)} "
            f"aborted={len(outcome.aborted)} published={outcome.queued} "
            f"recovered={outcome.recovered} digest={outcome.digest}"
        )
    ]
    lines += [f"  {name:24} {value:.4g}" for name, value in figures.items()]
    if outcome.published:
        ours = f"{figures['round_median_s']:.2f} s, {figures.get('capacity_mb_per_s', 0):.2f} MB/s"
        lines.append(f"  end to end, recovered    {ours}")
        lines += [f"  published: {label}: {value}" for label, value in outcome.published.items()]
    lines += [f"  assumed: {text}" for text in outcome.assumptions]
    return lines


def table_lines(outcomes: list[Outcome]) -> list[str]:
    """Return one line for each run, beside the first figure somebody else published."""
    lines = [f"{'scenario':24} {'end to end':>11} {'capacity':>11}  published"]
    for outcome in outcomes:
        figures = outcome.figures()
        rate = figures.get("capacity_mb_per_s", figures["recovered_kb_per_s"] / 1000)
        other = next((f"{k}: {v}" for k, v in outcome.published.items()), "-")
        seconds = figures["round_median_s"]
        lines.append(f"{outcome.scenario:24} {seconds:9.2f} s {rate:6.2f} MB/s  {other}")
    return lines


def lab_lines(findings: list[Finding]) -> list[str]:
    """Return the table of adversaries and measures."""
    width = max(len(finding.adversary) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        verdict = "as promised" if finding.holds else "PROMISE BROKEN"
        lines.append(f"{finding.adversary:{width}}  {verdict}: {finding.text}")
        lines += [f"{'':{width}}    {m.name:34} {m.shown()}" for m in finding.measures]
    return lines

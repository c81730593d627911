"""``zipnet-sim``: networks of real processes or in virtual time, adversaries, reports of all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cluster.plan import adjusted, parse_fault, plan_of
from sim.model.calibrate import calibrate as measure
from sim.model.costs import load_costs, write_costs
from sim.model.world import simulate
from sim.report.compare import compare_reports
from sim.report.page import write_report
from sim.report.text import outcome_lines, table_lines
from sim.scenarios import load_scenario, scenario_names
from zipnet.errors import ConfigError, ZipnetError

if TYPE_CHECKING:
    from sim.model.outcome import Outcome

__all__ = ["app", "main"]

app = typer.Typer(
    help="Run networks of real processes or in virtual time, set adversaries on them, report.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Report = Annotated[Path | None, typer.Option(help="Folder for the report and the raw events.")]
_Costs = Annotated[Path | None, typer.Option(help="File of costs; the shipped one by default.")]


@app.command()
def model(
    scenario: Annotated[str, typer.Option(help="Name of a scenario, or path of a TOML file.")],
    seed: Annotated[int, typer.Option(help="Where every draw comes from.")] = 1,
    report: _Report = None,
    costs: _Costs = None,
    sweep: Annotated[bool, typer.Option(help="Add plots of further runs to the report.")] = True,  # noqa: FBT002 - typer reads it
) -> None:
    """Run a scenario in virtual time and print what came of it.

    `panetiere-*`, or any other name that ends in a star, runs all scenarios that begin so.
    """
    found: list[Outcome] = []
    names = _names(scenario)
    _require_writable(report)
    for name in names:
        loaded = load_scenario(name)
        outcome = simulate(loaded, seed, costs=load_costs(costs))
        found.append(outcome)
        typer.echo("\n".join(outcome_lines(outcome)))
        if report is not None:
            folder = report if len(names) == 1 else report / name
            write_report(outcome, folder, sweep=loaded if sweep else None)
    if len(found) > 1:
        typer.echo("\n".join(table_lines(found)))
    if any(not outcome.rounds for outcome in found):
        raise typer.Exit(1)


def _names(scenario: str) -> list[str]:
    if not scenario.endswith("*"):
        return [scenario]
    found = [name for name in scenario_names() if name.startswith(scenario[:-1])]
    if not found:
        raise ConfigError(
            f"no scenario begins with {scenario[:-1]!r}", hint="see `zipnet-sim scenarios`"
        )
    return found


def _require_writable(report: Path | None) -> None:
    """Refuse a report that cannot be written before it has taken its time."""
    if report is None:
        return
    try:
        report.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--report: {report} cannot be written: {error.strerror}", hint="name another folder"
        ) from error


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one for each option
    scenario: Annotated[str, typer.Option(help="Name of a scenario, or path of a TOML file.")] = (
        "quickstart"
    ),
    servers: Annotated[int | None, typer.Option(help="Committee servers: 3, 5 or 7.")] = None,
    aggregators: Annotated[int | None, typer.Option(help="Aggregators, the root included.")] = None,
    clients: Annotated[int | None, typer.Option(help="Publishers.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Records to seal before it ends.")] = None,
    transport: Annotated[str, typer.Option(help="quic or tls, of clients.")] = "quic",
    tdx: Annotated[str, typer.Option(help="off or emulated.")] = "off",
    readers: Annotated[int, typer.Option(help="Reading processes.")] = 1,
    gateway: Annotated[bool, typer.Option(help="Run a gateway as well.")] = False,  # noqa: FBT002 - typer reads it
    fault: Annotated[
        list[str] | None, typer.Option(help="KIND:WHO:AT:FOR, such as crash:leader:3:2.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 1,
    report: _Report = None,
    sweep: Annotated[bool, typer.Option(help="Add plots of modelled runs to the report.")] = True,  # noqa: FBT002 - typer reads it
) -> None:
    """Run a network of real processes on loopback, and show it as it goes.

    At a terminal, keys bring faults about: k kills who leads, s stops it for a while, p cuts it
    off, w slows it down, c puts its clock wrong, r rotates its TLS certificate; q ends the run.
    """
    from sim.cluster.show import run_cluster  # noqa: PLC0415 - the other verbs need none of it

    loaded = adjusted(load_scenario(scenario), servers=servers, clients=clients, rounds=rounds)
    options: dict[str, object] = {"transport": transport, "tdx": tdx, "readers": readers}
    options |= {"gateway": gateway, "seed": seed}
    options["faults"] = tuple(parse_fault(text) for text in fault or [])
    if aggregators is not None:
        options["aggregators"] = aggregators
    plan = plan_of(loaded, **options)
    _require_writable(report)
    outcome = run_cluster(plan, typer.echo)
    if report is not None:
        write_report(outcome, report, sweep=loaded if sweep else None)
    typer.echo("\n".join(outcome_lines(outcome)))
    ok = outcome.recovered >= outcome.queued and len(outcome.rounds) >= loaded.rounds
    typer.echo(
        f"sim {'ok' if ok else 'failed'}: rounds={len(outcome.rounds)} "
        f"published={outcome.queued} recovered={outcome.recovered}"
    )
    if not ok:
        raise typer.Exit(1)


@app.command()
def scenarios() -> None:
    """List the shipped scenarios."""
    for name in scenario_names():
        typer.echo(f"{name:24} {load_scenario(name).about}")


@app.command()
def calibrate(
    out: Annotated[Path | None, typer.Option(help="Where to write; standard output else.")] = None,
) -> None:
    """Measure what the protocol's primitives cost on this machine."""
    text = write_costs(measure())
    if out is None:
        typer.echo(text, nl=False)
    else:
        try:
            out.write_text(text)
        except OSError as error:
            raise ConfigError(f"--out: {out} cannot be written: {error.strerror}") from error


@app.command()
def lab(
    adversary: Annotated[list[str] | None, typer.Option(help="Which; several are allowed.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All adversaries.")] = False,  # noqa: FBT002 - typer reads it
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 5,
    mutant: Annotated[str | None, typer.Option(help="Break the protocol: tests only.")] = None,
    report: _Report = None,
) -> None:
    """Set adversaries on the protocol and print what each learned.

    Exits with 1 where a promise is broken.
    """
    from sim.lab.bench import ADVERSARIES, run_lab  # noqa: PLC0415 - the other verbs need none of it
    from sim.report.text import lab_lines  # noqa: PLC0415

    chosen = list(ADVERSARIES) if every or not adversary else adversary
    _require_writable(report)
    findings = run_lab(chosen, seeds=seeds, mutant=mutant)
    typer.echo("\n".join(lab_lines(findings)))
    if report is not None:
        from sim.report.page import write_lab_report  # noqa: PLC0415

        write_lab_report(findings, report)
    if not all(finding.holds for finding in findings):
        raise typer.Exit(1)


@app.command()
def compare(
    one: Annotated[Path, typer.Argument(help="Folder of a report.")],
    other: Annotated[Path, typer.Argument(help="Folder of another.")],
) -> None:
    """Print the figures of two reports side by side; exits with 1 where runs of one seed differ."""
    lines, same = compare_reports(one, other)
    typer.echo("\n".join(lines))
    if not same:
        raise typer.Exit(1)


def main() -> None:
    """Run the program."""
    try:
        app()
    except ZipnetError as error:
        sys.stderr.write(f"error: {error.message_line}\n")
        raise SystemExit(error.exit_code) from error
    except OSError as error:  # a report that did not fit on the disk
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"error: {where}{error.strerror}\n")
        raise SystemExit(1) from error

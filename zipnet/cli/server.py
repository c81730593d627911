"""``zipnet server``: run one committee server until it is told to stop."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from zipnet.cli import run
from zipnet.cli.app import new_app

__all__ = ["app", "main"]

app = new_app("Run a committee server.")

_Duration = Annotated[str | None, typer.Option(help="Such as 2s or 500ms.", metavar="DURATION")]


@app.command()
def server(
    descriptor: Annotated[Path | None, typer.Option(help="Signed instance descriptor.")] = None,
    instance: Annotated[str | None, typer.Option(help="Name of the instance.")] = None,
    universe: Annotated[str | None, typer.Option(help="Universe, if not the default.")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="File of the node's secret.")] = None,
    committee_secret_file: Annotated[
        Path | None, typer.Option(help="File of the committee's secret.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder of the durable state; none: all in memory.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Transport address, UDP and TCP.", metavar="HOST:PORT")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Health and metrics address.", metavar="HOST:PORT")
    ] = None,
    bootstrap: Annotated[
        str | None,
        typer.Option(help="Where to dial the servers instead.", metavar="HOST:PORT,…"),
    ] = None,
    min_participants: Annotated[
        int | None, typer.Option(help="Fewest clients to unblind a round for.")
    ] = None,
    round_period: _Duration = None,
    fold_deadline: _Duration = None,
    round_deadline: _Duration = None,
    profile: Annotated[
        str | None, typer.Option(help="development or production.", metavar="PROFILE")
    ] = None,
    operator: Annotated[
        str | None, typer.Option(help="Pinned operator of the descriptor.", metavar="PEER-ID")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    config_key: Annotated[
        Path | None, typer.Option(help="Public file of who must have signed that file.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run a committee server until SIGTERM or Ctrl-C."""
    from zipnet.cli.service import run_service
    from zipnet.node.server_start import run_server
    from zipnet.settings import load_server

    flags: dict[str, object] = {
        "descriptor": descriptor,
        "instance": instance,
        "universe": universe,
        "secret_file": secret_file,
        "committee_secret_file": committee_secret_file,
        "state": state,
        "listen": listen,
        "metrics": metrics,
        "bootstrap": bootstrap,
        "min_participants": min_participants,
        "round_period": round_period,
        "fold_deadline": fold_deadline,
        "round_deadline": round_deadline,
        "profile": profile,
        "operator": operator,
        "log_level": log_level,
        "config_key": config_key,
    }
    settings = load_server(flags, os.environ, config)
    run_service("zipnet-server", "server", settings, lambda stop: run_server(settings, stop))


def main() -> int:
    """Run ``zipnet-server``."""
    return run(sys.argv[1:], verb="server")

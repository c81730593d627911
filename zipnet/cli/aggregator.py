"""``zipnet aggregator``: run one node of the aggregation tree until it is told to stop."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from zipnet.cli import run
from zipnet.cli.app import new_app

__all__ = ["app", "main"]

app = new_app("Run an aggregator: fold envelopes, pass the sum on, relay rounds and records.")


@app.command()
def aggregator(
    descriptor: Annotated[
        Path | None, typer.Option(help="Signed instance descriptor (ZIPNET_DESCRIPTOR).")
    ] = None,
    instance: Annotated[
        str | None, typer.Option(help="Name of the instance (ZIPNET_INSTANCE).")
    ] = None,
    universe: Annotated[str | None, typer.Option(help="Universe of the instance.")] = None,
    secret_file: Annotated[
        Path | None, typer.Option(help="This node's secret (ZIPNET_SECRET_FILE).")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT for both transports, UDP and TCP.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="HOST:PORT on loopback for health and metrics.")
    ] = None,
    transport: Annotated[str | None, typer.Option(help="quic or tls, to dial other nodes.")] = None,
    bootstrap: Annotated[
        str | None, typer.Option(help="HOST:PORT of each committee server, by comma.")
    ] = None,
    operator: Annotated[
        str | None, typer.Option(help="Peer id of the operator the descriptor must be by.")
    ] = None,
    fold_deadline: Annotated[
        str | None, typer.Option(help="Time to fold a round, such as 800ms.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="development or production.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    config_key: Annotated[
        Path | None, typer.Option(help="Public file of who must have signed that file.")
    ] = None,
    committee_secret_file: Annotated[
        Path | None, typer.Option(hidden=True, help="Refused: an aggregator never holds it.")
    ] = None,
) -> None:
    """Run an aggregator: fold envelopes, pass the sum on, relay rounds and records."""
    from zipnet.cli.service import run_service
    from zipnet.node.aggregator_start import run_aggregator
    from zipnet.settings import load_aggregator

    flags: dict[str, object] = {
        "descriptor": descriptor,
        "committee_secret_file": committee_secret_file,
        "instance": instance,
        "universe": universe,
        "secret_file": secret_file,
        "listen": listen,
        "metrics": metrics,
        "transport": transport,
        "bootstrap": bootstrap,
        "operator": operator,
        "fold_deadline": fold_deadline,
        "profile": profile,
        "log_level": log_level,
        "config_key": config_key,
    }
    settings = load_aggregator(flags, os.environ, config)
    run_service(
        "zipnet-aggregator", "aggregator", settings, lambda stop: run_aggregator(settings, stop)
    )


def main() -> int:
    """Run ``zipnet-aggregator`` with the arguments of this process; returns the exit code."""
    return run(sys.argv[1:], verb="aggregator")

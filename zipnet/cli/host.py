"""``zipnet host``: several nodes of different instances in one process."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli.app import new_app
from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.host.guests import Guest
    from zipnet.settings import NodeSettings

app = new_app("Run nodes of several instances in one process, apart from each other.")

_MAX_GUESTS = 32


@app.command()
def host(
    server: Annotated[
        list[Path] | None,
        typer.Option(help="Settings file of a committee server, as for `zipnet server --config`."),
    ] = None,
    aggregator: Annotated[
        list[Path] | None,
        typer.Option(help="Settings file of an aggregator, as for `zipnet aggregator --config`."),
    ] = None,
    config_key: Annotated[
        Path | None, typer.Option(help="Public file of who must have signed the settings files.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run every node named until SIGTERM or Ctrl-C; one that fails is started again alone.

    Nodes share the process and nothing else. Settings come from the files only, never from
    ZIPNET_ variables, which could not say which node they are for.
    """
    from zipnet.cli.service import prepare_process, until_signal
    from zipnet.host.apart import require_apart
    from zipnet.host.guests import Host
    from zipnet.node.notify import ServiceNotifier
    from zipnet.settings import load_aggregator, load_server

    given: list[tuple[Path, Callable[..., NodeSettings]]] = []
    given += [(file, load_server) for file in server or []]
    given += [(file, load_aggregator) for file in aggregator or []]
    if not 0 < len(given) <= _MAX_GUESTS:
        raise ConfigError(
            f"{len(given)} nodes are named", hint=f"name 1 to {_MAX_GUESTS}: --server FILE"
        )
    settings = {str(file): _load(file, load, config_key) for file, load in given}
    if len(settings) < len(given):
        raise ConfigError("a settings file is named twice", hint="one file for each node")
    require_apart(settings)
    prepare_process("zipnet-host", "host", "host", nodes=settings.values(), log_level=log_level)
    guests = [_guest(name, one) for name, one in settings.items()]
    asyncio.run(until_signal(Host(guests, notifier=ServiceNotifier(os.environ)).run))


def _load(file: Path, load: Callable[..., NodeSettings], key: Path | None) -> NodeSettings:
    try:
        return load({"config_key": key}, {}, file)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}", hint=error.hint) from error


def _guest(file: str, settings: NodeSettings) -> Guest:
    from zipnet.host.guests import Guest
    from zipnet.node.aggregator_start import run_aggregator
    from zipnet.node.server_start import run_server
    from zipnet.settings import AggregatorSettings, ServerSettings

    name = f"{settings.instance}/{settings.node.name}"
    if isinstance(settings, ServerSettings):
        return Guest(name, settings.instance, "server", partial(run_server, settings))
    if isinstance(settings, AggregatorSettings):
        return Guest(name, settings.instance, "aggregator", partial(run_aggregator, settings))
    raise ConfigError(f"{file}: no node", hint="name a server's or an aggregator's settings")

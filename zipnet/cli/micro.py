"""``zipnet micro``: a whole network in one process and in memory, for one developer."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from zipnet.settings.values import Endpoint

app = new_app("Run a whole network in one process and in memory, to build applications against.")


@app.command()
def micro(
    descriptor: Annotated[
        Path | None,
        typer.Option(
            "--descriptor", "-d", help="Where to put the network's descriptor.  [micro.toml]"
        ),
    ] = None,
    gateway: Annotated[
        str | None,
        typer.Option(
            help="Address of the gateway's HTTP port.  [127.0.0.1:8640]", metavar="HOST:PORT"
        ),
    ] = None,
    servers: Annotated[int | None, typer.Option(help="Committee servers: 3, 5 or 7.  [3]")] = None,
    covers: Annotated[
        int | None,
        typer.Option(help="Publishers that send cover, so that there is a crowd.  [3]", min=2),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every round.")] = False,
) -> None:
    """Run servers, aggregator, cover and gateway in this process until SIGTERM or Ctrl-C.

    Everything is in memory; the descriptor's file goes when the network stops. One process holds
    every key, so nobody is anonymous towards it: use it to develop, never to hide.
    """
    from zipnet.cli.service import prepare_process, until_signal
    from zipnet.host.micro import INSTANCE, MicroOptions, run_micro
    from zipnet.settings import load_micro

    flags: dict[str, object] = {
        "descriptor": descriptor,
        "gateway": None if gateway is None else _endpoint(gateway),
        "servers": servers,
        "covers": covers,
        "log_level": "info" if verbose else None,
    }
    # Never from the environment: what it says is meant for nodes and clients.
    settings = load_micro(flags, {}, config)
    descriptor = settings.descriptor_file
    options = MicroOptions(
        descriptor=descriptor,
        servers=settings.servers,
        covers=settings.covers,
        gateway=settings.gateway,
    )
    prepare_process(
        "zipnet-micro",
        INSTANCE,
        "micro",
        nodes=[],
        log_level=settings.log_level,
        in_memory=True,
        stream=sys.stderr,
    )
    output.note("micro: one process holds every key: for development only, nobody is anonymous")

    def say(url: str) -> None:
        output.note(f"micro: the network is up; its descriptor is {descriptor}")
        output.note(f"micro: watch it at {url}")
        output.note(f"micro: try `zipnet publish -d {descriptor} -m hello`; Ctrl-C ends it")

    asyncio.run(until_signal(partial(run_micro, options, on_up=say)))
    output.note("micro: stopped; nothing of it is left")


def _endpoint(text: str) -> Endpoint:
    from zipnet.settings.values import parse_endpoint

    try:
        return parse_endpoint(text)
    except ValueError as error:
        raise ConfigError(f"--gateway: {error}", hint="write HOST:PORT") from None

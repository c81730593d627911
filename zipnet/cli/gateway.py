"""``zipnet gateway``: the broadcast over HTTP, and the observatory page."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.cli.lines import Notes
from zipnet.errors import ConfigError
from zipnet.settings import Endpoint, load_gateway
from zipnet.settings.values import parse_endpoint

if TYPE_CHECKING:
    from zipnet.gateway import GatewayOptions
    from zipnet.settings import GatewaySettings

app = new_app("Serve the broadcast over HTTP, with a page to watch it.")


@app.command()
def gateway(
    descriptor: Annotated[
        Path | None, typer.Option("--descriptor", "-d", help="The instance's descriptor file.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", help="Address of the HTTP port.  [127.0.0.1:8640]")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Serve no POST /v1/publish, take no part in rounds.")
    ] = False,
    public: Annotated[
        str | None,
        typer.Option("--public", help="The sentence that allows listening beyond loopback."),
    ] = None,
    publish_for_others: Annotated[
        str | None,
        typer.Option(
            "--publish-for-others", help="The sentence that lets other machines publish here."
        ),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Host name it answers to as well.")
    ] = None,
    from_sequence: Annotated[
        int, typer.Option("--from", min=0, help="First record to follow; older ones on demand.")
    ] = 0,
    transport: Annotated[str | None, typer.Option("--transport", help="quic or tls.")] = None,
    proxy: Annotated[
        str | None, typer.Option("--proxy", help="socks5://HOST:PORT towards the nodes; with tls.")
    ] = None,
    operator: Annotated[
        str | None, typer.Option("--operator", help="Peer id the descriptor must be signed by.")
    ] = None,
    instance: Annotated[
        str | None, typer.Option("--instance", help="Name the descriptor must have.")
    ] = None,
    token: Annotated[
        Path | None, typer.Option("--token", help="Capability, where the nodes ask for one.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")] = None,
    config_key: Annotated[
        Path | None, typer.Option(help="Public file of who must have signed that file.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on the way.")] = False,
) -> None:
    """Serve verified broadcasts as JSON and events, and a page that shows rounds as they happen.

    Whoever publishes through the gateway is known to it: only this machine may, unless told
    otherwise in so many words. Runs until SIGTERM or Ctrl-C.
    """
    from zipnet.gateway import GatewayOptions
    from zipnet.node.upstreams import upstreams
    from zipnet.posture import Subject, examine, probe_host, require_posture
    from zipnet.transport.egress import restrict_egress

    flags: dict[str, object] = {
        "descriptor": descriptor,
        "transport": transport,
        "operator": operator,
        "instance": instance,
        "token": token,
        "gateway": None if listen is None else _endpoint(listen),
        "read_only": True if read_only else None,
        "proxy": proxy,
        "config_key": config_key,
        "allow_public_gateway": public,
        "allow_publishing_for_others": publish_for_others,
    }
    settings = load_gateway(flags, os.environ, config)
    options = GatewayOptions(
        listen=settings.gateway,
        transport=settings.transport,
        proxy=settings.proxy,
        publishing=not settings.read_only,
        public=settings.public,
        publish_for_others=settings.publish_for_others,
        names=tuple(name or ()),
        start=from_sequence,
        servers_at=[(endpoint.host, endpoint.port) for endpoint in settings.server_endpoints],
        capability=settings.capability,
        bounds=settings.bounds,
    )
    options.require_allowed()
    if settings.is_production:
        require_posture(
            examine(Subject(settings, probe_host(settings), starting=True), "production")
        )
    for warning in settings.warnings:
        output.note(f"warning: {warning}")
    restrict_egress(upstreams(settings))
    asyncio.run(_serve(settings, options, Notes(quiet=quiet)))


def _endpoint(text: str) -> Endpoint:
    try:
        return parse_endpoint(text)
    except ValueError as error:
        raise ConfigError(
            f"--listen is {error}", hint="write host:port, such as 127.0.0.1:8640"
        ) from error


async def _serve(settings: GatewaySettings, options: GatewayOptions, notes: Notes) -> None:
    from zipnet.gateway import Gateway

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Gateway(settings.descriptor, options, on_trouble=notes.trouble) as running:
        output.data(running.url)
        await running.wait(stop)

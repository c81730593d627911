"""``zipnet health``: ask a node on this machine how it is, where there is no other HTTP client."""

from __future__ import annotations

import http.client
import json
from typing import Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.errors import ConfigError, TransportError
from zipnet.settings.values import parse_endpoint

app = new_app("Ask a node on this machine how it is; exit code 1 where it is not well.")

_TIMEOUT_S = 5.0
_MAX_ANSWER_BYTES = 256 * 1024
_OK = 200


@app.command()
def health(
    address: Annotated[
        str, typer.Argument(help="HOST:PORT of the node's METRICS, on loopback.")
    ] = "127.0.0.1:9464",
    ready: Annotated[
        bool, typer.Option("--ready", help="Ask whether it serves, and not only whether it lives.")
    ] = False,
) -> None:
    """Print what a node says of itself; with --ready each dependency that failed or is weak."""
    try:
        endpoint = parse_endpoint(address)
    except ValueError as error:
        raise ConfigError(f"{address!r}: {error}") from None
    if not endpoint.is_loopback:
        raise ConfigError(f"{address} is not on this machine", hint="write 127.0.0.1:PORT")
    status, body = _get(endpoint.host, endpoint.port, "/readyz" if ready else "/healthz")
    if ready:
        _tell(body)
    else:
        output.data("alive" if status == _OK else "not alive")
    if status != _OK:
        raise typer.Exit(1)


def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(_MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        text = f"nothing answers at {host}:{port}"
        raise TransportError(text, hint="METRICS of the node says where, its log too") from error
    finally:
        connection.close()


def _tell(body: bytes) -> None:
    """Print ``ready`` or ``not ready``, then a line for each dependency that is not well."""
    try:
        said = json.loads(body)
        rows = [
            (f"{state} {item['condition']}", str(item["reason"]))
            for state in ("failed", "degraded")
            for item in said[state]
        ]
        output.data("ready" if said["ready"] else "not ready")
    except (ValueError, KeyError, TypeError) as error:
        raise TransportError("what answers there is no node of ours") from error
    output.table(rows)

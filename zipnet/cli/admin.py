"""``zipnet admin``: what a running node's operators tell it to, over its admin socket (row M5)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.errors import AdmissionError
from zipnet.node.admin_client import call_admin
from zipnet.settings.tokenfile import read_statement_file, read_token_file
from zipnet.wire.admin import MAX_EXPORT_BYTES, AdminReply, AdminRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

app = new_app("Tell a running node what to do, over its admin socket.")

_Folder = Annotated[
    Path, typer.Option("--socket", help="Admin folder of the node, such as STATE/admin.")
]
_Tokens = Annotated[
    list[Path] | None,
    typer.Option("--token", help="An operator's capability; two operators' where verbs ask so."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Switch(StrEnum):
    """Whether a node lets its clients go."""

    ON = "on"
    OFF = "off"


@app.command()
def status(socket: _Folder, token: _Tokens = None, as_json: _Json = False) -> None:
    """Say how the node is; exit code 1 while it is not ready."""
    reply = _call(socket, token, AdminRequest(verb="status"))
    _print(reply, as_json=as_json)
    if reply.facts.get("ready") != "yes":
        raise typer.Exit(1)


@app.command()
def revoke(
    statement: Annotated[
        Path, typer.Argument(help="What `zipnet token revoke` wrote.", show_default=False)
    ],
    socket: _Folder,
    token: _Tokens = None,
    as_json: _Json = False,
) -> None:
    """Have the committee revoke a token or a peer, on all nodes and for good. Two operators."""
    signed = read_statement_file(statement)
    _print(_call(socket, token, AdminRequest(verb="revoke", statement=signed)), as_json=as_json)


@app.command("safe-mode")
def safe_mode(socket: _Folder, token: _Tokens = None) -> None:
    """Make a server sign and release nothing more, and serve readers only. Two operators.

    Only `zipnet safe-mode leave` on the stopped server takes it back.
    """
    _print(_call(socket, token, AdminRequest(verb="safe-mode")), as_json=False)


@app.command()
def rotate(
    kind: Annotated[str, typer.Argument(help="Which key.", show_default=False)],
    socket: _Folder,
    token: _Tokens = None,
) -> None:
    """Have the node begin to use a new key of a kind. Two operators."""
    _print(_call(socket, token, AdminRequest(verb="rotate", option=kind)), as_json=False)


@app.command()
def drain(
    switch: Annotated[Switch, typer.Argument(help="on or off.")],
    socket: _Folder,
    token: _Tokens = None,
) -> None:
    """Let clients and readers go and take none, before maintenance; or take them again."""
    _print(_call(socket, token, AdminRequest(verb="drain", option=switch.value)), as_json=False)


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; must not exist.")],
    socket: _Folder,
    token: _Tokens = None,
) -> None:
    """Copy the node's audit trail; `zipnet audit verify` checks the copy."""
    output.write_whole(out, _trail(socket, token))
    output.note(f"wrote {out}: {out.stat().st_size} bytes")


def _trail(socket: Path, token: list[Path] | None) -> Iterator[bytes]:
    """Ask for the trail piece by piece, up to the first that is not full.

    Not until there is nothing more: every call is an entry of the trail itself.
    """
    offset, piece = 0, b""
    while not offset or len(piece) == MAX_EXPORT_BYTES:
        request = AdminRequest(verb="export", option="audit", offset=offset)
        piece = _call(socket, token, request).data
        if not piece:
            return
        offset += len(piece)
        yield piece


@app.command()
def shutdown(socket: _Folder, token: _Tokens = None) -> None:
    """End the node in good order. Two operators."""
    _print(_call(socket, token, AdminRequest(verb="shutdown")), as_json=False)


def _call(folder: Path, tokens: list[Path] | None, request: AdminRequest) -> AdminReply:
    shown = [read_token_file(path)[0] for path in tokens or ()]
    complete = AdminRequest(
        verb=request.verb,
        option=request.option,
        offset=request.offset,
        statement=request.statement,
        tokens=shown,
    )
    reply = call_admin(folder, complete)
    if not reply.ok:
        raise AdmissionError(f"refused ({reply.code}): {reply.text}", code=reply.code)
    return reply


def _print(reply: AdminReply, *, as_json: bool) -> None:
    if as_json:
        output.json_line(reply.facts)
    else:
        output.table(reply.facts.items())

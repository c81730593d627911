"""``zipnet safe-mode``: look at, or take away, the mark a failed write left in a state folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.errors import ConfigError
from zipnet.storage.decommission import DECOMMISSIONED
from zipnet.storage.marker import SafeModeMarker, require_writable

if TYPE_CHECKING:
    from zipnet.storage.marker import SafeModeNote

app = new_app("Show or leave safe mode, while the server is stopped.")

_State = Annotated[Path, typer.Option(help="The server's state folder.")]


@app.command()
def show(state: _State) -> None:
    """Say whether a state folder is in safe mode, since when and why; exit code 1 if it is."""
    marker = _open(state)
    try:
        note = marker.read()
    finally:
        marker.close()
    if note is None:
        output.data("not in safe mode")
        return
    output.data(_told(note))
    raise typer.Exit(1)


@app.command()
def leave(state: _State) -> None:
    """Take the mark away, after trying that the disk takes writes again.

    The journals are read and checked when the server starts next. Nothing is repaired here. A
    folder that was decommissioned stays so.
    """
    marker = _open(state)
    try:
        note = marker.read()
        if note is None:
            output.data("not in safe mode")
            return
        if note.cause == DECOMMISSIONED:
            raise ConfigError(
                f"{state} was decommissioned for good: no server goes on from it",
                hint="begin with an empty folder and another node secret, as a server that is new",
            )
        require_writable(state)
        marker.clear()
    finally:
        marker.close()
    output.note(_told(note))
    output.data("left safe mode: the server may be started")


def _open(state: Path) -> SafeModeMarker:
    if not state.is_dir():
        raise ConfigError(f"{state} is no state folder", hint="write the folder given as --state")
    return SafeModeMarker(state)


def _told(note: SafeModeNote) -> str:
    since = datetime.fromtimestamp(note.since_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"in safe mode since {since}: {note.cause}: {note.text}"

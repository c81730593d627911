"""``zipnet decommission``: wipe the secrets of a stopped server, and keep what it proves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.errors import ConfigError
from zipnet.storage.decommission import wipe_secrets

app = new_app("Wipe the secrets of a stopped server.")


@app.command()
def decommission(
    state: Annotated[Path, typer.Option(help="The server's state folder.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Really do it: the server can never go on from here.")
    ] = False,
) -> None:
    """Overwrite and remove KEM keys and chain keys; records, journals and audit trail stay.

    The folder is marked first: a server started on it afterwards serves readers only. The node's
    own secret and the committee secret are files of their own: remove them yourself.
    """
    if not yes:
        raise ConfigError(f"this wipes the secrets in {state} for good", hint="say --yes to go on")
    wiped = wipe_secrets(state, now_ms=time.time_ns() // 1_000_000)
    output.data(f"decommissioned: {len(wiped)} files wiped")
    output.note("the secret files named in its settings are not in this folder: destroy them too")

"""``zipnet audit``: verify a node's audit trail, or print it for others to read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.settings.publicfile import read_public_file
from zipnet.storage.audit import read_trail

app = new_app("Verify or export an audit trail.")

_File = Annotated[Path, typer.Argument(help="The trail: audit.log in a state folder.")]
_Public = Annotated[
    Path | None, typer.Option("--public", help="The node's public file; checks who signed.")
]


@app.command()
def verify(file: _File, public: _Public = None) -> None:
    """Check every entry, checkpoint and signature; exit code 1 names the first wrong line."""
    signer = None if public is None else read_public_file(public, kind="node").identity
    verifier, entries = read_trail(file, signer)
    state = verifier.state
    output.data(
        f"audit ok: entries={len(entries)} checkpoints={verifier.checkpoints} "
        f"after_checkpoint={state.since_checkpoint} root={state.tree.root().hex()}"
    )
    if signer is None and verifier.checkpoints:
        output.note("whose checkpoints they are was not checked: name the node's --public file")


@app.command()
def export(
    file: _File,
    public: _Public = None,
    start: Annotated[int, typer.Option("--from", help="First entry to print.", min=0)] = 0,
) -> None:
    """Verify the trail, then print its entries as JSON lines with their hashes."""
    signer = None if public is None else read_public_file(public, kind="node").identity
    _, entries = read_trail(file, signer)
    for entry in entries[start:]:
        output.json_line(
            {
                "sequence": entry.sequence,
                "at": entry.at,
                "event": entry.event,
                "fields": dict(entry.fields),
                "hash": entry.hash.hex(),
            }
        )

"""``zipnet keygen``: make secrets. Prints peer ids, never a secret."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.protocol.ids import format_peer_id
from zipnet.settings.keyfiles import create_identity_files, create_secret_file, public_path

app = new_app("Make a secret: of a node, of the committee, or of the operator.")


class Kind(StrEnum):
    """What the secret is for."""

    NODE = "node"
    COMMITTEE = "committee"
    OPERATOR = "operator"


@app.command()
def keygen(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File the secret goes to; must not exist.")
    ],
    kind: Annotated[Kind, typer.Argument(help="What the secret is for.")] = Kind.NODE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make the secret of a node, the committee or the operator.

    Draws 32 random bytes into FILE (mode 0600) and writes the public half to FILE.pub.

    A committee secret has no public half: only its fingerprint goes into the descriptor. Give it to
    every committee server and to nobody else.
    """
    if kind is Kind.COMMITTEE:
        create_secret_file(out, os.urandom)
        output.note(f"wrote {out} (0600): give it to committee servers only")
        if as_json:
            output.json_line({"kind": kind.value, "secret_file": str(out)})
        return
    public = create_identity_files(out, kind.value, os.urandom)
    peer = format_peer_id(public.peer_id)
    output.note(f"wrote {out} (0600) and {public_path(out)}")
    if as_json:
        files = {"secret_file": str(out), "public_file": str(public_path(out))}
        output.json_line({"kind": kind.value, "peer_id": peer, **files})
    else:
        output.data(peer)

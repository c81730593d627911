"""``zipnet keygen``: make secrets. Prints peer ids, never a secret."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.cli.output import ask_pin
from zipnet.errors import ConfigError
from zipnet.protocol.ids import format_peer_id
from zipnet.settings.keyfiles import (
    create_identity_files,
    create_secret_file,
    create_token_files,
    public_path,
)
from zipnet.settings.tokencustody import TokenPlace, read_pin

if TYPE_CHECKING:
    from zipnet.settings.publicfile import PublicFile

app = new_app("Make a secret: of a node, of the committee, or of the operator.")


_KEY_NAME = "zipnet-operator"


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
    token_module: Annotated[
        Path | None,
        typer.Option(help="PKCS#11 library: an operator's Ed25519 key is made in a token."),
    ] = None,
    token: Annotated[str | None, typer.Option(help="Label of the token.")] = None,
    key_name: Annotated[
        str | None, typer.Option(help="Label of the key in the token.  [zipnet-operator]")
    ] = None,
    pin_file: Annotated[
        Path | None, typer.Option(help="File of the token's PIN; asked for where it is not given.")
    ] = None,
) -> None:
    """Make the secret of a node, the committee or the operator.

    Draws 32 random bytes into FILE (mode 0600) and writes the public half to FILE.pub. With
    --token-module the operator's Ed25519 key is made in a token and stays there; FILE says where it
    is, and FILE.mldsa holds the secret of the ML-DSA half, which tokens do not know yet.

    A committee secret has no public half: only its fingerprint goes into the descriptor. Give it to
    every committee server and to nobody else.
    """
    if kind is Kind.COMMITTEE:
        create_secret_file(out, os.urandom)
        output.note(f"wrote {out} (0600): give it to committee servers only")
        if as_json:
            output.json_line({"kind": kind.value, "secret_file": str(out)})
        return
    if token_module is not None:
        public = _in_token(
            out, kind, TokenPlace(token_module, token or "", key_name or _KEY_NAME), pin_file
        )
        output.note(f"wrote {out}, {out}.mldsa (0600) and {public_path(out)}")
    else:
        public = create_identity_files(out, kind.value, os.urandom)
        output.note(f"wrote {out} (0600) and {public_path(out)}")
    peer = format_peer_id(public.peer_id)
    if as_json:
        files = {"secret_file": str(out), "public_file": str(public_path(out))}
        output.json_line({"kind": kind.value, "peer_id": peer, **files})
    else:
        output.data(peer)


def _in_token(out: Path, kind: Kind, place: TokenPlace, pin_file: Path | None) -> PublicFile:
    if kind is not Kind.OPERATOR:
        raise ConfigError(
            f"a {kind.value}'s secret cannot be in a token",
            hint="TLS and key agreement need it in the node's own memory",
        )
    if not place.token:
        raise ConfigError("--token-module was given without --token", hint="name the token")
    pin = ask_pin(f"PIN of {place.described}: ") if pin_file is None else read_pin(pin_file)
    return create_token_files(out, place, pin, pin_file, os.urandom)

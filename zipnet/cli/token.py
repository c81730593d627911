"""``zipnet token``: make, narrow, look at and revoke capabilities (row M2, row Z26)."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from zipnet.access.capability import (
    MAX_LIFETIME_S,
    Capability,
    CapabilityRole,
    inspect_capability,
    verify_capability,
)
from zipnet.access.minting import attenuate_capability, issuer_key, mint_capability
from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.errors import AdmissionError, ConfigError, VerificationError
from zipnet.protocol.ids import format_peer_id, parse_peer_id
from zipnet.protocol.revocation import (
    RevokedKind,
    open_revocation,
    sign_revocation,
    sign_warrant,
)
from zipnet.settings import read_descriptor
from zipnet.settings.keycustody import signer
from zipnet.settings.keyfiles import create_secret_file
from zipnet.settings.publicfile import read_public_file
from zipnet.settings.secretfiles import read_secret_file
from zipnet.settings.tokenfile import (
    read_token_file,
    read_warrant_file,
    write_over_token_file,
    write_statement_file,
    write_token_file,
    write_warrant_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.protocol.secret import Secret

app = new_app("Make, narrow, look at and revoke capability tokens.")

_T = TypeVar("_T")
_ISSUER = "issuer1"
_HOUR_S = 3600
_MAX_HOURS = MAX_LIFETIME_S // _HOUR_S
_ID_BYTES = 32
_Out = Annotated[Path, typer.Option("--out", "-o", help="File to write; must not exist.")]
_Descriptor = Annotated[Path, typer.Option(help="Descriptor of the instance it is for.")]
_Key = Annotated[Path, typer.Option(help="Key file of whoever signs.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Peer = Annotated[
    str | None, typer.Option("--peer", help="Only this peer may show it: zp1 and 64 digits.")
]


@app.command()
def keygen(out: _Out) -> None:
    """Make the secret of an issuer, and print the key nodes are given as TOKEN_ISSUERS."""
    create_secret_file(out, os.urandom)
    secret, _ = read_secret_file(out, what="--out")
    with secret:
        key = issuer_key(secret)
    output.note(f"wrote {out} (0600): whoever has it makes tokens")
    output.data(_ISSUER + key.hex())


@app.command()
def mint(
    key: _Key,
    descriptor: _Descriptor,
    role: Annotated[list[CapabilityRole], typer.Option(help="What its holder may do; repeat.")],
    out: _Out,
    hours: Annotated[int, typer.Option(help="How long it is good.", min=1, max=_MAX_HOURS)] = 7
    * 24,
    peer: _Peer = None,
) -> None:
    """Sign a token for one group and some roles, good for thirty days at most."""
    trusted = read_descriptor(descriptor)
    bound = None if peer is None else parse_peer_id(peer)
    secret, _ = read_secret_file(key, what="--key")
    with secret:
        token = mint_capability(
            secret,
            group=trusted.group,
            roles=role,
            now_s=int(time.time()),
            lifetime_s=hours * _HOUR_S,
            peer=bound,
        )
        write_token_file(out, token, issuer_key(secret))
    output.note(f"wrote {out} (0600): whoever has it may use it")
    output.data(inspect_capability(token).key_id)


@app.command()
def attenuate(
    token: Annotated[Path, typer.Option(help="Token to take from.")],
    out: _Out,
    role: Annotated[
        list[CapabilityRole] | None, typer.Option(help="The only roles left; repeat.")
    ] = None,
    hours: Annotated[
        int | None, typer.Option(help="An end that many hours from now.", min=1)
    ] = None,
    peer: _Peer = None,
) -> None:
    """Make a token that grants less out of another one; no key is needed, nothing undoes it."""
    given, issuer = read_token_file(token)
    held = _ours(lambda: inspect_capability(given)).roles
    if role and held.isdisjoint(role):
        raise ConfigError(
            f"nothing would be left: the token grants {', '.join(sorted(held)) or 'nothing'}",
            hint="give --role with some of what it grants",
        )
    narrowed = _ours(
        lambda: attenuate_capability(
            given,
            issuer,
            roles=role or None,
            expires_s=None if hours is None else int(time.time()) + hours * _HOUR_S,
            peer=None if peer is None else parse_peer_id(peer),
        )
    )
    write_token_file(out, narrowed, issuer)
    output.note(f"wrote {out} (0600)")
    output.data(inspect_capability(narrowed).key_id)


@app.command()
def renew(
    file: Annotated[
        list[Path], typer.Argument(help="Token files; each is replaced.", show_default=False)
    ],
    key: _Key,
    left: Annotated[
        int, typer.Option(help="Only where at most this percentage of its life is left.", max=100)
    ] = 50,
) -> None:
    """Mint tokens anew that grant the same for as long again; a node reads its file by itself.

    A token that was revoked is renewed too: revocations are not known here. Delete its file.
    """
    secret, _ = read_secret_file(key, what="--key")
    with secret:
        for path in file:
            if (token := _renewed(path, secret, left)) is not None:
                write_over_token_file(path, token, issuer_key(secret))
                output.note(f"renewed {path}")
                output.data(inspect_capability(token).key_id)


def _renewed(path: Path, secret: Secret, left: int) -> bytes | None:
    """Return what takes a token's place; None where it is too early."""
    given, _ = read_token_file(path)
    said = _ours(lambda: inspect_capability(given))
    try:
        # As of the day it was made: what was narrowed since is narrow, what has expired was good.
        found = verify_capability(
            given,
            issuers=(issuer_key(secret),),
            group=said.group,
            now_s=said.issued_s,
            presenter=said.peer,
        )
    except AdmissionError as error:
        raise ConfigError(f"{path}: {error}", hint="name the issuer it is by") from error
    now_s, lifetime_s = int(time.time()), said.expires_s - said.issued_s
    if (said.expires_s - now_s) * 100 > lifetime_s * left:
        return None
    return mint_capability(
        secret,
        group=found.group,
        roles=found.roles,
        now_s=now_s,
        lifetime_s=lifetime_s,
        peer=found.peer,
    )


@app.command()
def inspect(
    token: Annotated[Path, typer.Argument(help="Token file.", show_default=False)],
    descriptor: Annotated[
        Path | None, typer.Option(help="Descriptor to check it against, as a node would.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show what a token says; with --descriptor also whether it holds, exit code 1 if not.

    The token itself is never printed.
    """
    given, issuer = read_token_file(token)
    found = _ours(lambda: inspect_capability(given))
    state = "not checked"
    if descriptor is not None:
        group = read_descriptor(descriptor).group
        try:
            verify_capability(
                given, issuers=(issuer,), group=group, now_s=time.time(), presenter=found.peer
            )
            state = "holds"
        except AdmissionError as error:
            state = error.code
    rows = {**_told(found), "issuer": _ISSUER + issuer.hex(), "state": state}
    if as_json:
        output.json_line(rows)
    else:
        output.table(rows.items())
    if state not in {"holds", "not checked"}:
        raise typer.Exit(1)


@app.command()
def revoke(
    descriptor: _Descriptor,
    key: _Key,
    out: _Out,
    token: Annotated[
        Path | None, typer.Option(help="Token to revoke, with all that came of it.")
    ] = None,
    token_id: Annotated[
        str | None,
        typer.Option("--id", help="Whole id of a token that is not at hand."),
    ] = None,
    peer: Annotated[
        str | None, typer.Option(help="Peer to revoke: a client, an aggregator or a server.")
    ] = None,
    warrant: Annotated[
        Path | None, typer.Option(help="The operator's warrant, where another key signs.")
    ] = None,
) -> None:
    """Sign the statement that a token or a peer no longer counts; `zipnet admin revoke` uses it.

    It is good for a day. Nothing takes a revocation back.
    """
    trusted = read_descriptor(descriptor)
    kind, target = _target(token, token_id, peer)
    granted = b"" if warrant is None else read_warrant_file(warrant)
    now_ms = time.time_ns() // 1_000_000
    with signer(key, what="--key", ask_pin=output.ask_pin) as identity:
        statement = sign_revocation(trusted.group, kind, target, now_ms, identity, granted)
    operator = trusted.descriptor.operator.ed25519
    try:
        open_revocation(statement, trusted.group, operator)
    except VerificationError as error:
        raise ConfigError(
            "this key may not revoke in this group",
            hint="sign with the operator's key, or give --warrant for this one",
        ) from error
    write_statement_file(out, statement)
    output.note(f"wrote {out}: hand it to any server with `zipnet admin revoke`")


@app.command()
def warrant(
    descriptor: _Descriptor,
    key: Annotated[Path, typer.Option(help="Key file of the operator.")],
    to: Annotated[Path, typer.Option(help="Public file of the operator's deputy (kind operator).")],
    out: _Out,
    hours: Annotated[int, typer.Option(help="How long it is good.", min=1, max=_MAX_HOURS)] = 7
    * 24,
) -> None:
    """Let another key revoke in the operator's place for a while."""
    trusted = read_descriptor(descriptor)
    deputy = read_public_file(to, kind="operator")
    until_ms = (int(time.time()) + hours * _HOUR_S) * 1000
    with signer(key, what="--key", ask_pin=output.ask_pin) as operator:
        if operator.public != trusted.descriptor.operator:
            raise ConfigError("--key is not the operator's secret", hint="use the descriptor's")
        write_warrant_file(
            out, sign_warrant(trusted.group, deputy.identity.ed25519, until_ms, operator)
        )
    output.note(f"wrote {out}: {format_peer_id(deputy.peer_id)} may revoke for {hours} hours")


def _target(
    token: Path | None, token_id: str | None, peer: str | None
) -> tuple[RevokedKind, bytes]:
    if sum(one is not None for one in (token, token_id, peer)) != 1:
        raise ConfigError("name one thing to revoke", hint="give --token, --id or --peer")
    if peer is not None:
        return RevokedKind.PEER, parse_peer_id(peer)
    if token is not None:
        given, _ = read_token_file(token)
        return RevokedKind.TOKEN, _ours(lambda: inspect_capability(given)).ids[-1]
    try:
        target = bytes.fromhex(token_id or "")
    except ValueError:
        target = b""
    if len(target) != _ID_BYTES:
        raise ConfigError("--id is not an id", hint="write 64 digits, as `token inspect` shows")
    return RevokedKind.TOKEN, target


def _ours(look: Callable[[], _T]) -> _T:
    """What is wrong with a file the caller named is the caller's mistake."""
    try:
        return look()
    except AdmissionError as error:
        raise ConfigError(str(error), hint="name the file `zipnet token mint` wrote") from error


def _told(found: Capability) -> dict[str, str]:
    return {
        "id": found.ids[-1].hex(),
        "made_from": ",".join(one.hex() for one in found.ids[:-1]) or "none",
        "group": found.group.hex(),
        "roles": ",".join(sorted(found.roles)),
        "peer": "whoever holds it" if found.peer is None else format_peer_id(found.peer),
        "issued": _date(found.issued_s),
        "expires": _date(found.expires_s),
    }


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

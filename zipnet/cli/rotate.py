"""``zipnet rotate``: one command for each kind of key (rows Z6, H3; decision 0009).

What clients and nodes know from the descriptor is rotated by a version that follows it: the command
writes it, signed, and the operator puts it where one server finds its descriptor. What only a node
knows is rotated over the node's admin socket. What is replaced stays good for a while, no longer.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.cli.versions import begins_now
from zipnet.errors import AdmissionError, ConfigError, VerificationError
from zipnet.node.admin_client import call_admin
from zipnet.protocol.descriptor import sign_descriptor
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import committee_fingerprint, format_peer_id
from zipnet.protocol.succession import hand_over, succeed
from zipnet.settings import read_descriptor
from zipnet.settings.descriptorfile import NodeDraft, compose_successor
from zipnet.settings.keycustody import signer
from zipnet.settings.keyfiles import write_new
from zipnet.settings.publicfile import read_public_file
from zipnet.settings.secretfiles import read_secret_file
from zipnet.settings.tokenfile import read_token_file
from zipnet.settings.values import parse_endpoint
from zipnet.transport.certificate import node_certificate
from zipnet.wire.admin import AdminRequest

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import TrustedDescriptor

app = new_app("Rotate a key, of any kind, while traffic flows.")

_MAX_GENERATIONS = 1000

_File = Annotated[Path, typer.Argument(help="The version in force, signed.", show_default=False)]
_Out = Annotated[Path, typer.Option("--out", "-o", help="File to write; must not exist.")]
_Key = Annotated[Path, typer.Option(help="The operator's key file.", show_default=False)]


@app.command("descriptor-key")
def descriptor_key(
    file: _File,
    key: _Key,
    new_key: Annotated[
        Path, typer.Option(help="Key file of the operator from now on.", show_default=False)
    ],
    out: _Out,
) -> None:
    """Hand the instance over to another operator's key.

    The key before may sign revocations until the version after this one, and no more descriptors.
    """
    current = read_descriptor(file)
    with ExitStack() as stack:
        before = stack.enter_context(signer(key, what="--key", ask_pin=output.ask_pin))
        after = stack.enter_context(signer(new_key, what="--new-key", ask_pin=output.ask_pin))
        in_force = current.descriptor.operator.peer_id
        if before.peer_id != in_force:
            raise ConfigError(
                "--key is not the operator's key in force",
                hint=f"that is {format_peer_id(in_force)}",
            )
        if before.peer_id == after.peer_id:
            raise ConfigError("--new-key is the key in force", hint="zipnet keygen operator")
        text = compose_successor(
            current.descriptor, not_before=begins_now(current.descriptor), operator=after.public
        )
        _write(current, hand_over(text, before, after), out)
    output.data(format_peer_id(after.peer_id))


@app.command()
def identity(
    file: _File,
    seat: Annotated[str, typer.Option(help="Name of the server or aggregator.")],
    public: Annotated[
        Path, typer.Option(help="Public file of its new node secret.", show_default=False)
    ],
    key: _Key,
    out: _Out,
    endpoint: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of the process with the new secret; as before without."),
    ] = None,
) -> None:
    """Give a node another node secret, and so other identity keys and another TLS key.

    Start a process with the new secret first (a server's with an empty state folder); the one
    before stops by itself. Clients register anew where it is a server's.
    """
    current = read_descriptor(file)
    servers, drafts = _drafts_of(current)
    index = _place(drafts, seat, file)
    new = read_public_file(public, kind="node")
    draft = replace(drafts[index], public=new)
    if index < servers:
        draft = replace(draft, since=current.version + 1)
    if endpoint is not None:
        try:
            draft = replace(draft, endpoint=parse_endpoint(endpoint))
        except ValueError as error:
            raise ConfigError(f"--endpoint: {error}") from None
    drafts[index] = draft
    _sign(current, _with_nodes(current, drafts), key, out)
    output.data(format_peer_id(new.peer_id))


@app.command()
def tls(
    file: _File,
    node: Annotated[str, typer.Option(help="Name of the server or aggregator.")],
    secret_file: Annotated[
        Path, typer.Option(help="Its node secret; it signs the certificate.", show_default=False)
    ],
    key: _Key,
    out: _Out,
) -> None:
    """Give a node another TLS certificate for the same key; the one before holds for one version.

    For another TLS key rotate the identity: the two are one key.
    """
    current = read_descriptor(file)
    _, drafts = _drafts_of(current)
    index = _place(drafts, node, file)
    public = drafts[index].public
    secret, _ = read_secret_file(secret_file, what="--secret-file")
    with secret:
        owner = Identity.from_secret(secret)
    if owner.peer_id != public.peer_id:
        raise ConfigError(f"--secret-file is not the secret of {node!r}")
    private_key = owner.ed25519_private_key()
    known = [node_certificate(private_key, at).der for at in range(_MAX_GENERATIONS)]
    at = known.index(public.certificate) if public.certificate in known else -1
    if not 0 <= at + 1 < _MAX_GENERATIONS:
        raise ConfigError(f"{node!r} has had all its certificates", hint="rotate its identity")
    drafts[index] = replace(drafts[index], public=replace(public, certificate=known[at + 1]))
    _sign(current, _with_nodes(current, drafts), key, out)
    output.note(f"{node}: certificate {at + 1} takes the place of certificate {at}")


@app.command()
def dh(
    socket: Annotated[
        Path, typer.Option("--socket", help="Admin folder of the server, such as STATE/admin.")
    ],
    token: Annotated[
        list[Path] | None, typer.Option("--token", help="Two operators' capabilities.")
    ] = None,
) -> None:
    """Have a server announce another key-agreement key now, before its epoch is over.

    Registrations under the key before are refused from the moment the new one is announced; those
    that are committed go on.
    """
    shown = [read_token_file(path)[0] for path in token or ()]
    reply = call_admin(socket, AdminRequest(verb="rotate", option="dh", tokens=shown))
    if not reply.ok:
        raise AdmissionError(f"refused ({reply.code}): {reply.text}", code=reply.code)
    output.table(reply.facts.items())


@app.command("committee-secret")
def committee_secret(
    file: _File,
    new_secret_file: Annotated[
        Path,
        typer.Option(help="The new one, from zipnet keygen committee.", show_default=False),
    ],
    key: _Key,
    out: _Out,
) -> None:
    """Let another committee secret take the place of the one in force.

    First put it on every server, beside the present one, as FILE.next (or where the setting
    next_committee_secret_file says): running servers find it. Handshakes are believed under either
    until the version after this one; then move FILE.next over FILE.
    """
    current = read_descriptor(file)
    secret, _ = read_secret_file(new_secret_file, what="--new-secret-file")
    with secret:
        fingerprint = committee_fingerprint(secret, current.descriptor.instance)
    if fingerprint == current.descriptor.secret_fingerprint:
        raise ConfigError(
            "--new-secret-file holds the secret in force", hint="zipnet keygen committee"
        )
    _sign(
        current,
        compose_successor(
            current.descriptor,
            not_before=begins_now(current.descriptor),
            rotated_secret=fingerprint,
        ),
        key,
        out,
    )
    output.note("every server needs the new secret before one of them is given this file")
    output.data(fingerprint.hex()[:16])


def _drafts_of(current: TrustedDescriptor) -> tuple[int, list[NodeDraft]]:
    """Return how many servers there are, and the drafts of servers and aggregators in one list."""
    servers = [NodeDraft.of(item) for item in current.descriptor.servers]
    tree = [NodeDraft.of(item.node, item.parent) for item in current.descriptor.aggregators]
    return len(servers), servers + tree


def _with_nodes(current: TrustedDescriptor, drafts: list[NodeDraft]) -> bytes:
    count = len(current.descriptor.servers)
    return compose_successor(
        current.descriptor,
        not_before=begins_now(current.descriptor),
        servers=drafts[:count],
        aggregators=drafts[count:],
    )


def _place(drafts: list[NodeDraft], name: str, file: Path) -> int:
    for index, draft in enumerate(drafts):
        if draft.name == name:
            return index
    names = ", ".join(draft.name for draft in drafts)
    raise ConfigError(f"{file} has no node {name!r}", hint=f"it has {names}")


def _sign(current: TrustedDescriptor, text: bytes, key: Path, out: Path) -> None:
    with signer(key, what="--key", ask_pin=output.ask_pin) as operator:
        _write(current, sign_descriptor(text, operator), out)


def _write(current: TrustedDescriptor, signed: bytes, out: Path) -> None:
    try:
        new = succeed(current, signed)
    except VerificationError as error:
        raise ConfigError(f"nothing written: {error}") from error
    write_new(out, signed.decode(), mode=0o644)
    output.note(
        f"wrote {out}, version {new.version}: put it where one server finds its descriptor, "
        "and the log carries it to the others"
    )

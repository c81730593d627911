"""``zipnet descriptor replace`` and ``renew``: the version that follows one (decision 0007).

Both read the version in force and write the next one, unsigned; the operator signs it, and it takes
the place of the file one server was started with. The others hear of it through the log.
"""

from __future__ import annotations

from dataclasses import replace as changed
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.errors import ConfigError
from zipnet.protocol.descriptor import (
    MAX_DESCRIPTOR_BYTES,
    parse_descriptor,
    trust_descriptor,
)
from zipnet.settings.bounded import read_bounded
from zipnet.settings.descriptorfile import (
    NodeDraft,
    compose_successor,
    parse_node_draft,
    with_entities,
)
from zipnet.settings.keyfiles import write_new
from zipnet.settings.values import parse_endpoint

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import Descriptor

__all__ = ["begins_now", "renew", "replace"]

_Old = Annotated[Path, typer.Argument(help="The version in force, signed.", show_default=False)]
_Entity = Annotated[
    list[str] | None, typer.Option(help="NAME=TEXT: who answers for a node before the law.")
]
_Out = Annotated[Path, typer.Option("--out", "-o", help="File to write; must not exist.")]


def replace(
    file: _Old,
    seat: Annotated[str, typer.Option(help="Name of the server that goes.")],
    server: Annotated[
        str,
        typer.Option(help="NAME=HOST:PORT=PUBFILE[,fault-domain=WORD] of the one that comes."),
    ],
    out: _Out,
    entity: _Entity = None,
    days: Annotated[
        int | None, typer.Option(help="Days of validity from now; as it was without.", min=1)
    ] = None,
) -> None:
    """Write the version in which another server has a seat; clients register anew under it."""
    old = _read(file)
    drafts = [NodeDraft.of(node) for node in old.servers]
    places = [index for index, draft in enumerate(drafts) if draft.name == seat]
    if not places:
        names = ", ".join(draft.name for draft in drafts)
        raise ConfigError(f"--seat: {file} has no server {seat!r}", hint=f"it has {names}")
    newcomer = parse_node_draft(server, what="--server", with_parent=False)
    known = {node.peer_id for node in old.servers}
    if newcomer.public.peer_id in known:
        raise ConfigError(
            "--server: that identity is of the committee already",
            hint="give the server that comes a node secret of its own: zipnet keygen node",
        )
    drafts[places[0]] = changed(newcomer, since=old.version + 1)
    drafts = with_entities(drafts, entity or ())
    text = compose_successor(old, servers=drafts, not_before=begins_now(old), not_after=_end(days))
    _write(text, out)


def renew(
    file: _Old,
    out: _Out,
    entity: _Entity = None,
    days: Annotated[
        int | None, typer.Option(help="Days of validity from now; as it was without.", min=1)
    ] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="NAME=HOST:PORT of a node that moves.")
    ] = None,
    aggregator: Annotated[
        list[str] | None,
        typer.Option(help="NAME=HOST:PORT=PUBFILE[,parent=NAME]; these and no others from now on."),
    ] = None,
) -> None:
    """Write the version with another validity, other addresses, entities or aggregators."""
    old = _read(file)
    moves = dict(_move(text) for text in endpoint or ())
    servers = [_moved(NodeDraft.of(node), moves) for node in old.servers]
    if aggregator:
        tree = [
            parse_node_draft(text, what="--aggregator", with_parent=True) for text in aggregator
        ]
    else:
        tree = [_moved(NodeDraft.of(item.node, item.parent), moves) for item in old.aggregators]
    unknown = sorted(moves)
    if unknown:
        raise ConfigError(f"--endpoint: {file} has no node {unknown[0]!r}")
    nodes = with_entities([*servers, *tree], entity or ())
    servers, tree = nodes[: len(servers)], nodes[len(servers) :]
    text = compose_successor(
        old,
        servers=servers,
        aggregators=tree,
        not_before=begins_now(old),
        not_after=_end(days),
    )
    _write(text, out)


def _read(file: Path) -> Descriptor:
    data = read_bounded(file, MAX_DESCRIPTOR_BYTES, what="descriptor")
    try:
        old = parse_descriptor(data)
        # One that has expired is renewed too; one that was altered would be signed unseen.
        return trust_descriptor(old, now=old.not_before).descriptor
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}", hint=error.hint) from error


def begins_now(old: Descriptor) -> datetime:
    """Return when the version after one begins: the ages of the keys it brings count from then."""
    return max(old.not_before, datetime.now(UTC).replace(microsecond=0))


def _end(days: int | None) -> datetime | None:
    if days is None:
        return None
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


def _move(text: str) -> tuple[str, str]:
    name, _, address = text.partition("=")
    if not name or not address:
        raise ConfigError(f"--endpoint {text[:64]!r} is not complete", hint="write NAME=HOST:PORT")
    return name, address


def _moved(draft: NodeDraft, moves: dict[str, str]) -> NodeDraft:
    address = moves.pop(draft.name, None)
    if address is None:
        return draft
    try:
        return changed(draft, endpoint=parse_endpoint(address))
    except ValueError as error:
        raise ConfigError(f"--endpoint {draft.name!r}: {error}") from None


def _write(text: bytes, out: Path) -> None:
    write_new(out, text.decode(), mode=0o644)
    version = parse_descriptor(text).version
    output.note(
        f"wrote {out}, version {version}, not signed yet: zipnet descriptor sign {out} --key FILE"
    )

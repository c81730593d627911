"""Compose the text of an instance descriptor; the operator signs it afterwards.

The schema belongs to :mod:`zipnet.protocol.descriptor`, which parses what is composed here.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError
from zipnet.protocol.attestation import ATTESTATION_OFF
from zipnet.protocol.descriptor import parse_descriptor
from zipnet.protocol.ids import committee_fingerprint, format_peer_id, instance_id
from zipnet.settings.attestationfile import attestation_lines
from zipnet.settings.publicfile import PublicFile, read_public_file
from zipnet.settings.values import Endpoint, parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from zipnet.protocol.attestation import AttestationTerms
    from zipnet.protocol.descriptor import Descriptor, NodeEntry
    from zipnet.protocol.identity import PublicIdentity
    from zipnet.protocol.ids import Digest
    from zipnet.protocol.params import Cadence, RoundParams
    from zipnet.protocol.secret import Secret

__all__ = [
    "NodeDraft",
    "compose_descriptor",
    "compose_successor",
    "parse_node_draft",
    "with_entities",
]

_PARENT = "parent"
_FAULT_DOMAIN = "fault-domain"


@dataclass(frozen=True, slots=True)
class NodeDraft:
    """A node on its way into a descriptor; ``parent`` is an aggregator's name or None.

    ``fault_domain`` is what it fails together with, such as a data centre, ``entity`` who answers
    for it before the law; empty says nothing.
    """

    name: str
    endpoint: Endpoint
    public: PublicFile
    parent: str | None = None
    fault_domain: str = ""
    since: int = 0
    entity: str = ""

    @staticmethod
    def of(node: NodeEntry, parent: str | None = None) -> NodeDraft:
        """Return a node of a descriptor as it stands there."""
        public = PublicFile("node", node.identity, node.certificate)
        endpoint = Endpoint(node.host, node.port)
        said = (node.fault_domain, node.since, node.entity)
        return NodeDraft(node.name, endpoint, public, parent, *said)


def parse_node_draft(text: str, *, what: str, with_parent: bool) -> NodeDraft:
    """Read ``NAME=HOST:PORT=PUBFILE[,fault-domain=WORD]``, for an aggregator also ``,parent=NAME``.

    Args:
        text: The text.
        what: The option it came from, for the error.
        with_parent: Whether a parent may be named.

    Raises:
        ConfigError: When the text has another shape or the public file cannot be used.
    """
    form = "NAME=HOST:PORT=PUBFILE[,fault-domain=WORD]" + ("[,parent=NAME]" if with_parent else "")
    name, _, rest = text.partition("=")
    address, _, file = rest.partition("=")
    file, more = _split_words(file, (_FAULT_DOMAIN, _PARENT) if with_parent else (_FAULT_DOMAIN,))
    if not name or not file or "" in more.values():
        raise ConfigError(f"{what} {name[:64]!r} is not complete", hint=f"write {form}")
    _, comma, stray = file.rpartition(",")
    if comma and "=" in stray:
        raise ConfigError(
            f"{what} {name[:64]!r}: nothing is called {stray.partition('=')[0][:64]!r} here",
            hint=f"write {form}",
        )
    try:
        endpoint = parse_endpoint(address)
    except ValueError as error:
        raise ConfigError(f"{what} {name[:64]!r}: {error}", hint=f"write {form}") from None
    public = read_public_file(Path(file), kind="node")
    return NodeDraft(name, endpoint, public, more.get(_PARENT), more.get(_FAULT_DOMAIN, ""))


def with_entities(drafts: Sequence[NodeDraft], entities: Sequence[str]) -> list[NodeDraft]:
    """Return nodes with the legal entities that ``NAME=TEXT`` gives them.

    Raises:
        ConfigError: When one has another shape, or names no node of these.
    """
    given: dict[str, str] = {}
    for text in entities:
        name, equals, entity = text.partition("=")
        if not equals or not entity:
            raise ConfigError(f"--entity {name[:64]!r} is not complete", hint="write NAME=TEXT")
        given[name] = entity
    unknown = sorted(given.keys() - {draft.name for draft in drafts})
    if unknown:
        raise ConfigError(f"--entity: there is no node {unknown[0]!r}")
    return [replace(d, entity=given.get(d.name, d.entity)) for d in drafts]


def _split_words(file: str, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Take ``,name=value`` off the end of a file's name, each name once."""
    more: dict[str, str] = {}
    while True:
        rest, _, last = file.rpartition(",")
        name, equals, value = last.partition("=")
        if not rest or not equals or name not in names or name in more:
            return file, more
        file, more[name] = rest, value


def compose_descriptor(  # noqa: PLR0913 - one argument for each thing a descriptor says
    *,
    name: str,
    universe: str,
    version: int,
    not_before: datetime,
    not_after: datetime,
    max_absent: int,
    committee_secret: Secret,
    operator: PublicIdentity,
    params: RoundParams,
    cadence: Cadence,
    servers: Sequence[NodeDraft],
    aggregators: Sequence[NodeDraft],
    attestation: AttestationTerms = ATTESTATION_OFF,
) -> bytes:
    """Write an unsigned descriptor.

    Only the fingerprint of the committee secret goes in. The text is parsed once before it is
    returned, so what the network would refuse is refused here.

    Raises:
        ConfigError: When a value breaks a rule of :mod:`zipnet.protocol.descriptor`.
    """
    fingerprint = committee_fingerprint(committee_secret, instance_id(universe, name))
    return _compose(
        name=name,
        universe=universe,
        version=version,
        validity=(not_before, not_after),
        max_absent=max_absent,
        fingerprint=fingerprint,
        operator=operator,
        params=params,
        cadence=cadence,
        servers=servers,
        aggregators=aggregators,
        attestation=attestation,
    )


def compose_successor(
    old: Descriptor,
    *,
    servers: Sequence[NodeDraft] | None = None,
    aggregators: Sequence[NodeDraft] | None = None,
    operator: PublicIdentity | None = None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    rotated_secret: Digest | None = None,
) -> bytes:
    """Write the version that follows a descriptor, unsigned; what is None stays as it is.

    Raises:
        ConfigError: When a value breaks a rule of :mod:`zipnet.protocol.descriptor`.
    """
    if servers is None:
        servers = [NodeDraft.of(node) for node in old.servers]
    if aggregators is None:
        aggregators = [NodeDraft.of(entry.node, entry.parent) for entry in old.aggregators]
    return _compose(
        name=old.name,
        universe=old.universe,
        version=old.version + 1,
        validity=(not_before or old.not_before, not_after or old.not_after),
        max_absent=old.max_absent,
        fingerprint=old.committee_fingerprint,
        operator=operator or old.operator,
        params=old.params,
        cadence=old.cadence,
        servers=servers,
        aggregators=aggregators,
        attestation=old.attestation,
        previous=old.digest,
        rotated_secret=rotated_secret or old.rotated_secret,
    )


def _compose(  # noqa: PLR0913 - one argument for each thing a descriptor says
    *,
    name: str,
    universe: str,
    version: int,
    validity: tuple[datetime, datetime],
    max_absent: int,
    fingerprint: Digest,
    operator: PublicIdentity,
    params: RoundParams,
    cadence: Cadence,
    servers: Sequence[NodeDraft],
    aggregators: Sequence[NodeDraft],
    attestation: AttestationTerms,
    previous: Digest | None = None,
    rotated_secret: Digest | None = None,
) -> bytes:
    lines = [
        f"# Instance descriptor of {_comment(name)}. Any change makes the signature invalid.",
        "format = 1",
        f"version = {version}",
        f"name = {_quoted(name)}",
        f"universe = {_quoted(universe)}",
        *([] if previous is None else [f'previous = "{previous.hex()}"']),
        f"not_before = {_time(validity[0])}",
        f"not_after = {_time(validity[1])}",
        f"max_absent = {max_absent}",
        f'committee_fingerprint = "{fingerprint.hex()}"',
        *([] if rotated_secret is None else [f'rotated_secret = "{rotated_secret.hex()}"']),
        f"# operator {format_peer_id(operator.peer_id)}",
        f'operator = "{base64.b64encode(operator.encode()).decode()}"',
        *_table("params", asdict(params)),
        *_table("cadence", asdict(cadence)),
        *attestation_lines(attestation),
    ]
    for kind, drafts in (("server", servers), ("aggregator", aggregators)):
        for draft in drafts:
            lines += _node(kind, draft)
    data = ("\n".join(lines) + "\n").encode()
    parse_descriptor(data)
    return data


def _table(title: str, values: dict[str, int]) -> list[str]:
    return ["", f"[{title}]", *(f"{name} = {value}" for name, value in values.items())]


def _node(kind: str, draft: NodeDraft) -> list[str]:
    lines = [
        "",
        f"[[{kind}]]  # {format_peer_id(draft.public.peer_id)}",
        f"name = {_quoted(draft.name)}",
        f"endpoint = {_quoted(str(draft.endpoint))}",
        f'identity = "{base64.b64encode(draft.public.identity.encode()).decode()}"',
        f'certificate = "{base64.b64encode(draft.public.certificate).decode()}"',
    ]
    if draft.parent:
        lines.append(f"parent = {_quoted(draft.parent)}")
    if draft.fault_domain:
        lines.append(f"fault_domain = {_quoted(draft.fault_domain)}")
    if draft.entity:
        lines.append(f"entity = {_quoted(draft.entity)}")
    if draft.since:
        lines.append(f"since = {draft.since}")
    return lines


def _time(value: datetime) -> str:
    return value.isoformat(timespec="seconds").replace("+00:00", "Z")


def _quoted(text: str) -> str:
    """A TOML basic string, whatever the text holds."""
    escaped = "".join(
        char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08X}" for char in text
    )
    return f'"{escaped}"'


def _comment(text: str) -> str:
    return "".join(char for char in text if char.isprintable())

"""The instance descriptor: the one signed file a client starts from (protocol.md §3, row Z3).

The file is TOML; its last line is a comment that carries the operator's hybrid signature over
every byte before it, so the file stays editable text and no object is hashed by re-encoding.

Rules:

1. Parsing gives :class:`Descriptor`; only :func:`trust_descriptor` gives a
   :class:`TrustedDescriptor`, which everything else asks for.
2. Time is an argument. A descriptor is refused before ``not_before`` and from ``not_after`` on.
3. Unknown keys are refused, with the key's name.
4. ``group`` is derived from name, universe, parameters, committee-secret fingerprint and
   attestation policy: two operators with one name never share a group.
5. A version that succeeds another one names it by ``previous``; a server that came with a later
   version than the first says with which (``since``). What may change: ``protocol.succession``.

What is left to others: which operator key to trust (``expected_operator``), reading the file.

Long because the format is one: its types, its parser and its rules are read together.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from tdx.policy import load_document
from zipnet.errors import ConfigError, RemoteProtocolError, VerificationError
from zipnet.protocol.attestation import AttestationTerms, parse_attestation
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES, PublicIdentity, verify_hybrid
from zipnet.protocol.ids import (
    DIGEST_BYTES,
    DescriptorVersion,
    Digest,
    GroupId,
    InstanceId,
    PeerId,
    ServerIndex,
    derive,
    format_peer_id,
    group_id,
    instance_id,
    validate_instance_name,
    validate_universe,
)
from zipnet.protocol.params import Cadence, RoundParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.protocol.identity import Identity

__all__ = [
    "MAX_DESCRIPTOR_BYTES",
    "AggregatorEntry",
    "Descriptor",
    "NodeEntry",
    "TrustedDescriptor",
    "parse_descriptor",
    "sign_descriptor",
    "trust_descriptor",
]

MAX_DESCRIPTOR_BYTES = 256 * 1024
_FORMAT = 1
_SIGNATURE_PREFIX = b"# zipnet-signature-1: "
_SIGNATURE_USE = "descriptor"
_MIN_SERVERS, _MAX_SERVERS = 3, 7
_MAX_AGGREGATORS = 256
_MAX_PORT = 65_535
_MAX_ENTITY = 128
_FAULT_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")


class _Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    endpoint: str
    identity: str
    certificate: str
    parent: str = ""
    fault_domain: str = ""
    entity: str = ""
    since: int = 0


class _Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    num_slots: int
    slot_bytes: int
    min_participants: int
    kem_epoch_s: int
    max_skip_rounds: int


class _Cadence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    round_period_ms: int
    fold_deadline_ms: int
    round_deadline_ms: int


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: int
    version: int
    name: str
    universe: str
    not_before: datetime
    not_after: datetime
    max_absent: int
    committee_fingerprint: str
    operator: str
    params: _Params
    cadence: _Cadence
    tdx: dict[str, object]
    server: list[_Node]
    aggregator: list[_Node]
    previous: str = ""
    rotated_secret: str = ""


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """A node the descriptor registers: who it is and where it listens.

    Attributes:
        name: Operator's word for the node, unique in the descriptor.
        host: Address clients dial.
        port: UDP and TCP port of every transport.
        identity: The node's public identity.
        certificate: DER of its self-signed TLS certificate.
        fault_domain: What the node fails or is seized together with, in its operator's words
            (row Z8); empty where it is not said.
        entity: Who answers for the node before the law, by name (row Z25); empty where it is not
            said. The operator vouches for it with the descriptor's signature.
        since: Version of the descriptor that brought this server; 0 for a founding one.
    """

    name: str
    host: str
    port: int
    identity: PublicIdentity
    certificate: bytes = field(repr=False)
    fault_domain: str = ""
    entity: str = ""
    since: int = 0

    @property
    def peer_id(self) -> PeerId:
        """The node's peer id."""
        return self.identity.peer_id


@dataclass(frozen=True, slots=True)
class AggregatorEntry:
    """An aggregator: a node with a parent, or the root of the tree when ``parent`` is None."""

    node: NodeEntry
    parent: str | None


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A descriptor as parsed; its signature has not been checked yet."""

    version: DescriptorVersion
    name: str
    universe: str
    not_before: datetime
    not_after: datetime
    max_absent: int
    committee_fingerprint: Digest
    params: RoundParams
    cadence: Cadence
    attestation: AttestationTerms
    servers: tuple[NodeEntry, ...]
    aggregators: tuple[AggregatorEntry, ...]
    operator: PublicIdentity
    signed_bytes: bytes = field(repr=False)
    signature: bytes | None = field(repr=False)
    previous: Digest | None = None
    rotated_secret: Digest | None = None

    @property
    def secret_fingerprint(self) -> Digest:
        """Fingerprint of the committee secret in force: the founding one until it is rotated."""
        return self.rotated_secret or self.committee_fingerprint

    @property
    def digest(self) -> Digest:
        """What the version after this one names it by (protocol.md §3.5)."""
        return derive("descriptor", self.signed_bytes)

    @property
    def file(self) -> bytes:
        """The descriptor as a file; without its last line where it is not signed."""
        if self.signature is None:
            return self.signed_bytes
        return self.signed_bytes + _SIGNATURE_PREFIX + base64.b64encode(self.signature) + b"\n"

    @property
    def instance(self) -> InstanceId:
        """Id derived from universe and name."""
        return instance_id(self.universe, self.name)

    @property
    def group(self) -> GroupId:
        """Id of everything that must agree before two parties may talk (protocol.md §3)."""
        return group_id(
            universe=self.universe,
            instance=self.name,
            params=self.params,
            committee_fingerprint=self.committee_fingerprint,
            attestation_policy_digest=self.attestation.policy_digest(),
            trust_root_digest=self.attestation.root_digest(),
        )


@dataclass(frozen=True, slots=True)
class TrustedDescriptor:
    """A descriptor whose signature and validity have been checked.

    Attributes:
        descriptor: The descriptor itself.
        group: Its group id, computed once.
        committee: Public identities by server index.
        earlier: The versions before it as far as they are known, each checked, oldest first.
    """

    descriptor: Descriptor
    group: GroupId
    committee: tuple[PublicIdentity, ...]
    earlier: tuple[TrustedDescriptor, ...] = field(default=(), repr=False)

    @property
    def version(self) -> int:
        """Number of this version."""
        return int(self.descriptor.version)

    @property
    def founding(self) -> TrustedDescriptor:
        """The oldest version known."""
        return self.earlier[0] if self.earlier else self

    def at(self, version: int) -> TrustedDescriptor:
        """Return the version a round was held under.

        Raises:
            VerificationError: When that version is not known here.
        """
        if version == self.version or (self.descriptor.previous is None and not self.earlier):
            return self  # one that succeeds no other stands for all there is
        for older in self.earlier:
            if older.version == version:
                return older
        raise VerificationError(f"version {version} of the descriptor is not known here")

    @property
    def params(self) -> RoundParams:
        """Round parameters of the group."""
        return self.descriptor.params

    @property
    def required_signatures(self) -> int:
        """How many committee signatures make a record final."""
        return len(self.committee) - self.descriptor.max_absent

    @property
    def committee_keys(self) -> tuple[bytes, ...]:
        """Ed25519 keys by server index."""
        return tuple(identity.ed25519 for identity in self.committee)

    def require_roster(self, roster: Sequence[ServerIndex]) -> None:
        """Refuse a roster the descriptor does not allow (protocol.md §8.4).

        Raises:
            VerificationError: When members are unknown, doubled, or too few.
        """
        if len(set(roster)) != len(roster) or any(s >= len(self.committee) for s in roster):
            raise VerificationError("roster names servers the descriptor does not")
        if len(roster) < self.required_signatures:
            raise VerificationError(
                f"roster has {len(roster)} servers, the descriptor requires "
                f"{self.required_signatures}"
            )

    def server_index(self, peer: PeerId) -> ServerIndex | None:
        """Return the index of a committee member, None for anybody else."""
        for index, identity in enumerate(self.committee):
            if identity.peer_id == peer:
                return ServerIndex(index)
        return None

    def aggregator(self, peer: PeerId) -> AggregatorEntry | None:
        """Return the entry of a registered aggregator, None for anybody else."""
        for entry in self.descriptor.aggregators:
            if entry.node.peer_id == peer:
                return entry
        return None

    def children(self, name: str) -> tuple[AggregatorEntry, ...]:
        """Return the aggregators whose parent is ``name``."""
        return tuple(e for e in self.descriptor.aggregators if e.parent == name)

    def aggregator_height(self, name: str) -> int:
        """Return the longest way down from an aggregator to a leaf: 0 for a leaf."""
        below = (self.aggregator_height(e.node.name) for e in self.children(name))
        return max((1 + height for height in below), default=0)


def parse_descriptor(data: bytes) -> Descriptor:
    """Parse a descriptor file, signed or not yet.

    Raises:
        ConfigError: When the file is oversize, no TOML, or a value is missing, unknown or wrong.
    """
    if len(data) > MAX_DESCRIPTOR_BYTES:
        raise ConfigError(f"descriptor is larger than {MAX_DESCRIPTOR_BYTES} bytes")
    body, signature = _split_signature(data)
    try:
        raw = load_document(body.decode("utf-8"))
        parsed = msgspec.convert(raw, _File, strict=True)
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"descriptor does not parse: {error}",
            hint="write it with `zipnet descriptor create`",
        ) from error
    return _checked(parsed, body, signature)


def _split_signature(data: bytes) -> tuple[bytes, bytes | None]:
    start = data.rfind(b"\n" + _SIGNATURE_PREFIX)
    if start < 0:
        return data, None
    body, line = data[: start + 1], data[start + 1 + len(_SIGNATURE_PREFIX) :]
    if not line.endswith(b"\n") or b"\n" in line[:-1]:
        raise ConfigError("descriptor has text after its signature", hint="sign it again")
    return body, _unbase64(line[:-1].decode("latin-1"), "signature", HYBRID_SIGNATURE_BYTES)


def _unbase64(text: str, what: str, size: int | None = None) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"descriptor: {what} is not base64") from error
    # The decoder ignores spare bits of the last digit; one value has one text here.
    if base64.b64encode(value).decode() != text:
        raise ConfigError(f"descriptor: {what} is not canonical base64")
    if size is not None and len(value) != size:
        raise ConfigError(f"descriptor: {what} has {len(value)} bytes, {size} are needed")
    return value


def _identity(text: str, what: str) -> PublicIdentity:
    try:
        return PublicIdentity.decode(_unbase64(text, what))
    except RemoteProtocolError as error:
        raise ConfigError(f"descriptor: {what} is not a public identity") from error


def _checked(parsed: _File, body: bytes, signature: bytes | None) -> Descriptor:
    if parsed.format != _FORMAT:
        raise ConfigError(f"descriptor format {parsed.format} is not known, {_FORMAT} is")
    if parsed.not_before.tzinfo is None or parsed.not_after.tzinfo is None:
        raise ConfigError("descriptor: not_before and not_after need a time zone, such as Z")
    if parsed.not_after <= parsed.not_before:
        raise ConfigError("descriptor: not_after is not after not_before")
    if parsed.version < 1 or parsed.version >= 1 << 32:
        raise ConfigError("descriptor: version must be from 1 to 2^32-1")
    servers = tuple(_node(node) for node in parsed.server)
    aggregators = tuple(
        AggregatorEntry(_node(node), node.parent or None) for node in parsed.aggregator
    )
    _check_committee(servers, parsed.max_absent)
    _check_since(servers, aggregators, parsed.version, parsed.previous)
    _check_tree(aggregators)
    _check_unique([*servers, *(entry.node for entry in aggregators)])
    return Descriptor(
        version=DescriptorVersion(parsed.version),
        name=validate_instance_name(parsed.name),
        universe=validate_universe(parsed.universe),
        not_before=parsed.not_before,
        not_after=parsed.not_after,
        max_absent=parsed.max_absent,
        committee_fingerprint=_hex32(parsed.committee_fingerprint, "committee_fingerprint"),
        params=RoundParams(**msgspec.structs.asdict(parsed.params)),
        cadence=Cadence(**msgspec.structs.asdict(parsed.cadence)),
        attestation=parse_attestation(parsed.tdx),
        servers=servers,
        aggregators=aggregators,
        operator=_identity(parsed.operator, "operator"),
        signed_bytes=body,
        signature=signature,
        previous=_hex32(parsed.previous, "previous") if parsed.previous else None,
        rotated_secret=_hex32(parsed.rotated_secret, "rotated_secret")
        if parsed.rotated_secret
        else None,
    )


def _hex32(text: str, what: str) -> Digest:
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise ConfigError(f"descriptor: {what} is not hexadecimal") from error
    if len(value) != DIGEST_BYTES or value.hex() != text:
        raise ConfigError(f"descriptor: {what} must be 64 lower-case hex digits")
    return Digest(value)


def _check_since(
    servers: tuple[NodeEntry, ...],
    aggregators: tuple[AggregatorEntry, ...],
    version: int,
    previous: str,
) -> None:
    for node in servers:
        if not 0 <= node.since <= version or (node.since and not previous):
            raise ConfigError(f"descriptor: {node.name!r} came with no version there was")
    for entry in aggregators:
        if entry.node.since:
            raise ConfigError(f"descriptor: aggregator {entry.node.name!r} has no seat to come to")


def _node(node: _Node) -> NodeEntry:
    host, _, port = node.endpoint.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _MAX_PORT:
        raise ConfigError(f"descriptor: endpoint of {node.name!r} is not host:port")
    if node.fault_domain and not _FAULT_DOMAIN.fullmatch(node.fault_domain):
        raise ConfigError(
            f"descriptor: fault domain of {node.name!r} is not one word of up to 64 characters"
        )
    entity = node.entity
    if len(entity) > _MAX_ENTITY or entity != entity.strip() or not _plain(entity):
        raise ConfigError(
            f"descriptor: entity of {node.name!r} is not plain text of {_MAX_ENTITY} characters"
        )
    return NodeEntry(
        name=node.name,
        host=host.removeprefix("[").removesuffix("]"),
        port=int(port),
        identity=_identity(node.identity, f"identity of {node.name!r}"),
        certificate=_unbase64(node.certificate, f"certificate of {node.name!r}"),
        fault_domain=node.fault_domain,
        entity=node.entity,
        since=node.since,
    )


def _plain(text: str) -> bool:
    """Whether a text shows what it says: no control, formatting or separator characters."""
    return all(c == " " or unicodedata.category(c)[0] not in "CZ" for c in text)


def _check_committee(servers: tuple[NodeEntry, ...], max_absent: int) -> None:
    count = len(servers)
    if not _MIN_SERVERS <= count <= _MAX_SERVERS or count % 2 == 0:
        raise ConfigError(f"descriptor: a committee has 3, 5 or 7 servers, this one has {count}")
    if not 0 <= max_absent <= (count - 1) // 2:
        raise ConfigError(f"descriptor: max_absent must be from 0 to {(count - 1) // 2}")


def _check_tree(aggregators: tuple[AggregatorEntry, ...]) -> None:
    if not 1 <= len(aggregators) <= _MAX_AGGREGATORS:
        raise ConfigError(f"descriptor: needs 1 to {_MAX_AGGREGATORS} aggregators")
    parents = {entry.node.name: entry.parent for entry in aggregators}
    for name in parents:
        seen: set[str] = set()
        at: str | None = name
        while at is not None:
            if at in seen or at not in parents:
                raise ConfigError(f"descriptor: aggregator {name!r} does not lead to a root")
            seen.add(at)
            at = parents[at]


def _check_unique(nodes: Sequence[NodeEntry]) -> None:
    names: set[str] = set()
    peers: set[PeerId] = set()
    endpoints: set[tuple[str, int]] = set()
    for node in nodes:
        if node.name in names:
            raise ConfigError(f"descriptor: two nodes are named {node.name!r}")
        if node.peer_id in peers:
            raise ConfigError(f"descriptor: {node.name!r} shares its identity with another node")
        if (node.host, node.port) in endpoints:
            raise ConfigError(f"descriptor: {node.name!r} shares its endpoint with another node")
        names.add(node.name)
        peers.add(node.peer_id)
        endpoints.add((node.host, node.port))


def sign_descriptor(data: bytes, operator: Identity) -> bytes:
    """Return the descriptor file with the operator's signature as its last line.

    An old signature is replaced. The key must be the one named in the file.

    Raises:
        ConfigError: When the file does not parse or names another operator key.
    """
    descriptor = parse_descriptor(data)
    if descriptor.operator.peer_id != operator.peer_id:
        raise ConfigError(
            "descriptor names another operator key than the one that signs",
            hint=f"it names {format_peer_id(descriptor.operator.peer_id)}",
        )
    body = descriptor.signed_bytes
    if not body.endswith(b"\n"):
        body += b"\n"
    signature = base64.b64encode(operator.sign(_SIGNATURE_USE, body))
    return body + _SIGNATURE_PREFIX + signature + b"\n"


def trust_descriptor(
    descriptor: Descriptor, *, now: datetime, expected_operator: PeerId | None = None
) -> TrustedDescriptor:
    """Check signature, operator and validity.

    Args:
        descriptor: The parsed file.
        now: The time to check validity at, with a time zone.
        expected_operator: Operator the caller pins; None trusts the key the file names.

    Raises:
        ConfigError: When unsigned, altered, by another operator, not yet valid or expired.
    """
    # 1. The operator is the expected one.
    operator = descriptor.operator.peer_id
    if expected_operator is not None and operator != expected_operator:
        raise ConfigError("descriptor is by another operator than the one expected")
    # 2. It is signed, and nothing before the signature was changed.
    if descriptor.signature is None:
        raise ConfigError("descriptor is not signed", hint="run `zipnet descriptor sign`")
    try:
        verify_hybrid(
            descriptor.operator, _SIGNATURE_USE, descriptor.signed_bytes, descriptor.signature
        )
    except VerificationError as error:
        raise ConfigError(
            "descriptor was altered: its signature does not verify",
            hint="get it again from the operator",
        ) from error
    # 3. It is valid now.
    if now < descriptor.not_before:
        raise ConfigError(f"descriptor is not valid before {descriptor.not_before.isoformat()}")
    if now >= descriptor.not_after:
        raise ConfigError(
            f"descriptor expired at {descriptor.not_after.isoformat()}",
            hint="get a newer one from the operator",
        )
    committee = tuple(node.identity for node in descriptor.servers)
    return TrustedDescriptor(descriptor, descriptor.group, committee)

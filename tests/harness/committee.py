"""A committee in one object, made of the real protocol: it opens, folds, unblinds and signs.

No Raft, no sockets, no clock: the caller says when a round opens, which envelopes arrive and
whether it is sealed or given up. Keys follow from the seed; ML-KEM's own randomness and ML-DSA's
hedging do not, so bytes differ from run to run while outcomes do not.
"""

from __future__ import annotations

import base64
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError
from zipnet.protocol.attestation import ATTESTATION_OFF, AttestationTerms
from zipnet.protocol.descriptor import (
    TrustedDescriptor,
    parse_descriptor,
    sign_descriptor,
    trust_descriptor,
)
from zipnet.protocol.envelope import Envelope, admit_envelope
from zipnet.protocol.header import RoundHeader, SignedHeader, sign_header
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import (
    Digest,
    PeerId,
    RegistryIndex,
    RoundNumber,
    ServerIndex,
    committee_fingerprint,
    derive,
    instance_id,
)
from zipnet.protocol.kem import KemKeyPair
from zipnet.protocol.pads import PadEngine
from zipnet.protocol.params import Cadence, RoundParams
from zipnet.protocol.participants import Participants
from zipnet.protocol.ratchet import initial_chain_key, pad_key, skip
from zipnet.protocol.record import (
    RECORD_SIGNATURE_USE,
    ZERO_RECORD_HASH,
    Record,
    VerifiedRecord,
    assemble_content,
    verify_record,
)
from zipnet.protocol.registration import (
    EMPTY_REGISTRY_DIGEST,
    RegistryChange,
    decode_registration,
    extend_registry_digest,
    sign_announcement,
)
from zipnet.protocol.reservation import EMPTY_SCHEDULE_HASH
from zipnet.protocol.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "NAME",
    "SMALL",
    "HarnessCommittee",
    "build_descriptor",
    "make_draw",
    "make_identity",
    "pad_engine",
]

NAME = "harness.test"
SMALL = RoundParams(
    num_slots=8, slot_bytes=128, min_participants=2, kem_epoch_s=3600, max_skip_rounds=1000
)
_NOW = datetime(2030, 1, 1, tzinfo=UTC)


def make_identity(label: str, seed: int = 1) -> Identity:
    """Return the identity that belongs to a label and a seed."""
    return Identity.from_secret(Secret(derive("test-identity", label.encode(), bytes([seed]))))


def make_draw(label: str, seed: int = 1) -> Callable[[int], bytes]:
    """Return a deterministic source of bytes."""
    counter = itertools.count()

    def draw(size: int) -> bytes:
        blocks = (
            derive(
                "test-draw",
                label.encode(),
                seed.to_bytes(8, "big"),
                next(counter).to_bytes(8, "big"),
            )
            for _ in range(-(-size // 32))
        )
        return b"".join(blocks)[:size]

    return draw


def pad_engine() -> PadEngine:
    """Return a pad engine calibrated with a stopwatch that stands still."""
    ticks = itertools.count()
    return PadEngine.calibrate(lambda: float(next(ticks)))


_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def build_descriptor(
    *,
    servers: Sequence[Identity],
    aggregators: Mapping[str, tuple[Identity, str | None]],
    operator: Identity,
    params: RoundParams = SMALL,
    cadence: Cadence | None = None,
    max_absent: int = 0,
    ports: Mapping[str, int] | None = None,
    name: str = NAME,
    version: int = 1,
    attestation: AttestationTerms = ATTESTATION_OFF,
    committee: Secret | None = None,
    not_before: datetime = _LONG_AGO,
) -> bytes:
    """Return a signed descriptor file; servers are named ``s0``, ``s1``, …; all on 127.0.0.1."""
    from zipnet.settings.attestationfile import attestation_lines
    from zipnet.transport.certificate import node_certificate

    cadence = cadence or Cadence()
    fingerprint = committee_fingerprint(
        committee or Secret(derive("test-committee-secret")), instance_id("zipnet", name)
    )
    free = itertools.count(40_000)

    def encode(data: bytes) -> str:
        return base64.b64encode(data).decode()

    def node(kind: str, label: str, identity: Identity, parent: str | None = None) -> str:
        port = (ports or {}).get(label) or next(free)
        certificate = node_certificate(identity.ed25519_private_key()).der
        lines = [
            f"[[{kind}]]",
            f'name = "{label}"',
            f'endpoint = "127.0.0.1:{port}"',
            f'identity = "{encode(identity.public.encode())}"',
            f'certificate = "{encode(certificate)}"',
        ]
        return "\n".join(lines + ([f'parent = "{parent}"'] if parent else []))

    text = "\n".join(
        [
            "format = 1",
            f"version = {version}",
            f'name = "{name}"',
            'universe = "zipnet"',
            f"not_before = {not_before:%Y-%m-%dT%H:%M:%SZ}",
            "not_after = 2100-01-01T00:00:00Z",
            f"max_absent = {max_absent}",
            f'committee_fingerprint = "{fingerprint.hex()}"',
            f'operator = "{encode(operator.public.encode())}"',
            "[params]",
            f"num_slots = {params.num_slots}",
            f"slot_bytes = {params.slot_bytes}",
            f"min_participants = {params.min_participants}",
            f"kem_epoch_s = {params.kem_epoch_s}",
            f"max_skip_rounds = {params.max_skip_rounds}",
            "[cadence]",
            f"round_period_ms = {cadence.round_period_ms}",
            f"fold_deadline_ms = {cadence.fold_deadline_ms}",
            f"round_deadline_ms = {cadence.round_deadline_ms}",
            *attestation_lines(attestation),
            *(node("server", f"s{i}", identity) for i, identity in enumerate(servers)),
            *(
                node("aggregator", label, identity, parent)
                for label, (identity, parent) in aggregators.items()
            ),
            "",
        ]
    )
    return sign_descriptor(text.encode(), operator)


@dataclass(slots=True)
class _Client:
    peer: PeerId
    key: bytes
    first_round: RoundNumber
    chains: list[bytearray]
    positions: list[int]
    index: RegistryIndex
    retired: bool = False


@dataclass(slots=True)
class _Open:
    signed: SignedHeader
    header_hash: Digest
    envelopes: dict[RegistryIndex, bytes] = field(default_factory=dict)


class HarnessCommittee:
    """All servers of one instance, and its only aggregator, as one plain object.

    Attributes:
        descriptor: The trusted descriptor; ``descriptor_bytes`` is its file.
        identities: Server identities by index.
        aggregators: Aggregator identities by name.
        records: Encoded records in sequence order; ``verified`` holds them verified.
        pad_uses: Every (server, pad key) pair the servers ever unblinded with.
        last_opened: Number of the last opened round.
    """

    def __init__(
        self,
        *,
        servers: int = 3,
        params: RoundParams = SMALL,
        cadence: Cadence | None = None,
        max_absent: int = 0,
        aggregators: Mapping[str, str | None] | None = None,
        ports: Mapping[str, int] | None = None,
        seed: int = 1,
    ) -> None:
        self.params = params
        self.identities = [make_identity(f"server-{i}", seed) for i in range(servers)]
        tree = {"root": None} if aggregators is None else aggregators
        self.aggregators = {name: make_identity(f"aggregator-{name}", seed) for name in tree}
        self.operator = make_identity("operator", seed)
        self.descriptor_bytes = build_descriptor(
            servers=self.identities,
            aggregators={name: (self.aggregators[name], tree[name]) for name in tree},
            operator=self.operator,
            params=params,
            cadence=cadence,
            max_absent=max_absent,
            ports=ports,
        )
        self.descriptor: TrustedDescriptor = trust_descriptor(
            parse_descriptor(self.descriptor_bytes), now=_NOW
        )
        self._seed = seed
        self._pads = pad_engine()
        self._kem: list[tuple[int, KemKeyPair]] = []
        self.epoch = 0
        self.turn_kem_epoch()
        self.changes: list[RegistryChange] = []
        self.registry_digest: Digest = EMPTY_REGISTRY_DIGEST
        self._places: dict[Digest, tuple[RegistryIndex, int, RoundNumber]] = {}
        self._clients: dict[RegistryIndex, _Client] = {}
        self._open: _Open | None = None
        self.last_opened = RoundNumber(0)
        self.records: list[bytes] = []
        self.verified: list[VerifiedRecord] = []
        self.pad_uses: list[tuple[int, bytes]] = []

    # Registry -----------------------------------------------------------------------------------

    def turn_kem_epoch(self) -> None:
        """Replace every server's KEM key by the next epoch's; old ciphertexts are refused."""
        self.epoch += 1
        self._kem = [
            (self.epoch, KemKeyPair.from_seed(Secret(self._seed_of("kem", i, self.epoch))))
            for i in range(len(self.identities))
        ]

    def announcements(self) -> list[bytes]:
        """Return one signed announcement per server, in order."""
        return [
            sign_announcement(self.descriptor.group, ServerIndex(i), epoch, pair.public, identity)
            for i, (identity, (epoch, pair)) in enumerate(
                zip(self.identities, self._kem, strict=True)
            )
        ]

    def register(self, blob: bytes) -> tuple[RegistryIndex, int, RoundNumber]:
        """Verify and commit a registration; returns index, registry version and first round."""
        registration = decode_registration(blob, self.descriptor.group, len(self.identities))
        if registration.digest in self._places:
            return self._places[registration.digest]
        if any(item.epoch != self.epoch for item in registration.encapsulations):
            raise RemoteProtocolError("registration uses another KEM epoch")
        first_round = RoundNumber(self.last_opened + 1)
        for client in self._clients.values():
            if client.peer == registration.identity.peer_id and not client.retired:
                client.retired = True
                self._change(RegistryChange(client.index, None, None, first_round))
        index = RegistryIndex(len(self._clients))
        chains: list[bytearray] = []
        for item, (epoch, pair) in zip(registration.encapsulations, self._kem, strict=True):
            with pair.decapsulate(item.ciphertext) as shared:
                chains.append(initial_chain_key(self.descriptor.group, epoch, shared))
        peer, key = registration.identity.peer_id, registration.identity.ed25519
        self._clients[index] = _Client(
            peer, key, first_round, chains, [first_round] * len(chains), index
        )
        self._change(RegistryChange(index, (peer, key), registration.digest, first_round))
        self._places[registration.digest] = (index, len(self.changes), first_round)
        return self._places[registration.digest]

    def index_of(self, peer: PeerId) -> RegistryIndex | None:
        """Return the live registry index of a client."""
        for client in self._clients.values():
            if client.peer == peer and not client.retired:
                return client.index
        return None

    def _change(self, change: RegistryChange) -> None:
        self.changes.append(change)
        self.registry_digest = extend_registry_digest(self.registry_digest, change)

    # Rounds -------------------------------------------------------------------------------------

    @property
    def open_header(self) -> SignedHeader | None:
        """The signed header of the round that is open now."""
        return self._open.signed if self._open else None

    @property
    def participants(self) -> int:
        """How many envelopes the open round holds."""
        return len(self._open.envelopes) if self._open else 0

    @property
    def active_clients(self) -> int:
        """How many clients are registered and not retired."""
        return sum(not client.retired for client in self._clients.values())

    def next_header(self, **changes: object) -> RoundHeader:
        """Return the header the next round would have; ``changes`` replace fields of it."""
        last = self.verified[-1] if self.verified else None
        values: dict[str, object] = {
            "group": self.descriptor.group,
            "round": RoundNumber(self.last_opened + 1),
            "descriptor_version": self.descriptor.descriptor.version,
            "previous_final": last.round if last else RoundNumber(0),
            "previous_record": last.hash if last else ZERO_RECORD_HASH,
            "schedule": last.record.content.schedule if last else EMPTY_SCHEDULE_HASH,
            "registry_version": len(self.changes),
            "registry_digest": self.registry_digest,
            "roster": tuple(ServerIndex(i) for i in range(len(self.identities))),
            "opener": ServerIndex(0),
            "opened_at_ms": 1_900_000_000_000 + self.last_opened,
        }
        values.update(changes)
        return RoundHeader(**values)  # type: ignore[arg-type]

    def open_round(self, **changes: object) -> SignedHeader:
        """Open the next round and return its signed header."""
        header = self.next_header(**changes)
        signed = sign_header(header, self.identities[header.opener])
        self._open = _Open(signed, header.hash)
        self.last_opened = header.round
        return signed

    def submit(self, envelope: Envelope) -> None:
        """Take an envelope of the open round.

        Raises:
            RemoteProtocolError: When no round is open or the sender is not registered for it, or
                already sent another envelope.
            VerificationError: When its signature does not verify.
        """
        if self._open is None:
            raise RemoteProtocolError("round_closed")
        client = self._clients.get(envelope.sender)
        if client is None or client.retired:
            raise RemoteProtocolError("not_registered")
        admitted = admit_envelope(
            envelope,
            header_hash=self._open.header_hash,
            round_number=self._open.signed.header.round,
            params=self.params,
            sender_key=client.key,
        )
        kept = self._open.envelopes.setdefault(envelope.sender, admitted.body)
        if kept != admitted.body:
            raise RemoteProtocolError("duplicate")

    def seal(
        self, *, tamper: Callable[[bytearray], None] | None = None, signers: int | None = None
    ) -> bytes:
        """Unblind, assemble and sign the open round; returns the encoded record.

        Args:
            tamper: Changes the clear round vector first: what a disrupting client would do to it.
            signers: How many servers sign, all of the roster by default.
        """
        assert self._open is not None, "no round is open"
        header = self._open.signed.header
        body = bytearray(self.params.body_bytes)
        for padded in self._open.envelopes.values():
            body[:] = bytes(a ^ b for a, b in zip(body, padded, strict=True))
        for server in header.roster:
            self._pads.apply_many(body, self._pad_keys(server))
        if tamper is not None:
            tamper(body)
        participants = Participants(self._open.envelopes)
        content = assemble_content(
            header,
            sequence=len(self.records),
            participants=len(participants),
            commitment=participants.commitment(derive("test-salt", header.hash)),
            clear_body=body,
            params=self.params,
        )
        signing = header.roster[: signers or len(header.roster)]
        signatures = tuple(
            (s, self.identities[s].sign(RECORD_SIGNATURE_USE, content.hash)) for s in signing
        )
        record = Record(content, signatures)
        encoded = record.encode()
        self.records.append(encoded)
        self.verified.append(verify_record(record, self.descriptor))
        self._open = None
        return encoded

    def abort(self) -> RoundNumber:
        """Give the open round up and return its number."""
        assert self._open is not None, "no round is open"
        number = self._open.signed.header.round
        self._open = None
        return number

    def _pad_keys(self, server: ServerIndex) -> list[bytearray]:
        assert self._open is not None
        keys: list[bytearray] = []
        for index in self._open.envelopes:
            client = self._clients[index]
            ahead = self._open.signed.header.round - client.positions[server]
            skip(client.chains[server], ahead, limit=self.params.max_skip_rounds)
            client.positions[server] += ahead
            key = pad_key(client.chains[server], self._open.header_hash)
            self.pad_uses.append((server, bytes(key)))
            keys.append(key)
        return keys

    def _seed_of(self, what: str, *numbers: int) -> bytes:
        parts = (n.to_bytes(8, "big") for n in (self._seed, *numbers))
        return derive("test-seed", what.encode(), *parts)

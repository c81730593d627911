"""How a client joins: KEM announcements, registrations and the registry's chained history.

protocol.md §4.1 and §7. A server announces one X-Wing key per ``kem_epoch``; a client encapsulates
to the current key of *every* committee server in one signed registration. The registry is a list
of changes; its version is their number and its digest chains over them, so a round header that
names both fixes exactly who is registered in that round.

Rules:

1. Announcements and registrations carry hybrid signatures; both halves must verify.
2. A registration names the announcements it used by digest, so a mixed-up epoch is an error.
3. ``serial`` grows with every registration of one identity: an old one cannot be replayed.
4. In a group that gates its clients a registration names its evidence by digest, so every server
   judges the same platform for itself (protocol.md §7); elsewhere that field is zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError
from zipnet.protocol.encoding import Reader, Writer
from zipnet.protocol.identity import (
    HYBRID_SIGNATURE_BYTES,
    PublicIdentity,
    verify_hybrid,
)
from zipnet.protocol.ids import (
    Digest,
    GroupId,
    PeerId,
    RegistryIndex,
    RoundNumber,
    ServerIndex,
    content_digest,
    derive,
)
from zipnet.protocol.kem import KEM_CIPHERTEXT_BYTES, KEM_PUBLIC_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.protocol.identity import Identity

__all__ = [
    "EMPTY_REGISTRY_DIGEST",
    "NO_EVIDENCE",
    "Encapsulation",
    "KemAnnouncement",
    "Registration",
    "RegistryChange",
    "decode_announcement",
    "decode_registration",
    "extend_registry_digest",
    "sign_announcement",
    "sign_registration",
]

_ANNOUNCEMENT_LAYOUT = 1
_REGISTRATION_LAYOUT = 1
_IDENTITY_BYTES = 32 + 1952
_MAX_SERVERS = 16
_BASE = 2
EMPTY_REGISTRY_DIGEST = derive("registry")
NO_EVIDENCE = Digest(bytes(32))
"""What stands where a registration carries no evidence."""


@dataclass(frozen=True, slots=True)
class KemAnnouncement:
    """A server's X-Wing key for one epoch, with its hybrid signature checked."""

    server: ServerIndex
    epoch: int
    public: bytes = field(repr=False)
    digest: Digest


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """One client's ciphertext to one server's announced key."""

    server: ServerIndex
    epoch: int
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Registration:
    """A client's signed request to be in the registry, with its signature checked.

    Attributes:
        identity: The client.
        serial: Larger than in any earlier registration of the identity.
        evidence: Content digest of the client's evidence, :data:`NO_EVIDENCE` where none is due.
        encapsulations: One ciphertext per committee server, in order.
        digest: Content digest of the registration itself.
    """

    identity: PublicIdentity
    serial: int
    evidence: Digest
    encapsulations: tuple[Encapsulation, ...]
    digest: Digest

    def for_server(self, server: ServerIndex) -> Encapsulation:
        """Return the ciphertext meant for one server.

        Raises:
            RemoteProtocolError: When the registration has none for it.
        """
        for encapsulation in self.encapsulations:
            if encapsulation.server == server:
                return encapsulation
        raise RemoteProtocolError(f"registration has no ciphertext for server {server}")


@dataclass(frozen=True, slots=True)
class RegistryChange:
    """One change of the registry: a client added, an index retired for good, or a new beginning.

    A new beginning forgets every change before it: what is still active is added again after it,
    under the same indexes. The digest chain begins with it, so nobody needs what was before.

    Attributes:
        index: Registry index the change is about; indexes are never reused. Of a new beginning the
            next index that was not given yet.
        client: Peer id and Ed25519 key of an added client, None when the index is retired.
        registration: Digest of the registration blob of an added client.
        first_round: First round an added client is good for, where its chains start; for a
            retired index the first round it is no longer good for; 0 of a new beginning.
        base: Version of the registry before a new beginning, None of any other change.
    """

    index: RegistryIndex
    client: tuple[PeerId, bytes] | None
    registration: Digest | None
    first_round: RoundNumber
    base: int | None = None

    def encode(self) -> bytes:
        """Lay the change out for the registry's digest chain and for transfer."""
        if self.base is not None:
            return Writer().u8(_BASE).u64(self.index).u64(self.base).take()
        writer = Writer().u8(1 if self.client else 0).u64(self.index).u64(self.first_round)
        if self.client is not None and self.registration is not None:
            peer, key = self.client
            writer.fixed(peer, 32).fixed(key, 32).fixed(self.registration, 32)
        return writer.take()

    @staticmethod
    def decode(data: bytes) -> RegistryChange:
        """Parse one change.

        Raises:
            RemoteProtocolError: When the bytes are not exactly one change.
        """
        reader = Reader(data)
        kind = reader.u8()
        index = RegistryIndex(reader.u64())
        first_round = RoundNumber(reader.u64())
        if kind == 0:
            reader.finish()
            return RegistryChange(index, None, None, first_round)
        if kind == _BASE:
            reader.finish()
            return RegistryChange(index, None, None, RoundNumber(0), base=int(first_round))
        if kind != 1:
            raise RemoteProtocolError("unknown kind of registry change")
        client = (PeerId(reader.fixed(32)), reader.fixed(32))
        registration = Digest(reader.fixed(32))
        reader.finish()
        return RegistryChange(index, client, registration, first_round)


def extend_registry_digest(previous: Digest, change: RegistryChange) -> Digest:
    """Chain one more change onto the registry digest; a new beginning begins a chain."""
    if change.base is not None:
        return derive("registry-base", change.encode())
    return derive("registry-change", previous, change.encode())


def sign_announcement(
    group: GroupId, server: ServerIndex, epoch: int, public: bytes, identity: Identity
) -> bytes:
    """Return the signed announcement blob of a server's KEM key for one epoch."""
    signed = (
        Writer()
        .u8(_ANNOUNCEMENT_LAYOUT)
        .fixed(group, 32)
        .u8(server)
        .u64(epoch)
        .fixed(public, KEM_PUBLIC_BYTES)
        .take()
    )
    return signed + identity.sign("kem-announcement", signed)


def decode_announcement(
    blob: bytes, group: GroupId, committee: Sequence[PublicIdentity]
) -> KemAnnouncement:
    """Parse and verify an announcement blob.

    Raises:
        RemoteProtocolError: When the bytes are not one announcement of this group.
        VerificationError: When the signature is not the server's.
    """
    reader = Reader(blob)
    if reader.u8() != _ANNOUNCEMENT_LAYOUT:
        raise RemoteProtocolError("unknown KEM announcement layout")
    named_group = reader.fixed(32)
    server = ServerIndex(reader.u8())
    epoch = reader.u64()
    public = reader.fixed(KEM_PUBLIC_BYTES)
    signature = reader.fixed(HYBRID_SIGNATURE_BYTES)
    reader.finish()
    if named_group != group:
        raise RemoteProtocolError("KEM announcement is for another group")
    if server >= len(committee):
        raise RemoteProtocolError("KEM announcement is by no member of the committee")
    signed = blob[: len(blob) - HYBRID_SIGNATURE_BYTES]
    verify_hybrid(committee[server], "kem-announcement", signed, signature)
    return KemAnnouncement(server, epoch, public, content_digest(blob))


def sign_registration(
    group: GroupId,
    serial: int,
    encapsulations: Sequence[Encapsulation],
    identity: Identity,
    *,
    evidence: Digest = NO_EVIDENCE,
) -> bytes:
    """Return the signed registration blob of a client."""
    writer = (
        Writer()
        .u8(_REGISTRATION_LAYOUT)
        .fixed(group, 32)
        .fixed(identity.public.encode(), _IDENTITY_BYTES)
        .u64(serial)
        .fixed(evidence, 32)
        .u8(len(encapsulations))
    )
    for item in encapsulations:
        writer.u8(item.server).u64(item.epoch).fixed(item.ciphertext, KEM_CIPHERTEXT_BYTES)
    signed = writer.take()
    return signed + identity.sign("registration", signed)


def decode_registration(blob: bytes, group: GroupId, servers: int) -> Registration:
    """Parse and verify a registration blob for a committee of ``servers`` members.

    Raises:
        RemoteProtocolError: When the bytes are not one complete registration of this group.
        VerificationError: When the client's signature does not verify.
    """
    reader = Reader(blob)
    if reader.u8() != _REGISTRATION_LAYOUT:
        raise RemoteProtocolError("unknown registration layout")
    named_group = reader.fixed(32)
    identity = PublicIdentity.decode(reader.fixed(_IDENTITY_BYTES))
    serial = reader.u64()
    evidence = Digest(reader.fixed(32))
    count = reader.u8()
    if count > _MAX_SERVERS:
        raise RemoteProtocolError("registration has more ciphertexts than a committee can have")
    items = tuple(
        Encapsulation(ServerIndex(reader.u8()), reader.u64(), reader.fixed(KEM_CIPHERTEXT_BYTES))
        for _ in range(count)
    )
    signature = reader.fixed(HYBRID_SIGNATURE_BYTES)
    reader.finish()
    if named_group != group:
        raise RemoteProtocolError("registration is for another group")
    if [item.server for item in items] != list(range(servers)):
        raise RemoteProtocolError("registration does not cover the whole committee in order")
    verify_hybrid(identity, "registration", blob[: len(blob) - HYBRID_SIGNATURE_BYTES], signature)
    return Registration(identity, serial, evidence, items, content_digest(blob))

"""The round header: what a round is, before anything is sent in it (protocol.md §4.3, §6).

Rules:

1. A header extends the last one: round numbers count every opened round, without gaps.
2. It names the last *final* record, so the chain of records is fixed before new bytes are sent.
3. Its hash goes into every pad key: parties shown different headers get noise, not a leak.
4. The opener signs it with Ed25519 so that a relay cannot make clients waste a round.

What is left to others: whether the roster is allowed (``descriptor``), whether it extends the
replicated state (``zipnet.machines.committee``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zipnet.errors import LocalProtocolError, RemoteProtocolError
from zipnet.protocol.encoding import Reader, Writer
from zipnet.protocol.identity import verify_ed25519
from zipnet.protocol.ids import Digest, GroupId, RoundNumber, ServerIndex, derive

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zipnet.protocol.identity import Identity

__all__ = [
    "HEADER_SIGNATURE_USE",
    "MAX_SERVERS",
    "RoundHeader",
    "SignedHeader",
    "decode_roster",
    "encode_roster",
    "sign_header",
    "verify_header",
]

HEADER_LAYOUT = 1
HEADER_SIGNATURE_USE = "header"
MAX_SERVERS = 16
"""Upper bound on committee size that the layouts can carry (a roster is a 16-bit set)."""
_SIGNED_MAX = 512


def encode_roster(roster: Iterable[ServerIndex]) -> int:
    """Pack a roster into a 16-bit set, bit ``i`` for server ``i``."""
    bits = 0
    for server in roster:
        if not 0 <= server < MAX_SERVERS:
            raise LocalProtocolError(f"server index {server} is outside 0..{MAX_SERVERS - 1}")
        bits |= 1 << server
    return bits


def decode_roster(bits: int) -> tuple[ServerIndex, ...]:
    """Unpack a roster set into ascending server indexes."""
    return tuple(ServerIndex(i) for i in range(MAX_SERVERS) if bits >> i & 1)


@dataclass(frozen=True, slots=True)
class RoundHeader:
    """One round's header.

    Attributes:
        group: Group the round belongs to.
        round: Number of this round; the first opened round is 1.
        descriptor_version: Version of the signed descriptor the roster is taken from.
        previous_final: Round number of the last final record, 0 before the first.
        previous_record: Hash of the last final record, zeros before the first.
        schedule: Hash of the reservation vector that grants this round's slots.
        registry_version: Number of registry changes that decide who is registered in this round.
        registry_digest: Chained digest of those changes.
        roster: Ascending indexes of the servers whose pads are in this round.
        opener: Server that opened the round.
        opened_at_ms: The opener's wall clock at opening, milliseconds since 1970.
    """

    group: GroupId
    round: RoundNumber
    descriptor_version: int
    previous_final: RoundNumber
    previous_record: Digest
    schedule: Digest
    registry_version: int
    registry_digest: Digest
    roster: tuple[ServerIndex, ...]
    opener: ServerIndex
    opened_at_ms: int

    def encode(self) -> bytes:
        """Lay the header out in its fixed 168 bytes (docs/protocol.md, "Round header")."""
        return (
            Writer()
            .u8(HEADER_LAYOUT)
            .fixed(self.group, 32)
            .u64(self.round)
            .u32(self.descriptor_version)
            .u64(self.previous_final)
            .fixed(self.previous_record, 32)
            .fixed(self.schedule, 32)
            .u64(self.registry_version)
            .fixed(self.registry_digest, 32)
            .u16(encode_roster(self.roster))
            .u8(self.opener)
            .u64(self.opened_at_ms)
            .take()
        )

    @property
    def hash(self) -> Digest:
        """The header hash that every pad key, slot tag and envelope is bound to."""
        return derive("header", self.encode())

    @staticmethod
    def decode(data: bytes) -> RoundHeader:
        """Parse a header.

        Raises:
            RemoteProtocolError: When the bytes are not exactly one header.
        """
        reader = Reader(data)
        header = _read_header(reader)
        reader.finish()
        return header


def _read_header(reader: Reader) -> RoundHeader:
    if reader.u8() != HEADER_LAYOUT:
        raise RemoteProtocolError("unknown round header layout")
    header = RoundHeader(
        group=GroupId(reader.fixed(32)),
        round=RoundNumber(reader.u64()),
        descriptor_version=reader.u32(),
        previous_final=RoundNumber(reader.u64()),
        previous_record=Digest(reader.fixed(32)),
        schedule=Digest(reader.fixed(32)),
        registry_version=reader.u64(),
        registry_digest=Digest(reader.fixed(32)),
        roster=decode_roster(reader.u16()),
        opener=ServerIndex(reader.u8()),
        opened_at_ms=reader.u64(),
    )
    if not header.round or header.previous_final >= header.round:
        raise RemoteProtocolError("round header does not follow its predecessor")
    if header.opener not in header.roster:
        raise RemoteProtocolError("round header was opened by a server outside its roster")
    return header


@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A header with its opener's Ed25519 signature, as parsed; not yet verified."""

    header: RoundHeader
    signature: bytes

    def encode(self) -> bytes:
        """Lay out the header (u16 length first) and its 64-byte signature."""
        return Writer().var16(self.header.encode()).fixed(self.signature, 64).take()

    @staticmethod
    def decode(data: bytes) -> SignedHeader:
        """Parse a signed header.

        Raises:
            RemoteProtocolError: When the bytes are not exactly one signed header.
        """
        reader = Reader(data)
        header = RoundHeader.decode(reader.var16(max_len=_SIGNED_MAX))
        signature = reader.fixed(64)
        reader.finish()
        return SignedHeader(header, signature)


def sign_header(header: RoundHeader, identity: Identity) -> SignedHeader:
    """Sign a header as its opener."""
    return SignedHeader(header, identity.sign_ed25519(HEADER_SIGNATURE_USE, header.encode()))


def verify_header(signed: SignedHeader, committee_keys: Sequence[bytes]) -> RoundHeader:
    """Check the opener's signature and return the header.

    Args:
        signed: The header as it arrived.
        committee_keys: Ed25519 keys of the descriptor's committee, by server index.

    Raises:
        VerificationError: When the signature does not verify.
        RemoteProtocolError: When the opener is no member of the committee.
    """
    header = signed.header
    if header.opener >= len(committee_keys):
        raise RemoteProtocolError("round header was opened by no member of the committee")
    key = committee_keys[header.opener]
    verify_ed25519(key, HEADER_SIGNATURE_USE, header.encode(), signed.signature)
    return header

"""Every byte layout that is hashed, MACed or signed, straight from docs/protocol.md §9.

Plain values in, plain bytes out, one expression each. Nothing here may import the product.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256

from tests.reference.derivations import be64, content_digest, derive, keyed, schedule_hash


def be16(number: int) -> bytes:
    return struct.pack(">H", number)


def be32(number: int) -> bytes:
    return struct.pack(">I", number)


def roster(servers: Sequence[int]) -> bytes:
    return be16(sum(1 << server for server in servers))


# --- rounds (§9.9 - §9.13) -----------------------------------------------------------------------


def header(
    group: bytes,
    number: int,
    version: int,
    *,
    previous: tuple[int, bytes],
    schedule: bytes,
    registry: tuple[int, bytes],
    servers: Sequence[int],
    opener: int,
    opened_at_ms: int,
) -> bytes:
    return (
        b"\1" + group + be64(number) + be32(version)
        + be64(previous[0]) + previous[1] + schedule
        + be64(registry[0]) + registry[1]
        + roster(servers) + bytes([opener]) + be64(opened_at_ms)
    )  # fmt: skip


def header_hash(encoded: bytes) -> bytes:
    return derive("header", encoded)


def signed_header(encoded: bytes, signature: bytes) -> bytes:
    return be16(len(encoded)) + encoded + signature


def participants(indexes: Sequence[int]) -> bytes:
    octets = [0] * (max(indexes) // 8 + 1 if indexes else 0)
    for index in indexes:
        octets[index // 8] |= 1 << index % 8
    return bytes(octets)


def participants_digest(encoded: bytes) -> bytes:
    return derive("participants", encoded)


def participants_salt(committee_secret: bytes, hashed_header: bytes) -> bytes:
    return keyed("participants-salt", committee_secret, hashed_header)


def participants_commitment(salt: bytes, encoded: bytes) -> bytes:
    return derive("participants-commitment", salt, encoded)


def envelope_signed(number: int, hashed_header: bytes, sender: int, body: bytes) -> bytes:
    return be64(number) + hashed_header + be64(sender) + content_digest(body)


def aggregate(number: int, hashed_header: bytes, members: bytes, body: bytes) -> bytes:
    return (
        b"\1" + be64(number) + hashed_header
        + be32(len(members)) + members + be32(len(body)) + body
    )  # fmt: skip


def partial(
    number: int, hashed_header: bytes, server: int, aggregate_digest: bytes, body: bytes
) -> bytes:
    return (
        b"\1" + be64(number) + hashed_header + bytes([server]) + aggregate_digest
        + be32(len(body)) + body
    )  # fmt: skip


def release_digest(hashed_header: bytes, members: bytes) -> bytes:
    return derive("release", hashed_header, participants_digest(members))


def release_entry(number: int, digest: bytes) -> bytes:
    return be64(number) + digest


# --- registration (§9.14) ------------------------------------------------------------------------


def announcement_signed(group: bytes, server: int, epoch: int, public: bytes) -> bytes:
    return b"\1" + group + bytes([server]) + be64(epoch) + public


def registration_signed(
    group: bytes,
    identity: bytes,
    serial: int,
    ciphertexts: Sequence[tuple[int, int, bytes]],
    evidence: bytes = bytes(32),
) -> bytes:
    items = [bytes([server]) + be64(epoch) + sealed for server, epoch, sealed in ciphertexts]
    head = b"\1" + group + identity + be64(serial) + evidence
    return head + bytes([len(items)]) + b"".join(items)


def registry_added(index: int, first: int, peer: bytes, key: bytes, registration: bytes) -> bytes:
    return b"\1" + be64(index) + be64(first) + peer + key + registration


def registry_retired(index: int, first: int) -> bytes:
    return b"\0" + be64(index) + be64(first)


def registry_begins(next_index: int, version: int) -> bytes:
    return b"\2" + be64(next_index) + be64(version)


def registry_digest(changes: Sequence[bytes]) -> bytes:
    digest = derive("registry")
    for change in changes:
        begins = change[0] == 2
        digest = (
            derive("registry-base", change) if begins else derive("registry-change", digest, change)
        )
    return digest


# --- commands (§9.15) ----------------------------------------------------------------------------


def command(kind: int, author: int, fields: bytes) -> bytes:
    return b"\1" + bytes([kind, author]) + fields


# --- the record (§9.16) --------------------------------------------------------------------------


def record_body(states: Sequence[int], slots: Sequence[bytes], reservations: bytes) -> bytes:
    return be16(len(states)) + bytes(states) + b"".join(slots) + reservations


def record_content(
    encoded_header: bytes, sequence: int, count: int, commitment: bytes, body: bytes
) -> bytes:
    return (
        b"\1" + be16(len(encoded_header)) + encoded_header
        + be64(sequence) + be32(count) + commitment + be32(len(body)) + body
    )  # fmt: skip


def record_hash(content: bytes, reservations: bytes) -> bytes:
    return derive("record", content, schedule_hash(reservations))


def record(content: bytes, signatures: Sequence[tuple[int, bytes]]) -> bytes:
    signed = [bytes([server]) + signature for server, signature in signatures]
    return be32(len(content)) + content + bytes([len(signed)]) + b"".join(signed)


# --- the rest (§9.17 - §9.20) --------------------------------------------------------------------


def attestation_policy_digest(
    mode: str, lifetime_s: int = 600, policies: Sequence[bytes | None] = ()
) -> bytes:
    """The policies' digests in the order committee, aggregator, client; None where ungated."""
    if mode == "off":
        return derive("attestation-policy", b"off")
    asked = [b"\0" + bytes(32) if policy is None else b"\1" + policy for policy in policies]
    return derive("attestation-policy", mode.encode(), be32(lifetime_s) + b"".join(asked))


def mrtd_policy_digest(mrtd: bytes) -> bytes:
    """A TDX policy with defaults that demands one MRTD: every piece after its length."""
    td_attributes = sum(1 << bit for bit in (16, 27, 28, 30, 31, 62, 63))
    pieces = [
        b"UpToDate",
        b"",
        *[bytes(8)] * 3,
        b"",
        be64(1 << 28) + be64(td_attributes),
        be64(0x3) + be64(0x6DBE7),
        bytes(3),
        b"",
        b"measurements",
        b"mrtd",
        mrtd,
    ]
    return sha256(b"tdx/policy/v1" + b"".join(be32(len(p)) + p for p in pieces)).digest()


def intel_root_digest() -> bytes:
    certificate = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
    return sha256(b"tdx/trust-root/v1\x05intel" + bytes.fromhex(certificate)).digest()


def trust_root_digest(root: bytes) -> bytes:
    return derive("trust-root", root)


def certificate_serial(ed25519: bytes, generation: int = 0) -> int:
    later = [be32(generation)] if generation else []
    number = int.from_bytes(derive("certificate-serial", ed25519, *later)[:16], "big")
    return number // 2 | 1


def optional32(value: bytes | None) -> bytes:
    return b"\0" + bytes(32) if value is None else b"\1" + value


def transcript(
    versions: Sequence[int],
    version: int,
    ids: tuple[bytes, bytes],
    roles: tuple[int, int],
    *,
    peers: tuple[bytes | None, bytes],
    nonces: tuple[bytes, bytes],
    boots: tuple[bytes, bytes],
    acceptor_key: bytes,
    initiator_key: bytes | None,
) -> bytes:
    return (
        bytes([len(versions)]) + b"".join(map(be16, versions)) + be16(version)
        + ids[0] + ids[1] + bytes(roles) + optional32(peers[0]) + peers[1]
        + nonces[0] + nonces[1] + boots[0] + boots[1]
        + acceptor_key + optional32(initiator_key)
    )  # fmt: skip


def committee_mac(secret: bytes, side: str, encoded: bytes) -> bytes:
    return keyed("committee-" + side, secret, encoded)


def frame(kind: int, request: int, payload: bytes, *, response: bool) -> bytes:
    flags = 1 if response else 0
    return bytes([1, flags]) + be16(kind) + be32(request) + be32(len(payload)) + payload

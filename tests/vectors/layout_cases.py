"""Vectors of the byte layouts, made by ``tests.reference.layouts``; part of the generator.

Nothing of the product is imported. What is signed with both keys has a vector of the signed bytes
and of the Ed25519 half: ML-DSA signing is hedged, so its half is not a function of its input.
It is long because it is a list: one case after the other, with no logic in between.
"""

from __future__ import annotations

from collections.abc import Iterator

import nacl.signing
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from tests.reference import derivations as ref
from tests.reference import layouts
from tests.reference.derivations import be64
from tests.reference.layouts import be16, be32
from tests.vectors.testkit import draw

Lines = list[tuple[str, str]]
Vector = tuple[str, str, str, Lines]
REFUSED = "remote-protocol-error"

GROUP, SECRET, COMMITTEE = draw("group", 32), draw("node", 32), draw("committee", 32)
SEED = ref.identity_seeds(SECRET)
SIGNER = nacl.signing.SigningKey(SEED[0])
ED25519 = bytes(SIGNER.verify_key)
MLDSA65 = MLDSA65PrivateKey.from_seed_bytes(SEED[1]).public_key().public_bytes_raw()
PEER = ref.peer_id(ED25519, MLDSA65)
NUM_SLOTS, SLOT_BYTES = 3, 64
BODY_BYTES = NUM_SLOTS * SLOT_BYTES + NUM_SLOTS * 16
SHAPE: Lines = [("num-slots", str(NUM_SLOTS)), ("slot-bytes", str(SLOT_BYTES))]


def sign(use: str, message: bytes) -> bytes:
    return SIGNER.sign(ref.ed25519_signed_input(use, message)).signature


def half(use: str, message: bytes) -> bytes:
    return SIGNER.sign(ref.hybrid_signed_input(use, PEER, message)).signature


def damaged(data: bytes, layout: int = 2) -> Iterator[tuple[str, bytes]]:
    """The ways in which any layout with a version in front is refused."""
    yield "empty", b""
    yield "truncated", data[:-1]
    yield "trailing-byte", data + b"\0"
    yield "other-layout", bytes([layout]) + data[1:]


def make_header(
    number: int = 7,
    *,
    final: int = 5,
    servers: tuple[int, ...] = (0, 1, 2),
    opener: int = 1,
    opened_at_ms: int = 1_900_000_000_000,
) -> bytes:
    return layouts.header(
        GROUP,
        number,
        3,
        previous=(final, draw("record", 32)),
        schedule=draw("schedule", 32),
        registry=(9, draw("registry", 32)),
        servers=servers,
        opener=opener,
        opened_at_ms=opened_at_ms,
    )


HEADER = make_header()
HASH = layouts.header_hash(HEADER)


def headers() -> Iterator[Vector]:
    for title, number, final, servers, opener, stamp in (
        ("ordinary", 7, 5, (0, 1, 2), 1, 1_900_000_000_000),
        ("first-round", 1, 0, (0, 1, 2), 0, 0),
        ("one-server-absent", 8, 5, (0, 2), 2, 1_900_000_000_001),
        ("largest-numbers", 2**64 - 1, 2**64 - 2, tuple(range(16)), 15, 2**64 - 1),
    ):
        encoded = make_header(
            number, final=final, servers=servers, opener=opener, opened_at_ms=stamp
        )
        signature = sign("header", encoded)
        yield (
            "header",
            title,
            "success",
            [
                ("group", GROUP.hex()),
                ("round", str(number)),
                ("descriptor-version", "3"),
                ("previous-final", str(final)),
                ("previous-record", draw("record", 32).hex()),
                ("schedule", draw("schedule", 32).hex()),
                ("registry-version", "9"),
                ("registry-digest", draw("registry", 32).hex()),
                ("roster", " ".join(map(str, servers))),
                ("opener", str(opener)),
                ("opened-at-ms", str(stamp)),
                ("encoded", encoded.hex()),
                ("output", layouts.header_hash(encoded).hex()),
                ("secret", SECRET.hex()),
                ("signature", signature.hex()),
                ("signed", layouts.signed_header(encoded, signature).hex()),
            ],
        )
    for title, data in (
        *damaged(HEADER),
        ("round-zero", make_header(0, final=0)),
        ("previous-round-is-not-older", make_header(7, final=7)),
        ("opener-outside-the-roster", make_header(servers=(0, 2), opener=1)),
        ("empty-roster", make_header(servers=(), opener=0)),
    ):
        yield "header-bytes", title, REFUSED, [("data", data.hex())]
    signed = layouts.signed_header(HEADER, sign("header", HEADER))
    for title, data in (
        ("truncated", signed[:-1]),
        ("trailing-byte", signed + b"\0"),
        ("length-too-short", be16(len(HEADER) - 1) + signed[2:]),
        ("length-over-the-cap", be16(513) + bytes(513) + bytes(64)),
    ):
        yield "signed-header-bytes", title, REFUSED, [("data", data.hex())]
    for title, use, message in (
        ("other-use", "envelope", HEADER),
        ("other-header", "header", make_header(8)),
    ):
        lines = [("data", layouts.signed_header(HEADER, sign(use, message)).hex())]
        lines += [("key", ED25519.hex())]
        yield "header-verification", title, "verification-error", lines


def members() -> Iterator[Vector]:
    for title, indexes in (
        ("nobody", ()),
        ("first", (0,)),
        ("three", (0, 2, 9)),
        ("byte-boundary", (7, 8)),
        ("far", (3, 1000)),
    ):
        encoded, salt = layouts.participants(indexes), layouts.participants_salt(COMMITTEE, HASH)
        lines = [("index", str(index)) for index in indexes]
        lines += [
            ("encoded", encoded.hex()),
            ("digest", layouts.participants_digest(encoded).hex()),
            ("secret", COMMITTEE.hex()),
            ("header", HEADER.hex()),
            ("header-hash", HASH.hex()),
            ("salt", salt.hex()),
            ("commitment", layouts.participants_commitment(salt, encoded).hex()),
            ("release", layouts.release_digest(HASH, encoded).hex()),
        ]
        yield "participants", title, "success", lines
    for title, data in (("trailing-zero", b"\1\0"), ("only-zero", b"\0")):
        yield "participants-bytes", title, REFUSED, [("data", data.hex())]
    entry = layouts.release_entry(7, draw("release", 32))
    lines = [("round", "7"), ("digest", draw("release", 32).hex()), ("encoded", entry.hex())]
    yield "release-entry", "ordinary", "success", lines
    for title, data in (("truncated", entry[:-1]), ("trailing-byte", entry + b"\0")):
        yield "release-entry-bytes", title, REFUSED, [("data", data.hex())]


def bodies() -> Iterator[Vector]:
    body, set_bytes = draw("vector", BODY_BYTES), layouts.participants((0, 2, 9))
    signed = layouts.envelope_signed(7, HASH, 9, body)
    base: Lines = [("header", HEADER.hex()), ("body", body.hex())]
    lines = [*base, ("sender", "9"), ("secret", SECRET.hex()), ("signed", signed.hex())]
    lines += [("signature", sign("envelope", signed).hex())]
    yield "envelope", "ordinary", "success", lines
    blob = layouts.aggregate(7, HASH, set_bytes, body)
    lines = [("round", "7"), ("header-hash", HASH.hex()), ("index", "0"), ("index", "2")]
    lines += [("index", "9"), ("body", body.hex()), ("blob", blob.hex())]
    yield (
        "aggregate",
        "ordinary",
        "success",
        [*SHAPE, *lines, ("digest", ref.content_digest(blob).hex())],
    )
    for title, data in (
        *damaged(blob),
        ("set-not-canonical", layouts.aggregate(7, HASH, set_bytes + b"\0", body)),
        ("body-too-short", layouts.aggregate(7, HASH, set_bytes, body[:-1])),
        ("body-too-long", layouts.aggregate(7, HASH, set_bytes, body + b"\0")),
        ("set-over-the-cap", blob[:41] + be32(128 * 1024 + 1) + blob[45:]),
    ):
        yield "aggregate-bytes", title, REFUSED, [*SHAPE, ("data", data.hex())]
    aggregate_digest = ref.content_digest(blob)
    blob = layouts.partial(7, HASH, 2, aggregate_digest, body)
    lines = [("round", "7"), ("header-hash", HASH.hex()), ("server", "2")]
    lines += [("aggregate", aggregate_digest.hex()), ("body", body.hex()), ("blob", blob.hex())]
    yield (
        "partial",
        "ordinary",
        "success",
        [*SHAPE, *lines, ("digest", ref.content_digest(blob).hex())],
    )
    for title, data in (
        *damaged(blob),
        ("body-too-short", layouts.partial(7, HASH, 2, aggregate_digest, body[:-1])),
        ("body-over-the-cap", blob[:74] + be32(1024 * 1024 + 1) + blob[78:]),
    ):
        yield "partial-bytes", title, REFUSED, [*SHAPE, ("data", data.hex())]


def registrations() -> Iterator[Vector]:
    identity, unsigned = ED25519 + MLDSA65, bytes(3373)
    public = draw("kem public", 1216)
    signed = layouts.announcement_signed(GROUP, 2, 4, public)
    lines = [("secret", SECRET.hex()), ("group", GROUP.hex()), ("server", "2"), ("epoch", "4")]
    lines += [("public", public.hex()), ("signed", signed.hex())]
    lines += [("ed25519-half", half("kem-announcement", signed).hex())]
    yield "announcement", "ordinary", "success", lines
    for title, data, expect in (
        *((title, data, REFUSED) for title, data in damaged(signed + unsigned)),
        ("other-group", b"\1" + bytes(32) + signed[33:] + unsigned, REFUSED),
        ("no-such-server", signed[:33] + b"\3" + signed[34:] + unsigned, REFUSED),
        ("not-signed", signed + unsigned, "verification-error"),
    ):
        lines = [("group", GROUP.hex()), ("committee-size", "3"), ("identity", identity.hex())]
        yield "announcement-bytes", title, expect, [*lines, ("data", data.hex())]
    sealed = [(server, 4 + server, draw(f"sealed {server}", 1120)) for server in range(3)]
    signed = layouts.registration_signed(GROUP, identity, 1_900_000_000_123, sealed)
    lines = [("secret", SECRET.hex()), ("group", GROUP.hex()), ("serial", "1900000000123")]
    lines += [("ciphertext", f"{s} {epoch} {data.hex()}") for s, epoch, data in sealed]
    lines += [("signed", signed.hex()), ("ed25519-half", half("registration", signed).hex())]
    none = ("evidence", bytes(32).hex())
    yield "registration", "ordinary", "success", [*lines, none]
    shown = draw("evidence", 32)
    signed = layouts.registration_signed(GROUP, identity, 1_900_000_000_123, sealed, shown)
    lines[-2:] = [("signed", signed.hex()), ("ed25519-half", half("registration", signed).hex())]
    yield "registration", "with-evidence", "success", [*lines, ("evidence", shown.hex())]

    def other(items: list[tuple[int, int, bytes]]) -> bytes:
        return layouts.registration_signed(GROUP, identity, 1, items) + unsigned

    for title, data, expect in (
        *((title, data, REFUSED) for title, data in damaged(signed + unsigned)),
        ("other-group", b"\1" + bytes(32) + signed[33:] + unsigned, REFUSED),
        ("a-server-is-missing", other(sealed[:2]), REFUSED),
        ("out-of-order", other([sealed[1], sealed[0], sealed[2]]), REFUSED),
        ("a-server-twice", other([sealed[0], sealed[0], sealed[1]]), REFUSED),
        ("one-too-many", other([*sealed, (3, 4, sealed[0][2])]), REFUSED),
        ("not-signed", signed + unsigned, "verification-error"),
    ):
        lines = [("group", GROUP.hex()), ("committee-size", "3"), ("data", data.hex())]
        yield "registration-bytes", title, expect, lines
    yield from registry()


def registry() -> Iterator[Vector]:
    registration = draw("registration", 32)
    added = layouts.registry_added(0, 3, PEER, ED25519, registration)
    retired = layouts.registry_retired(0, 12)
    again = layouts.registry_added(1, 12, PEER, ED25519, draw("again", 32))
    begins = layouts.registry_begins(2, 3)
    for title, changes in (
        ("empty", []),
        ("begun-anew", [begins, again]),
        ("begun-anew-after-a-history", [added, retired, again, begins, again]),
        ("one-client", [added]),
        ("retired", [added, retired]),
        ("registered-again", [added, retired, again]),
        ("order-counts", [again, added, retired]),
    ):
        lines = [("change", change.hex()) for change in changes]
        output = layouts.registry_digest(changes).hex()
        yield "registry-digest", title, "success", [*lines, ("output", output)]
    lines = [("index", "0"), ("first-round", "3"), ("peer", PEER.hex()), ("key", ED25519.hex())]
    lines += [("registration", registration.hex()), ("encoded", added.hex())]
    yield "registry-change", "added", "success", lines
    lines = [("index", "0"), ("first-round", "12"), ("encoded", retired.hex())]
    yield "registry-change", "retired", "success", lines
    lines = [("index", "2"), ("first-round", "0"), ("base", "3"), ("encoded", begins.hex())]
    yield "registry-change", "a-new-beginning", "success", lines
    for title, data in (
        ("empty", b""),
        ("unknown-kind", b"\3" + added[1:]),
        ("a-new-beginning-with-a-client", b"\2" + added[1:]),
        ("added-without-a-client", b"\1" + retired[1:]),
        ("retired-with-a-client", b"\0" + added[1:]),
        ("trailing-byte", added + b"\0"),
    ):
        yield "registry-change-bytes", title, REFUSED, [("data", data.hex())]


def commands() -> Iterator[Vector]:
    first, second, third = (draw(f"digest {i}", 32) for i in range(3))
    signed_header = layouts.signed_header(HEADER, sign("header", HEADER))
    hybrid = draw("hybrid", 3373)
    table = {
        "announce-kem": (1, be64(4) + first),
        "register-client": (2, PEER + ED25519 + be64(123) + second),
        "retire-client": (3, be64(5)),
        "open-round": (4, be16(len(signed_header)) + signed_header),
        "choose-aggregate": (5, be64(7) + first + second + be32(8)),
        "post-partial": (6, be64(7) + first + third),
        "sign-record": (7, be64(7) + second + third + hybrid),
        "seal-record": (8, be64(7)),
        "abort-round": (9, be64(7) + b"\3" + layouts.roster([0, 2])),
        "revoke": (10, be16(96) + first + second + third),
        "offer-descriptor": (11, first + b"\2\5" + be16(64) + second + third),
        "adopt-descriptor": (12, be32(9) + third),
    }
    base: Lines = [("group", GROUP.hex()), ("key", ED25519.hex())]
    for title, (kind, fields) in table.items():
        body = layouts.command(kind, 1, fields)
        data = body + sign("command", GROUP + body)
        yield (
            "command",
            title,
            "success",
            [
                *base,
                ("secret", SECRET.hex()),
                ("type", title.title().replace("-", "")),
                ("author", "1"),
                ("body", body.hex()),
                ("data", data.hex()),
            ],
        )

    def signed(body: bytes, group: bytes = GROUP, use: str = "command") -> bytes:
        return body + sign(use, group + body)

    seal = layouts.command(8, 1, be64(7))
    for title, data, expect in (
        ("empty", b"", REFUSED),
        ("signature-only", bytes(64), REFUSED),
        ("other-layout", signed(b"\2" + seal[1:]), REFUSED),
        ("unknown-kind", signed(layouts.command(99, 1, be64(7))), REFUSED),
        ("kind-zero", signed(layouts.command(0, 1, be64(7))), REFUSED),
        ("no-such-author", signed(layouts.command(8, 3, be64(7))), REFUSED),
        ("truncated", signed(seal[:-1]), REFUSED),
        ("trailing-byte", signed(seal + b"\0"), REFUSED),
        ("oversize", signed(seal + bytes(8 * 1024)), REFUSED),
        (
            "unknown-abort-reason",
            signed(layouts.command(9, 1, be64(7) + b"\x09\0\0")),
            REFUSED,
        ),
        ("header-inside-is-bad", signed(layouts.command(4, 1, be16(3) + b"abc")), REFUSED),
        ("other-group", signed(seal, group=bytes(32)), "verification-error"),
        ("other-use", signed(seal, use="header"), "verification-error"),
        (
            "one-bit-off",
            seal[:-1] + b"\6" + sign("command", GROUP + seal),
            "verification-error",
        ),
    ):
        yield "command-bytes", title, expect, [*base, ("data", data.hex())]


def records() -> Iterator[Vector]:
    identifier, commitment = draw("id", 16), draw("commitment", 32)
    valid = ref.slot(
        identifier, 0, 1, b"hello", slot_bytes=SLOT_BYTES, header_hash=HASH, position=0
    )
    void, vector = draw("void", SLOT_BYTES), ref.vector(NUM_SLOTS, [(3, 77), (20, 65535)])
    states, slots = (1, 0, 2), (valid, b"", void)
    body = layouts.record_body(states, slots, vector)
    content = layouts.record_content(HEADER, 4, 8, commitment, body)
    signatures = [(server, draw(f"signature {server}", 3373)) for server in range(3)]
    data = layouts.record(content, signatures)
    clear = valid + bytes(SLOT_BYTES) + void + vector
    yield (
        "record",
        "valid-empty-void",
        "success",
        [
            *SHAPE,
            ("header", HEADER.hex()),
            ("sequence", "4"),
            ("participants", "8"),
            ("commitment", commitment.hex()),
            ("clear", clear.hex()),
            ("state", "VALID"),
            ("state", "EMPTY"),
            ("state", "VOID"),
            ("content", content.hex()),
            ("schedule", ref.schedule_hash(vector).hex()),
            ("output", layouts.record_hash(content, vector).hex()),
            *(("signature", f"{server} {signature.hex()}") for server, signature in signatures),
            ("data", data.hex()),
        ],
    )

    def other(changed: bytes) -> bytes:
        return layouts.record(changed, signatures)

    def with_body(changed: bytes) -> bytes:
        return other(layouts.record_content(HEADER, 4, 8, commitment, changed))

    for title, bad in (
        ("empty", b""),
        ("truncated", data[:-1]),
        ("trailing-byte", data + b"\0"),
        ("other-layout", other(b"\2" + content[1:])),
        ("content-trailing-byte", other(content + b"\0")),
        ("content-over-the-cap", be32(1024 * 1024 + 513) + data[4:]),
        ("unknown-state", with_body(body[:2] + b"\3" + body[3:])),
        ("slots-do-not-fit-states", with_body(layouts.record_body((1, 1, 2), slots, vector))),
        ("fewer-slots", with_body(layouts.record_body(states[:2], slots[:2], vector))),
        ("reservations-too-short", with_body(body[:-1])),
        ("reservations-too-long", with_body(body + b"\0")),
        ("signatures-out-of-order", layouts.record(content, signatures[::-1])),
        ("a-server-signs-twice", layouts.record(content, [signatures[0], signatures[0]])),
        ("signature-short", layouts.record(content, [(0, signatures[0][1][:-1])])),
    ):
        yield "record-bytes", title, REFUSED, [*SHAPE, ("data", bad.hex())]


def others() -> Iterator[Vector]:
    encoded = ref.encode_params(64, 256, 3, 3600, 100_000)
    fingerprint = ref.committee_fingerprint(COMMITTEE, "zipnet", "acme.mainnet")
    named = [("universe", "zipnet"), ("name", "acme.mainnet"), ("fingerprint", fingerprint.hex())]
    gates = (("committee", b"\1" * 48), ("aggregator", b"\2" * 48), ("client", b"\3" * 48))
    asked = [(gate, mrtd, layouts.mrtd_policy_digest(mrtd)) for gate, mrtd in gates]
    intel = layouts.trust_root_digest(layouts.intel_root_digest())
    for title, mode, lifetime, gated, root in (
        ("no-attestation", "off", 600, (), layouts.trust_root_digest(b"none")),
        ("everybody-gated", "required", 600, asked, intel),
        ("short-lived", "required", 60, asked, intel),
        ("clients-ungated", "required", 600, asked[:2], intel),
    ):
        digests: list[bytes | None] = [digest for _, _, digest in gated]
        digests.extend([None] * (len(gates) - len(digests)))
        policy = layouts.attestation_policy_digest(mode, lifetime, digests)
        group = ref.group_id("zipnet", "acme.mainnet", encoded, fingerprint, policy, root)
        lines = [*named, ("tdx-mode", mode)]
        lines += [("lifetime", str(lifetime))] if gated else []
        lines += [("gate", f"{gate} {mrtd.hex()}") for gate, mrtd, _ in gated]
        lines += [("policy", policy.hex()), ("trust-root", root.hex())]
        yield "descriptor-group", title, "success", [*lines, ("output", group.hex())]
    for title, label in (("node", "node"), ("other-node", "other node")):
        seed = draw(label, 32)
        key = bytes(nacl.signing.SigningKey(seed).verify_key)
        for generation, suffix in ((0, ""), (1, "-next"), (70_000, "-much-later")):
            serial = str(layouts.certificate_serial(key, generation))
            lines = [("seed", seed.hex()), ("public", key.hex())]
            lines += [("generation", str(generation)), ("serial", serial)]
            yield "certificate", title + suffix, "success", lines
    yield from handshakes()
    for title, kind, request, payload, response in (
        ("push", 19, 0, b"abc", False),
        ("request", 24, 1, b"", False),
        ("response", 24, 2**32 - 1, b"\0\1", True),
    ):
        data = layouts.frame(kind, request, payload, response=response)
        lines = [("frame-kind", str(kind)), ("request", str(request)), ("payload", payload.hex())]
        lines += [("response", "yes" if response else "no"), ("data", data.hex())]
        yield "frame", title, "success", lines
    data = layouts.frame(24, 1, b"abc", response=False)
    for title, bad in (
        ("other-version", b"\2" + data[1:]),
        ("unknown-flag", data[:1] + b"\2" + data[2:]),
        ("kind-zero", data[:2] + be16(0) + data[4:]),
        ("over-the-cap", data[:8] + be32(2**32 - 1) + data[12:]),
        ("response-to-nothing", layouts.frame(24, 0, b"", response=True)),
    ):
        yield "frame-bytes", title, REFUSED, [("data", bad.hex())]


def handshakes() -> Iterator[Vector]:
    ids, nonces = (draw("instance", 32), GROUP), (draw("nonce 0", 32), draw("nonce 1", 32))
    boots = (draw("boot 0", 16), draw("boot 1", 16))
    acceptor, key = draw("acceptor peer", 32), draw("acceptor key", 32)
    for title, versions, roles, peer, initiator_key in (
        ("among-servers", (1,), ("server", "server"), PEER, ED25519),
        ("reader", (2, 1), ("reader", "server"), None, None),
        ("client-without-certificate", (1,), ("client", "aggregator"), PEER, None),
    ):
        numbers = {"client": 1, "reader": 2, "aggregator": 3, "server": 4}
        encoded = layouts.transcript(
            versions,
            1,
            ids,
            (numbers[roles[0]], numbers[roles[1]]),
            peers=(peer, acceptor),
            nonces=nonces,
            boots=boots,
            acceptor_key=key,
            initiator_key=initiator_key,
        )
        yield (
            "transcript",
            title,
            "success",
            [
                *(("offered", str(version)) for version in versions),
                ("version", "1"),
                ("instance", ids[0].hex()),
                ("group", ids[1].hex()),
                *(("role", role) for role in roles),
                ("initiator-peer", peer.hex() if peer else "none"),
                ("acceptor-peer", acceptor.hex()),
                *(("nonce", nonce.hex()) for nonce in nonces),
                *(("boot", boot.hex()) for boot in boots),
                ("acceptor-key", key.hex()),
                ("initiator-key", initiator_key.hex() if initiator_key else "none"),
                ("encoded", encoded.hex()),
                ("committee-secret", COMMITTEE.hex()),
                ("initiator-mac", layouts.committee_mac(COMMITTEE, "initiator", encoded).hex()),
                ("acceptor-mac", layouts.committee_mac(COMMITTEE, "acceptor", encoded).hex()),
                ("secret", SECRET.hex()),
                ("initiator-half", half("hello-initiator", encoded).hex()),
                ("acceptor-half", half("hello-acceptor", encoded).hex()),
            ],
        )


def layout_vectors() -> Iterator[Vector]:
    for source in (headers, members, bodies, registrations, commands, records, others):
        yield from source()

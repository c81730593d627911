"""Write every vector file from the naive reference: ``python -m tests.vectors.generate``.

Nothing of the product is imported. Inputs are drawn from SHAKE-128 of a label, so a second run
writes the same bytes and ``git diff --exit-code`` tells whether the reference changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import nacl.signing
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from tests.reference import derivations as ref
from tests.reference import pads, walk, xwing
from tests.vectors.layout_cases import layout_vectors
from tests.vectors.testkit import FOLDER, draw, format_case

Lines = list[tuple[str, str]]
Vector = tuple[str, str, str, Lines]  # kind, title, expectation, lines


def ids() -> Iterator[Vector]:
    for title, use, parts in (
        ("no-parts", "header", ()),
        ("one-part", "header", (b"abc",)),
        ("empty-part", "header", (b"",)),
        ("parts-are-not-joined", "header", (b"ab", b"c")),
        ("other-use", "record", (b"abc",)),
        ("long-part", "participants", (draw("long", 3000), b"\0")),
    ):
        lines = [("use", use), *(("part", part.hex()) for part in parts)]
        yield "derive", title, "success", [*lines, ("output", ref.derive(use, *parts).hex())]
    key = draw("key", 32)
    for title, part in (("message", b"abc"), ("empty", b"")):
        output = ref.keyed("slot-tag", key, part)
        lines = [("use", "slot-tag"), ("key", key.hex()), ("part", part.hex())]
        yield "keyed", title, "success", [*lines, ("output", output.hex())]
    for size in (0, 31, 33):
        lines = [("use", "slot-tag"), ("key", draw("key", size).hex()), ("part", "00")]
        yield "keyed", f"key-of-{size}-bytes", "local-protocol-error", lines
    for title, data in (("empty", b""), ("short", b"zipnet"), ("long", draw("blob", 5000))):
        lines = [("data", data.hex()), ("output", ref.content_digest(data).hex())]
        yield "content-digest", title, "success", lines


UNIVERSE, NAME = "zipnet", "acme.mainnet"


def groups() -> Iterator[Vector]:
    for title, universe, name in (
        ("default-universe", UNIVERSE, NAME),
        ("other-universe", "lab", NAME),
        ("boundary-does-not-shift", "zipneta", "cme.mainnet"),
    ):
        output = ref.instance_id(universe, name).hex()
        lines = [("universe", universe), ("name", name), ("output", output)]
        yield "instance-id", title, "success", lines
    secret = draw("committee", 32)
    for title, name in (("first-instance", NAME), ("second-instance", "acme.testnet")):
        output = ref.committee_fingerprint(secret, UNIVERSE, name).hex()
        lines = [("secret", secret.hex()), ("universe", UNIVERSE), ("name", name)]
        yield "committee-fingerprint", title, "success", [*lines, ("output", output)]
    lines = [("secret", secret[:16].hex()), ("universe", UNIVERSE), ("name", NAME)]
    yield "committee-fingerprint", "short-secret", "local-protocol-error", lines
    yield from group_ids(ref.committee_fingerprint(secret, UNIVERSE, NAME))


def group_ids(fingerprint: bytes) -> Iterator[Vector]:
    policy, root = draw("policy", 32), draw("root", 32)
    for title, params, policy_used, root_used in (
        ("defaults", (64, 256, 3, 3600, 100_000), policy, root),
        ("paper", (1024, 160, 8, 3600, 100_000), policy, root),
        ("other-epoch", (64, 256, 3, 1800, 100_000), policy, root),
        ("other-policy", (64, 256, 3, 3600, 100_000), root, root),
        ("other-trust-root", (64, 256, 3, 3600, 100_000), policy, policy),
    ):
        encoded = ref.encode_params(*params)
        output = ref.group_id(UNIVERSE, NAME, encoded, fingerprint, policy_used, root_used)
        yield (
            "group-id",
            title,
            "success",
            [
                ("universe", UNIVERSE),
                ("name", NAME),
                *param_lines(params),
                ("encoded", encoded.hex()),
                ("fingerprint", fingerprint.hex()),
                ("policy", policy_used.hex()),
                ("trust-root", root_used.hex()),
                ("output", output.hex()),
            ],
        )


PARAM_KEYS = ("num-slots", "slot-bytes", "min-participants", "kem-epoch-s", "max-skip-rounds")


def param_lines(params: tuple[int, ...]) -> Lines:
    return [(key, str(value)) for key, value in zip(PARAM_KEYS, params, strict=True)]


def refusals() -> Iterator[Vector]:
    for title, params in (
        ("no-slots", (0, 256, 3, 3600, 1)),
        ("slot-below-64", (64, 63, 3, 3600, 1)),
        ("body-too-long", (4096, 256, 3, 3600, 1)),
        ("one-participant", (64, 256, 1, 3600, 1)),
        ("no-epoch", (64, 256, 3, 0, 1)),
        ("no-skip", (64, 256, 3, 3600, 0)),
    ):
        yield "round-params", title, "config-error", param_lines(params)
    for title, text, expect in (
        ("two-labels", "acme.mainnet", "success"),
        ("three-labels", "a.b-2.c", "success"),
        ("longest-label", "a." + "x" * 32, "success"),
        ("one-label", "mainnet", "config-error"),
        ("empty-label", "acme..mainnet", "config-error"),
        ("capital", "Acme.mainnet", "config-error"),
        ("label-of-33", "a." + "x" * 33, "config-error"),
        ("too-long", ".".join(["x" * 32] * 4), "config-error"),
        ("underscore", "acme.main_net", "config-error"),
        ("empty", "", "config-error"),
    ):
        yield "instance-name", title, expect, [("text", text)]
    secret = draw("text", 32)
    prefix = "zipnet-secret-1:"
    good = [("text", prefix + secret.hex()), ("secret", secret.hex())]
    yield "secret-text", "random", "success", good
    for title, text in (
        ("no-prefix", secret.hex()),
        ("short", prefix + secret.hex()[:-2]),
        ("long", prefix + secret.hex() + "00"),
        ("capitals", prefix + secret.hex().upper()),
        ("zeros", prefix + "00" * 32),
        ("counting", prefix + bytes(range(32)).hex()),
        ("repeated", prefix + (draw("half", 16) * 2).hex()),
        ("sentence", prefix + b"Sphinx of black quartz,judge vow".hex()),
        ("empty", ""),
    ):
        yield "secret-text", title, "config-error", [("text", text)]


def identities() -> Iterator[Vector]:
    secret = draw("node", 32)
    ed_seed, ml_seed = ref.identity_seeds(secret)
    signer = nacl.signing.SigningKey(ed_seed)
    ed25519 = bytes(signer.verify_key)
    mldsa65 = MLDSA65PrivateKey.from_seed_bytes(ml_seed).public_key().public_bytes_raw()
    peer = ref.peer_id(ed25519, mldsa65)
    text = "zp1" + peer.hex()
    yield (
        "identity",
        "from-secret",
        "success",
        [
            ("secret", secret.hex()),
            ("ed25519", ed25519.hex()),
            ("mldsa65", mldsa65.hex()),
            ("peer-id", peer.hex()),
            ("text", text),
        ],
    )
    for title, bad in (
        ("no-prefix", peer.hex()),
        ("capitals", "zp1" + peer.hex().upper()),
        ("short", text[:-1]),
        ("long", text + "0"),
    ):
        yield "peer-id-text", title, "config-error", [("text", bad)]
    message = b"what is signed"
    for use in ("envelope", "header"):
        signature = signer.sign(ref.ed25519_signed_input(use, message)).signature
        lines = [("secret", secret.hex()), ("use", use), ("message", message.hex())]
        yield "ed25519-signature", use, "success", [*lines, ("signature", signature.hex())]
        half = signer.sign(ref.hybrid_signed_input(use, peer, message)).signature
        yield "hybrid-signature", use, "success", [*lines, ("ed25519-half", half.hex())]
    lines = [("public", ed25519.hex()), ("use", "envelope"), ("message", message.hex())]
    good = signer.sign(ref.ed25519_signed_input("envelope", message)).signature
    other_use = signer.sign(ref.ed25519_signed_input("header", message)).signature
    hybrid_half = signer.sign(ref.hybrid_signed_input("envelope", peer, message)).signature
    bare = signer.sign(message).signature
    for title, signature in (
        ("other-use", other_use),
        ("half-of-a-hybrid", hybrid_half),
        ("without-context", bare),
        ("one-bit-off", bytes([good[0] ^ 1]) + good[1:]),
        ("short", good[:-1]),
    ):
        yield (
            "ed25519-verification",
            title,
            "verification-error",
            [*lines, ("signature", signature.hex())],
        )


def kem() -> Iterator[Vector]:
    # The draft draws its published vectors from SHAKE-128 of the empty string, 96 bytes a vector.
    stream = hashlib.shake_128(b"").digest(3 * 96)
    for number in range(3):
        seed, eseed = stream[96 * number :][:32], stream[96 * number + 32 :][:64]
        public = xwing.public_key(seed)
        shared, ciphertext = xwing.encapsulate(public, eseed)
        yield (
            "kem",
            f"published-{number + 1}",
            "success",
            [
                ("seed", seed.hex()),
                ("eseed", eseed.hex()),
                ("public", public.hex()),
                ("ciphertext", ciphertext.hex()),
                ("shared", shared.hex()),
            ],
        )
    seed, eseed = stream[:32], stream[32:96]
    public = xwing.public_key(seed)
    _, ciphertext = xwing.encapsulate(public, eseed)
    damaged = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    shared = xwing.decapsulate(seed, damaged)
    lines = [("seed", seed.hex()), ("ciphertext", damaged.hex()), ("shared", shared.hex())]
    yield "kem-decapsulation", "implicit-rejection", "success", lines
    for title, bad in (
        ("short", ciphertext[:-1]),
        ("long", ciphertext + b"\0"),
        ("empty", b""),
        ("zero-point", ciphertext[:1088] + bytes(32)),
        ("small-order-point", ciphertext[:1088] + b"\1" + bytes(31)),
    ):
        lines = [("seed", seed.hex()), ("ciphertext", bad.hex())]
        yield "kem-decapsulation", title, "remote-protocol-error", lines
    for title, bad in (
        ("short", public[:-1]),
        ("coefficients-out-of-range", b"\xff" * 1184 + public[1184:]),
        ("zero-point", public[:1184] + bytes(32)),
    ):
        yield "kem-public", title, "remote-protocol-error", [("public", bad.hex())]


def ratchet() -> Iterator[Vector]:
    group, shared, header = draw("group", 32), draw("shared", 32), draw("header", 32)
    for epoch in (0, 1, 2**64 - 1):
        output = ref.chain_key(group, epoch, shared)
        lines = [("group", group.hex()), ("epoch", str(epoch)), ("shared", shared.hex())]
        yield "chain-key", f"epoch-{epoch}", "success", [*lines, ("output", output.hex())]
    key = ref.chain_key(group, 1, shared)
    for rounds in (0, 1, 2, 1000):
        output = key
        for _ in range(rounds):
            output = ref.next_chain_key(output)
        lines = [("chain-key", key.hex()), ("rounds", str(rounds)), ("limit", "1000")]
        yield "skip", f"{rounds}-rounds", "success", [*lines, ("output", output.hex())]
    for title, rounds in (("beyond-the-limit", 1001), ("backwards", -1)):
        lines = [("chain-key", key.hex()), ("rounds", str(rounds)), ("limit", "1000")]
        yield "skip", title, "local-protocol-error", lines
    lines = [("chain-key", key.hex()), ("header-hash", header.hex())]
    output = ref.pad_key(key, header)
    yield "pad-key", "one-header", "success", [*lines, ("output", output.hex())]
    other = draw("other header", 32)
    lines = [("chain-key", key.hex()), ("header-hash", other.hex())]
    output = ref.pad_key(key, other)
    yield "pad-key", "other-header", "success", [*lines, ("output", output.hex())]
    lines = [("chain-key", key.hex()), ("header-hash", header[:31].hex())]
    yield "pad-key", "short-header-hash", "local-protocol-error", lines
    for size in (1, 16, 33, 1024):
        data, pad_key = draw("body", size), ref.pad_key(key, header)
        output = pads.xor(data, pads.materialised_pad(pad_key, size))
        lines = [("pad-key", pad_key.hex()), ("buffer", data.hex()), ("output", output.hex())]
        yield "pad", f"{size}-bytes", "success", lines
    lines = [("pad-key", draw("short", 16).hex()), ("buffer", "00")]
    yield "pad", "key-of-16-bytes", "local-protocol-error", lines


def messages() -> Iterator[Vector]:
    salt = draw("salt", 8)
    for title, size, slot_bytes in (
        ("one-byte", 1, 256),
        ("fills-a-slot", 256 - 38 - 8, 256),
        ("one-byte-over", 256 - 38 - 8 + 1, 256),
        ("five-slots", 110, 64),
    ):
        message = draw("message", size)
        parts = ref.fragments(message, salt, slot_bytes)
        lines = [
            ("message", message.hex()),
            ("salt", salt.hex()),
            ("slot-bytes", str(slot_bytes)),
            ("message-id", ref.message_id(salt, message).hex()),
            *(("fragment", f"{i}/{count} {part.hex()}") for _, i, count, part in parts),
        ]
        yield "message", title, "success", lines
    for title, size in (("empty", 0), ("too-long", 4096 * 26 - 8 + 1)):
        lines = [("zeros", str(size)), ("salt", salt.hex()), ("slot-bytes", "64")]
        yield "message-size", title, "local-protocol-error", lines


def slots() -> Iterator[Vector]:
    header, other = draw("header", 32), draw("other header", 32)
    identifier = draw("id", 16)

    def slot(index: int, count: int, payload: bytes, position: int = 7) -> bytes:
        return ref.slot(
            identifier,
            index,
            count,
            payload,
            slot_bytes=64,
            header_hash=header,
            position=position,
        )

    def retagged(body: bytes) -> bytes:
        return ref.slot_tag(header, 7, body) + body

    good = slot(0, 1, b"hello")
    full = slot(0, 2, draw("full", 26))
    fields = [("message-id", identifier.hex())]
    for title, raw, extra in (
        ("hello", good, [("fragment", "0/1 " + b"hello".hex())]),
        ("full", full, [("fragment", "0/2 " + draw("full", 26).hex())]),
        ("most-fragments", slot(4095, 4096, b"z"), [("fragment", "4095/4096 7a")]),
    ):
        lines = [("header-hash", header.hex()), ("slot", "7"), ("slot-bytes", "64")]
        lines += [("raw", raw.hex()), ("state", "VALID"), *fields, *extra]
        yield "slot", title, "success", lines
    for title, raw, header_hash, position, state in (
        ("all-zeros", bytes(64), header, 7, "EMPTY"),
        ("other-header", good, other, 7, "VOID"),
        ("other-slot", good, header, 8, "VOID"),
        ("collision", pads.xor(good, full), header, 7, "VOID"),
        ("tag-only", good[:16] + bytes(48), header, 7, "VOID"),
        ("padding-not-zero", retagged(good[16:63] + b"\1"), header, 7, "VOID"),
        ("length-zero", slot(0, 1, b""), header, 7, "VOID"),
        ("length-over", retagged(b"\0\x1b" + full[18:]), header, 7, "VOID"),
        ("index-is-count", slot(1, 1, b"hello"), header, 7, "VOID"),
        ("count-zero", slot(0, 0, b"hello"), header, 7, "VOID"),
        ("count-over", slot(0, 4097, draw("full", 26)), header, 7, "VOID"),
        ("middle-not-full", slot(0, 2, b"hello"), header, 7, "VOID"),
    ):
        lines = [("header-hash", header_hash.hex()), ("slot", str(position))]
        lines += [("slot-bytes", "64"), ("raw", raw.hex()), ("state", state)]
        yield "slot", title, "success", lines
    lines = [("header-hash", header.hex()), ("slot", "7"), ("slot-bytes", "64")]
    yield "slot", "short", "remote-protocol-error", [*lines, ("raw", good[:-1].hex())]


def entry(position: int, value: int) -> str:
    return f"{position}={value}"


def reservations() -> Iterator[Vector]:
    key, header = draw("reservation", 32), draw("header", 32)
    for num_slots, count in ((64, 1), (64, 3), (1024, 2), (2, 2)):
        entries = ref.reservations(key, header, num_slots, count)
        lines = [("key", key.hex()), ("header-hash", header.hex())]
        lines += [("num-slots", str(num_slots)), ("count", str(count))]
        lines += [("entry", entry(*pair)) for pair in entries]
        yield "reservation", f"{count}-of-{num_slots}", "success", lines
    lines = [("key", key.hex()), ("header-hash", header.hex()), ("num-slots", "2"), ("count", "3")]
    yield "reservation", "more-than-slots", "local-protocol-error", lines
    mine, theirs = [(3, 700), (9, 1)], [(0, 5), (3, 9), (30, 65535)]
    standing = pads.xor(ref.vector(4, mine), ref.vector(4, theirs))
    yield (
        "schedule-hash",
        "vector",
        "success",
        [
            ("vector", standing.hex()),
            ("output", ref.schedule_hash(standing).hex()),
        ],
    )
    yield (
        "schedule-hash",
        "before-the-first-record",
        "success",
        [("output", ref.derive("schedule").hex())],
    )
    crowded = ref.vector(2, [(position, 8) for position in range(4)])
    for title, num_slots, vector, entries in (
        ("one-destroyed", 4, standing, mine),
        ("other-client", 4, standing, theirs),
        ("rank-past-the-last", 2, crowded, [(1, 8), (2, 8)]),
    ):
        lines = [("num-slots", str(num_slots)), ("vector", vector.hex())]
        lines += [("entry", entry(*pair)) for pair in entries]
        granted = ref.granted(vector, entries, num_slots)
        lines += [("granted", "none" if slot is None else str(slot)) for slot in granted]
        yield "granted", title, "success", lines


def rounds() -> Iterator[Vector]:
    for servers, clients in ((3, 2), (3, 5), (7, 3)):
        group, header = draw("group", 32), draw(f"header {servers} {clients}", 32)
        shared = [
            [draw(f"shared {client} {server}", 32) for server in range(servers)]
            for client in range(clients)
        ]
        bodies = [draw(f"body {client}", 160) for client in range(clients)]
        result = walk.walk_round(walk.chains(group, 4, shared, 3), header, bodies)
        lines = [("group", group.hex()), ("epoch", "4"), ("steps", "3")]
        lines += [("header-hash", header.hex())]
        lines += [("shared", " ".join(secret.hex() for secret in row)) for row in shared]
        lines += [("body", body.hex()) for body in bodies]
        lines += [("envelope", envelope.hex()) for envelope in result.envelopes]
        lines += [("aggregate", result.aggregate.hex())]
        lines += [("partial", partial.hex()) for partial in result.partials]
        lines += [("clear", result.clear.hex())]
        yield "round", f"{servers}-servers-{clients}-clients", "success", lines


def all_vectors() -> Iterator[Vector]:
    for source in (ids, groups, refusals, identities, kem, ratchet, messages, slots):
        yield from source()
    yield from reservations()
    yield from rounds()
    yield from layout_vectors()


def main() -> None:
    files = {
        f"{kind}.{title}.txt": format_case(kind, expect, lines)
        for kind, title, expect, lines in all_vectors()
    }
    for stale in FOLDER.glob("*.txt"):
        if stale.name not in files:
            stale.unlink()
    for name, text in files.items():
        (FOLDER / name).write_text(text)
    print(f"{len(files)} vectors")


if __name__ == "__main__":
    main()

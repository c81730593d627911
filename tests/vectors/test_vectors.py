"""Every vector file against the product."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.vectors.layout_checks import LAYOUT_CHECKS
from tests.vectors.testkit import Case, load_cases, parse_case
from zipnet.errors import (
    ConfigError,
    LocalProtocolError,
    RemoteProtocolError,
    VerificationError,
)
from zipnet.protocol import ids, pads, ratchet, reservation, slots
from zipnet.protocol.identity import (
    Identity,
    PublicIdentity,
    verify_ed25519,
    verify_hybrid,
)
from zipnet.protocol.ids import Digest, GroupId, RoundNumber, SlotIndex
from zipnet.protocol.kem import KemKeyPair, encapsulate
from zipnet.protocol.params import RoundParams
from zipnet.protocol.secret import Secret, format_secret_text, parse_secret_text

FAILURES = {
    "config-error": ConfigError,
    "local-protocol-error": LocalProtocolError,
    "remote-protocol-error": RemoteProtocolError,
    "verification-error": VerificationError,
}


def revealed(secret: Secret) -> bytes:
    with secret.reveal() as view:
        return bytes(view)


def check_derive(case: Case) -> None:
    assert ids.derive(case.text("use"), *case.datas("part")) == case.data("output")


def check_keyed(case: Case) -> None:
    found = ids.keyed(case.text("use"), case.data("key"), *case.datas("part"))
    assert found == case.data("output")


def check_content_digest(case: Case) -> None:
    assert ids.content_digest(case.data("data")) == case.data("output")


def check_instance_id(case: Case) -> None:
    assert ids.instance_id(case.text("universe"), case.text("name")) == case.data("output")


def check_committee_fingerprint(case: Case) -> None:
    instance = ids.instance_id(case.text("universe"), case.text("name"))
    found = ids.committee_fingerprint(Secret(case.data("secret")), instance)
    assert found == case.data("output")


def params_of(case: Case) -> RoundParams:
    return RoundParams(
        case.number("num-slots"),
        case.number("slot-bytes"),
        case.number("min-participants"),
        case.number("kem-epoch-s"),
        case.number("max-skip-rounds"),
    )


def check_group_id(case: Case) -> None:
    params = params_of(case)
    assert params.encode() == case.data("encoded")
    found = ids.group_id(
        universe=case.text("universe"),
        instance=case.text("name"),
        params=params,
        committee_fingerprint=case.data("fingerprint"),
        attestation_policy_digest=case.data("policy"),
        trust_root_digest=case.data("trust-root"),
    )
    assert found == case.data("output")


def check_round_params(case: Case) -> None:
    params_of(case)


def check_instance_name(case: Case) -> None:
    text = case.text("text")
    assert ids.validate_instance_name(text) == text


def check_secret_text(case: Case) -> None:
    text = case.text("text")
    secret = parse_secret_text(text, what="ZIPNET_SECRET")
    assert revealed(secret) == case.data("secret")
    assert format_secret_text(secret) == text


def check_identity(case: Case) -> None:
    identity = Identity.from_secret(Secret(case.data("secret")))
    assert identity.public.ed25519 == case.data("ed25519")
    assert identity.public.mldsa65 == case.data("mldsa65")
    assert identity.peer_id == case.data("peer-id")
    assert ids.format_peer_id(identity.peer_id) == case.text("text")
    assert ids.parse_peer_id(case.text("text")) == identity.peer_id
    assert PublicIdentity.decode(identity.public.encode()) == identity.public


def check_peer_id_text(case: Case) -> None:
    ids.parse_peer_id(case.text("text"))


def check_ed25519_signature(case: Case) -> None:
    identity = Identity.from_secret(Secret(case.data("secret")))
    use, message, signature = case.text("use"), case.data("message"), case.data("signature")
    assert identity.sign_ed25519(use, message) == signature
    verify_ed25519(identity.public.ed25519, use, message, signature)


def check_ed25519_verification(case: Case) -> None:
    verify_ed25519(
        case.data("public"), case.text("use"), case.data("message"), case.data("signature")
    )


def check_hybrid_signature(case: Case) -> None:
    identity = Identity.from_secret(Secret(case.data("secret")))
    use, message = case.text("use"), case.data("message")
    signature = identity.sign(use, message)
    assert signature[:64] == case.data("ed25519-half")
    verify_hybrid(identity.public, use, message, signature)


def check_kem(case: Case) -> None:
    # The library draws ML-KEM's randomness itself: eseed says how the ciphertext was made.
    assert len(case.data("eseed")) == 64
    pair = KemKeyPair.from_seed(Secret(case.data("seed")))
    assert pair.public == case.data("public")
    assert revealed(pair.decapsulate(case.data("ciphertext"))) == case.data("shared")


def check_kem_decapsulation(case: Case) -> None:
    pair = KemKeyPair.from_seed(Secret(case.data("seed")))
    assert revealed(pair.decapsulate(case.data("ciphertext"))) == case.data("shared")


def check_kem_public(case: Case) -> None:
    encapsulate(case.data("public"), lambda size: b"\x42" * size)


def check_chain_key(case: Case) -> None:
    group, shared = GroupId(case.data("group")), Secret(case.data("shared"))
    assert ratchet.initial_chain_key(group, case.number("epoch"), shared) == case.data("output")


def check_skip(case: Case) -> None:
    key = bytearray(case.data("chain-key"))
    ratchet.skip(key, case.number("rounds"), limit=case.number("limit"))
    assert key == case.data("output")


def check_pad_key(case: Case) -> None:
    found = ratchet.pad_key(case.data("chain-key"), case.data("header-hash"))
    assert found == case.data("output")


def check_pad(case: Case) -> None:
    key, data = case.data("pad-key"), case.data("buffer")
    for mode in pads.PadMode:
        for in_place in (True, False):
            buffer = bytearray(data)
            pads.PadEngine(mode, in_place=in_place).apply(buffer, key)
            assert buffer == case.data("output")


def fragment_text(fragment: slots.Fragment) -> str:
    return f"{fragment.index}/{fragment.count} {fragment.payload.hex()}"


def check_message(case: Case) -> None:
    params = RoundParams(slot_bytes=case.number("slot-bytes"))
    message, salt = case.data("message"), case.data("salt")
    fragments = slots.fragment_message(message, params, lambda size: salt[:size])
    assert [fragment_text(fragment) for fragment in fragments] == case.texts("fragment")
    assert {fragment.message_id for fragment in fragments} == {case.data("message-id")}
    reassembler = slots.Reassembler()
    results = [reassembler.offer(RoundNumber(1), fragment) for fragment in fragments]
    assert results[-1] == message


def check_message_size(case: Case) -> None:
    params = RoundParams(slot_bytes=case.number("slot-bytes"))
    salt = case.data("salt")
    slots.fragment_message(bytes(case.number("zeros")), params, lambda size: salt[:size])


def check_slot(case: Case) -> None:
    params = RoundParams(slot_bytes=case.number("slot-bytes"))
    raw, header = case.data("raw"), Digest(case.data("header-hash"))
    index = SlotIndex(case.number("slot"))
    state, fragment = slots.decode_slot(raw, params, header, index)
    assert state.name == case.text("state")
    if fragment is None:
        assert state is not slots.SlotState.VALID
        return
    assert fragment.message_id == case.data("message-id")
    assert fragment_text(fragment) == case.text("fragment")
    assert slots.encode_slot(fragment, params, header, index) == raw


def entries_of(case: Case) -> list[tuple[int, int]]:
    pairs = [text.split("=") for text in case.texts("entry")]
    return [(int(position), int(value)) for position, value in pairs]


def check_reservation(case: Case) -> None:
    params = RoundParams(num_slots=case.number("num-slots"))
    key, header = case.data("key"), case.data("header-hash")
    count = case.number("count")
    found = reservation.reservation_entries(key, header, params, count)
    assert found == entries_of(case)
    assert reservation.reservation_entries(Secret(key), header, params, count) == found


def check_schedule_hash(case: Case) -> None:
    vectors = case.datas("vector")
    found = reservation.schedule_hash(vectors[0]) if vectors else reservation.EMPTY_SCHEDULE_HASH
    assert found == case.data("output")


def check_granted(case: Case) -> None:
    params = RoundParams(num_slots=case.number("num-slots"))
    found = reservation.granted_slots(case.data("vector"), entries_of(case), params)
    names = ["none" if slot is None else str(slot) for slot in found]
    assert names == case.texts("granted")


def check_round(case: Case) -> None:
    """Blind, fold and unblind with the product; every step must equal the naive walk's."""
    group, header = GroupId(case.data("group")), case.data("header-hash")
    epoch, steps = case.number("epoch"), case.number("steps")
    engine = pads.PadEngine()
    keys: list[list[bytearray]] = []
    for row in case.texts("shared"):
        chains = [
            ratchet.initial_chain_key(group, epoch, Secret(bytes.fromhex(text)))
            for text in row.split()
        ]
        for chain in chains:
            ratchet.skip(chain, steps, limit=steps)
        keys.append([ratchet.pad_key(chain, header) for chain in chains])
    aggregate = 0
    bodies = case.datas("body")
    for body, row_keys, envelope in zip(bodies, keys, case.datas("envelope"), strict=True):
        buffer = bytearray(body)
        assert engine.apply_many(buffer, row_keys) == len(row_keys)
        assert buffer == envelope
        aggregate ^= int.from_bytes(buffer, "big")
    accumulator = bytearray(aggregate.to_bytes(len(bodies[0]), "big"))
    assert accumulator == case.data("aggregate")
    for server, partial in enumerate(case.datas("partial")):
        pads_only = bytearray(len(accumulator))
        engine.apply_many(pads_only, [row_keys[server] for row_keys in keys])
        assert pads_only == partial
        engine.apply_many(accumulator, [row_keys[server] for row_keys in keys])
    assert accumulator == case.data("clear")


CHECKS: dict[str, Callable[[Case], None]] = {
    "derive": check_derive,
    "keyed": check_keyed,
    "content-digest": check_content_digest,
    "instance-id": check_instance_id,
    "committee-fingerprint": check_committee_fingerprint,
    "group-id": check_group_id,
    "round-params": check_round_params,
    "instance-name": check_instance_name,
    "secret-text": check_secret_text,
    "identity": check_identity,
    "peer-id-text": check_peer_id_text,
    "ed25519-signature": check_ed25519_signature,
    "ed25519-verification": check_ed25519_verification,
    "hybrid-signature": check_hybrid_signature,
    "kem": check_kem,
    "kem-decapsulation": check_kem_decapsulation,
    "kem-public": check_kem_public,
    "chain-key": check_chain_key,
    "skip": check_skip,
    "pad-key": check_pad_key,
    "pad": check_pad,
    "message": check_message,
    "message-size": check_message_size,
    "slot": check_slot,
    "reservation": check_reservation,
    "schedule-hash": check_schedule_hash,
    "granted": check_granted,
    "round": check_round,
    **LAYOUT_CHECKS,
}
CASES = {case.title: case for case in load_cases()}


@pytest.mark.parametrize("title", CASES)
def test_product_agrees_with_the_vector(title: str) -> None:
    case = CASES[title]
    check = CHECKS[case.kind]
    if case.expect == "success":
        check(case)
    else:
        with pytest.raises(FAILURES[case.expect]):
            check(case)
    case.finish()


def test_every_kind_of_vector_has_a_check_and_every_check_a_vector() -> None:
    assert {case.kind for case in CASES.values()} == set(CHECKS)


def test_a_key_nobody_knows_fails_the_case() -> None:
    case = parse_case("planted", "kind: content-digest\nexpect: success\ndata: 00\nextra: 1\n")
    case.data("data")
    with pytest.raises(AssertionError, match="extra"):
        case.finish()


def test_an_unknown_expectation_fails_the_file() -> None:
    with pytest.raises(AssertionError, match="unknown expectation"):
        parse_case("planted", "kind: derive\nexpect: sucess\n")


def test_a_wrong_output_fails_the_check() -> None:
    text = "kind: content-digest\nexpect: success\ndata: 00\noutput: " + "00" * 32 + "\n"
    with pytest.raises(AssertionError):
        check_content_digest(parse_case("planted", text))

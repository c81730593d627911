"""Identities: both halves must verify, for the use and the signer they were made for."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from tests.reference import derivations as ref
from zipnet.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from zipnet.protocol import identity as module
from zipnet.protocol.identity import (
    HYBRID_SIGNATURE_BYTES,
    Identity,
    PublicIdentity,
    verify_ed25519,
    verify_hybrid,
)
from zipnet.protocol.secret import Secret

ALICE = Identity.from_secret(Secret(b"\x11" * 32))
MALLORY = Identity.from_secret(Secret(b"\x22" * 32))
MESSAGE = b"record 7"
SIGNATURE = ALICE.sign("record", MESSAGE)


def test_a_signature_is_as_long_as_the_layouts_say() -> None:
    assert len(SIGNATURE) == HYBRID_SIGNATURE_BYTES == 3373
    assert len(ALICE.public.encode()) == 1984


def test_mldsa_half_signs_the_input_the_reference_spells_out() -> None:
    signed = ref.hybrid_signed_input("record", ALICE.peer_id, MESSAGE)
    MLDSA65PublicKey.from_public_bytes(ALICE.public.mldsa65).verify(SIGNATURE[64:], signed)


def swap(position: int) -> bytes:
    return SIGNATURE[:position] + bytes([SIGNATURE[position] ^ 1]) + SIGNATURE[position + 1 :]


MIXED = PublicIdentity(ALICE.public.ed25519, MALLORY.public.mldsa65)
REFUSED: dict[str, Callable[[], None]] = {
    "ed25519 half damaged": lambda: verify_hybrid(ALICE.public, "record", MESSAGE, swap(5)),
    "mldsa half damaged": lambda: verify_hybrid(ALICE.public, "record", MESSAGE, swap(500)),
    "last byte damaged": lambda: verify_hybrid(ALICE.public, "record", MESSAGE, swap(3372)),
    "other use": lambda: verify_hybrid(ALICE.public, "header", MESSAGE, SIGNATURE),
    "other message": lambda: verify_hybrid(ALICE.public, "record", b"record 8", SIGNATURE),
    "other signer": lambda: verify_hybrid(MALLORY.public, "record", MESSAGE, SIGNATURE),
    "one key of another": lambda: verify_hybrid(MIXED, "record", MESSAGE, SIGNATURE),
    "short": lambda: verify_hybrid(ALICE.public, "record", MESSAGE, SIGNATURE[:-1]),
    "long": lambda: verify_hybrid(ALICE.public, "record", MESSAGE, SIGNATURE + b"\0"),
    "half as a whole": lambda: verify_ed25519(
        ALICE.public.ed25519, "record", MESSAGE, SIGNATURE[:64]
    ),
    "short key": lambda: verify_ed25519(bytes(31), "record", MESSAGE, bytes(64)),
    "key of small order": lambda: verify_ed25519(
        b"\1" + bytes(31), "record", MESSAGE, b"\1" + bytes(63)
    ),
}


@pytest.mark.parametrize("title", REFUSED)
def test_signature_that_must_not_pass_is_refused(title: str) -> None:
    with pytest.raises(VerificationError):
        REFUSED[title]()


@pytest.mark.requirement("M10")
def test_both_halves_must_verify() -> None:
    """Each half sound beside a damaged or a foreign other one is as good as nothing."""
    verify_hybrid(ALICE.public, "record", MESSAGE, SIGNATURE)
    foreign = MALLORY.sign("record", MESSAGE)
    for mixed in (
        SIGNATURE[:64] + foreign[64:],
        foreign[:64] + SIGNATURE[64:],
        SIGNATURE[:64] + bytes(3309),
        bytes(64) + SIGNATURE[64:],
    ):
        with pytest.raises(VerificationError):
            verify_hybrid(ALICE.public, "record", MESSAGE, mixed)


@pytest.mark.parametrize(
    ("skipped", "position"), [("_verify_ed25519_raw", 5), ("_verify_mldsa65_raw", 500)]
)
def test_mutant_that_skips_one_half_would_let_a_damaged_signature_pass(
    skipped: str, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VerificationError):
        verify_hybrid(ALICE.public, "record", MESSAGE, swap(position))
    monkeypatch.setattr(module, skipped, lambda key, signed, signature: None)
    verify_hybrid(ALICE.public, "record", MESSAGE, swap(position))


def test_views_and_bytearrays_sign_and_verify_like_bytes() -> None:
    signature = ALICE.sign("record", memoryview(MESSAGE))
    verify_hybrid(ALICE.public, "record", bytearray(MESSAGE), memoryview(signature))
    short = ALICE.sign_ed25519("envelope", bytearray(MESSAGE))
    verify_ed25519(ALICE.public.ed25519, "envelope", memoryview(MESSAGE), short)


def test_public_identity_of_wrong_length_is_refused() -> None:
    encoded = ALICE.public.encode()
    for bad in (b"", encoded[:-1], encoded + b"\0"):
        with pytest.raises(RemoteProtocolError):
            PublicIdentity.decode(bad)
    with pytest.raises(RemoteProtocolError):
        PublicIdentity(bytes(31), bytes(1952))


def test_malformed_mldsa_key_fails_verification_rather_than_crashing() -> None:
    # The peer id is inside what is signed, so the Ed25519 half must be made for this very pair.
    broken = PublicIdentity(ALICE.public.ed25519, b"\xff" * 1952)
    signed = ref.hybrid_signed_input("record", broken.peer_id, MESSAGE)
    half = ALICE.ed25519_private_key().sign(signed)
    with pytest.raises(VerificationError):
        verify_hybrid(broken, "record", MESSAGE, half + SIGNATURE[64:])


def test_closed_identity_signs_nothing_and_shows_only_its_peer_id() -> None:
    identity = Identity.from_secret(Secret(os.urandom(32)))
    assert identity.peer_id[:6].hex() in repr(identity)
    identity.close()
    for act in (
        lambda: identity.sign("record", MESSAGE),
        lambda: identity.sign_ed25519("record", MESSAGE),
        identity.ed25519_private_key,
    ):
        with pytest.raises(LocalProtocolError):
            act()


def test_identity_from_a_secret_of_another_length_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        Identity.from_secret(Secret(bytes(31)))

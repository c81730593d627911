"""X-Wing: both sides agree, wrong inputs never pass as right ones."""

from __future__ import annotations

import os

import pytest

from tests.reference import xwing
from tests.vectors.testkit import load_cases
from zipnet.errors import LocalProtocolError, RemoteProtocolError
from zipnet.protocol.kem import KEM_CIPHERTEXT_BYTES, KEM_PUBLIC_BYTES, KemKeyPair, encapsulate
from zipnet.protocol.secret import Secret

SEED = bytes(range(100, 132))


def revealed(secret: Secret) -> bytes:
    with secret.reveal() as view:
        return bytes(view)


@pytest.mark.requirement("M10")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_published_vectors(number: int) -> None:
    """The draft's own keys and secrets; ``tests/vectors/test_generator`` pins their values."""
    cases = {case.title: case for case in load_cases()}
    case = cases[f"kem.published-{number}"]
    pair = KemKeyPair.from_seed(Secret(case.data("seed")))
    assert pair.public == case.data("public")
    assert revealed(pair.decapsulate(case.data("ciphertext"))) == case.data("shared")


def test_both_sides_agree_and_the_pure_python_kem_agrees_with_them() -> None:
    pair = KemKeyPair.from_seed(Secret(SEED))
    assert pair.public == xwing.public_key(SEED)
    ciphertext, shared = encapsulate(pair.public, os.urandom)
    assert (len(pair.public), len(ciphertext)) == (KEM_PUBLIC_BYTES, KEM_CIPHERTEXT_BYTES)
    assert pair.decapsulate(ciphertext) == shared
    assert xwing.decapsulate(SEED, ciphertext) == revealed(shared)


def test_x25519_half_comes_from_the_given_source_and_the_rest_does_not() -> None:
    pair = KemKeyPair.from_seed(Secret(SEED))
    first, first_shared = encapsulate(pair.public, lambda size: b"\x42" * size)
    second, second_shared = encapsulate(pair.public, lambda size: b"\x42" * size)
    assert first[1088:] == second[1088:] == xwing.x25519(b"\x42" * 32, xwing.BASE)
    assert first[:1088] != second[:1088]
    assert first_shared != second_shared


@pytest.mark.parametrize("position", [0, 1087, 1088, 1119])
def test_damaged_ciphertext_gives_another_secret(position: int) -> None:
    pair = KemKeyPair.from_seed(Secret(SEED))
    ciphertext, shared = encapsulate(pair.public, os.urandom)
    damaged = bytearray(ciphertext)
    damaged[position] ^= 4
    assert pair.decapsulate(damaged) != shared


def test_another_key_pair_gets_another_secret() -> None:
    ciphertext, shared = encapsulate(KemKeyPair.from_seed(Secret(SEED)).public, os.urandom)
    assert KemKeyPair.from_seed(Secret(SEED[::-1])).decapsulate(ciphertext) != shared


def test_short_draw_seed_and_closed_pair_are_refused() -> None:
    pair = KemKeyPair.from_seed(Secret(SEED))
    with pytest.raises(LocalProtocolError):
        encapsulate(pair.public, lambda size: bytes(size - 1))
    with pytest.raises(LocalProtocolError):
        KemKeyPair.from_seed(Secret(SEED[:31]))
    ciphertext, _ = encapsulate(pair.public, os.urandom)
    pair.close()
    with pytest.raises(LocalProtocolError):
        pair.decapsulate(ciphertext)


def test_small_order_point_is_refused_on_both_sides() -> None:
    pair = KemKeyPair.from_seed(Secret(SEED))
    ciphertext, _ = encapsulate(pair.public, os.urandom)
    for point in (bytes(32), b"\1" + bytes(31)):
        with pytest.raises(RemoteProtocolError):
            pair.decapsulate(ciphertext[:1088] + point)
        with pytest.raises(RemoteProtocolError):
            encapsulate(pair.public[:1184] + point, os.urandom)


def test_repr_of_a_key_pair_shows_no_key() -> None:
    pair = KemKeyPair.from_seed(Secret(SEED))
    assert SEED.hex()[:8] not in repr(pair)
    assert pair.public.hex()[:8] not in repr(pair)

"""Raw ECDSA signatures: the range of r and s is checked by itself, before any library sees them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tdx.emulator.documents import sign_raw
from tdx.errors import Check, QuoteError
from tdx.verify.signatures import check_raw_signature, load_point

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
KEY = ec.derive_private_key(7, ec.SECP256R1())


def raw(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def refusal(signature: bytes) -> str:
    with pytest.raises(QuoteError) as caught:
        check_raw_signature(KEY.public_key(), signature, b"text", Check.QUOTE_SIGNATURE)
    assert caught.value.check is Check.QUOTE_SIGNATURE
    return str(caught.value)


@pytest.mark.parametrize("outside", [0, ORDER, 2**256 - 1])
def test_numbers_outside_the_group_are_refused_as_such(outside: int) -> None:
    assert "order of the group" in refusal(raw(outside, 1))
    assert "order of the group" in refusal(raw(1, outside))


@pytest.mark.parametrize("inside", [1, ORDER - 1])
def test_numbers_at_the_ends_of_the_group_go_on_to_be_verified(inside: int) -> None:
    assert "the signature verifies" in refusal(raw(inside, inside))


def test_an_honest_signature_verifies_over_its_text_alone() -> None:
    honest = sign_raw(KEY, b"text")
    check_raw_signature(KEY.public_key(), honest, b"text", Check.QUOTE_SIGNATURE)
    assert "the signature verifies" in refusal(sign_raw(KEY, b"texts"))


def test_a_point_is_loaded_in_one_form_and_only_on_the_curve() -> None:
    numbers = KEY.public_key().public_numbers()
    whole = raw(numbers.x, numbers.y)
    assert load_point(whole, Check.ATTESTATION_KEY) == KEY.public_key()
    for wrong in (bytes(64), whole[:-1], whole + b"\0", raw(numbers.x, numbers.y ^ 1)):
        with pytest.raises(QuoteError) as caught:
            load_point(wrong, Check.ATTESTATION_KEY)
        assert caught.value.check is Check.ATTESTATION_KEY

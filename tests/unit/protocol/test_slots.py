"""Slots and fragments at their edges; the vectors hold the ordinary cases."""

from __future__ import annotations

import pytest

from zipnet.errors import LocalProtocolError, RemoteProtocolError
from zipnet.protocol.ids import Digest, MessageId, SlotIndex
from zipnet.protocol.params import RoundParams
from zipnet.protocol.slots import (
    Fragment,
    SlotState,
    decode_slot,
    encode_slot,
    fragment_message,
    max_message_bytes,
)

PARAMS = RoundParams(slot_bytes=64)
HEADER = Digest(b"\3" * 32)
SLOT = SlotIndex(5)
ID = MessageId(b"\4" * 16)


def salt(size: int) -> bytes:
    return b"\7" * size


BAD_FRAGMENTS = {
    "empty payload": Fragment(ID, 0, 1, b""),
    "payload over the slot": Fragment(ID, 0, 1, bytes(27)),
    "middle not full": Fragment(ID, 0, 2, bytes(25)),
    "index is count": Fragment(ID, 1, 1, b"x"),
    "negative index": Fragment(ID, -1, 1, b"x"),
    "count zero": Fragment(ID, 0, 0, b"x"),
    "count over": Fragment(ID, 4096, 4097, b"x"),
}


@pytest.mark.parametrize("title", BAD_FRAGMENTS)
def test_fragment_that_is_not_canonical_is_never_written(title: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_slot(BAD_FRAGMENTS[title], PARAMS, HEADER, SLOT)


def test_message_id_of_another_length_is_never_written() -> None:
    with pytest.raises(LocalProtocolError):
        encode_slot(Fragment(MessageId(bytes(15)), 0, 1, b"x"), PARAMS, HEADER, SLOT)


@pytest.mark.spec(5)
def test_slot_is_full_width_whatever_the_message() -> None:
    for size in (1, 10, 18):
        (fragment,) = fragment_message(b"m" * size, PARAMS, salt)
        assert len(encode_slot(fragment, PARAMS, HEADER, SLOT)) == 64


def test_longest_message_fits_exactly() -> None:
    limit = max_message_bytes(PARAMS)
    assert limit == 4096 * 26 - 8
    assert len(fragment_message(bytes(limit), PARAMS, salt)) == 4096
    assert max_message_bytes(RoundParams(num_slots=16, slot_bytes=32_768)) == 1024 * 1024


def test_salt_of_another_length_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        fragment_message(b"x", PARAMS, lambda size: bytes(size - 1))


def test_slot_of_another_width_is_refused() -> None:
    for size in (0, 63, 65):
        with pytest.raises(RemoteProtocolError):
            decode_slot(bytes(size), PARAMS, HEADER, SLOT)


def test_views_decode_like_bytes() -> None:
    (fragment,) = fragment_message(b"hello", PARAMS, salt)
    raw = encode_slot(fragment, PARAMS, HEADER, SLOT)
    assert decode_slot(memoryview(raw), PARAMS, HEADER, SLOT) == (SlotState.VALID, fragment)


def test_mutant_without_the_tag_check_would_accept_a_slot_of_another_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (fragment,) = fragment_message(b"hello", PARAMS, salt)
    raw = encode_slot(fragment, PARAMS, Digest(b"\4" * 32), SLOT)
    assert decode_slot(raw, PARAMS, HEADER, SLOT)[0] is SlotState.VOID
    monkeypatch.setattr("zipnet.protocol.slots.hmac.compare_digest", lambda found, expected: True)
    assert decode_slot(raw, PARAMS, HEADER, SLOT)[0] is SlotState.VALID


def test_repr_of_a_fragment_hides_the_payload() -> None:
    assert "hello" not in repr(Fragment(ID, 0, 1, b"hello"))

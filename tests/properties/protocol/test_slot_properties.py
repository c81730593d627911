"""Slots: what is written reads back; whatever is damaged is void."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from tests.reference import derivations as ref
from zipnet.protocol.ids import Digest, RoundNumber, SlotIndex
from zipnet.protocol.params import RoundParams
from zipnet.protocol.slots import (
    Reassembler,
    SlotState,
    decode_slot,
    encode_slot,
    fragment_message,
)

WIDTHS = st.sampled_from([64, 65, 160, 256])
HEADERS = st.binary(min_size=32, max_size=32).map(Digest)
SALTS = st.binary(min_size=8, max_size=8)
POSITIONS = st.integers(0, 4095).map(SlotIndex)


def salt_source(salt: bytes) -> Callable[[int], bytes]:
    return lambda size: salt[:size]


@given(st.binary(min_size=1, max_size=2000), SALTS, WIDTHS, HEADERS, POSITIONS)
def test_messages_survive_cutting_laying_out_reading_and_joining(
    message: bytes, salt: bytes, width: int, header: Digest, position: SlotIndex
) -> None:
    params = RoundParams(slot_bytes=width)
    fragments = fragment_message(message, params, lambda size: salt)
    reassembler = Reassembler()
    results = []
    for fragment, parts in zip(fragments, ref.fragments(message, salt, width), strict=True):
        raw = encode_slot(fragment, params, header, position)
        assert raw == ref.slot(*parts, slot_bytes=width, header_hash=header, position=position)
        state, read = decode_slot(raw, params, header, position)
        assert state is SlotState.VALID
        assert read == fragment
        results.append(reassembler.offer(RoundNumber(1), read))
    assert results == [None] * (len(fragments) - 1) + [message]


@given(
    st.binary(min_size=1, max_size=18),
    st.integers(0, 63),
    st.integers(1, 255),
    HEADERS,
)
def test_any_damaged_byte_voids_the_slot(
    message: bytes, position: int, flip: int, header: Digest
) -> None:
    params = RoundParams(slot_bytes=64)
    (fragment,) = fragment_message(message, params, bytes)
    raw = bytearray(encode_slot(fragment, params, header, SlotIndex(0)))
    raw[position] ^= flip
    assert decode_slot(raw, params, header, SlotIndex(0)) == (SlotState.VOID, None)


@given(st.binary(min_size=64, max_size=64), HEADERS)
def test_noise_is_never_a_valid_slot(raw: bytes, header: Digest) -> None:
    state, fragment = decode_slot(raw, RoundParams(slot_bytes=64), header, SlotIndex(0))
    assert fragment is None
    assert state is (SlotState.VOID if any(raw) else SlotState.EMPTY)


@given(st.binary(min_size=1, max_size=18), st.binary(min_size=1, max_size=18), HEADERS)
def test_two_writers_in_one_slot_void_it(first: bytes, second: bytes, header: Digest) -> None:
    params = RoundParams(slot_bytes=64)
    raws = []
    for salt, message in ((b"1" * 8, first), (b"2" * 8, second)):
        (fragment,) = fragment_message(message, params, salt_source(salt))
        raws.append(encode_slot(fragment, params, header, SlotIndex(0)))
    mixed = bytes(a ^ b for a, b in zip(*raws, strict=True))
    assert decode_slot(mixed, params, header, SlotIndex(0)) == (SlotState.VOID, None)

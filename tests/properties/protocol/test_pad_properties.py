"""Ratchet and pads against the naive reference, and a whole round of both."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import derivations as ref
from tests.reference import pads as naive
from tests.reference import walk
from zipnet.protocol.ids import GroupId
from zipnet.protocol.pads import PadEngine, PadMode
from zipnet.protocol.ratchet import initial_chain_key, pad_key, skip, step
from zipnet.protocol.secret import Secret

KEYS = st.binary(min_size=32, max_size=32)
ENGINES = [PadEngine(mode, in_place=in_place) for mode in PadMode for in_place in (True, False)]


@given(KEYS, st.integers(0, 200))
def test_skipping_is_repeated_stepping(key: bytes, rounds: int) -> None:
    skipped, stepped, expected = bytearray(key), bytearray(key), key
    skip(skipped, rounds, limit=200)
    for _ in range(rounds):
        step(stepped)
        expected = ref.next_chain_key(expected)
    assert skipped == stepped == expected


@given(st.binary(max_size=600), KEYS, st.sampled_from(ENGINES))
def test_pad_is_its_own_inverse_and_equals_the_materialised_one(
    data: bytes, key: bytes, engine: PadEngine
) -> None:
    buffer = bytearray(data)
    engine.apply(buffer, key)
    assert buffer == naive.xor(data, naive.materialised_pad(key, len(data)))
    engine.apply(buffer, key)
    assert buffer == data


@given(st.binary(min_size=1, max_size=100), st.lists(KEYS, max_size=5))
def test_order_of_pads_does_not_matter(data: bytes, keys: list[bytes]) -> None:
    first, second = bytearray(data), bytearray(data)
    ENGINES[0].apply_many(first, keys)
    ENGINES[1].apply_many(second, sorted(keys))
    assert first == second


@settings(max_examples=25)
@given(st.data(), st.integers(2, 6), st.integers(3, 7), KEYS, KEYS)
def test_round_unblinds_to_the_sum_of_bodies_and_not_without_every_server(
    data: st.DataObject, clients: int, servers: int, group: bytes, header: bytes
) -> None:
    length = 48
    bodies = [data.draw(st.binary(min_size=length, max_size=length)) for _ in range(clients)]
    shared = [
        [ref.derive("test", bytes([client, server]), group) for server in range(servers)]
        for client in range(clients)
    ]
    expected = walk.walk_round(walk.chains(group, 1, shared, 2), header, bodies)
    keys = []
    for row in shared:
        chains = [initial_chain_key(GroupId(group), 1, Secret(secret)) for secret in row]
        for chain in chains:
            skip(chain, 2, limit=2)
        keys.append([pad_key(chain, header) for chain in chains])
    aggregate = bytearray(length)
    for body, row_keys in zip(bodies, keys, strict=True):
        buffer = bytearray(body)
        ENGINES[0].apply_many(buffer, row_keys)
        aggregate[:] = naive.xor(bytes(aggregate), bytes(buffer))
    assert aggregate == expected.aggregate
    clear = bytes(length)
    for body in bodies:
        clear = naive.xor(clear, body)
    for server in range(servers):
        # Until the last server has stripped its pads, nothing readable stands there.
        assert aggregate != clear
        ENGINES[0].apply_many(aggregate, [row_keys[server] for row_keys in keys])
    assert aggregate == clear == expected.clear


@given(KEYS, KEYS, KEYS)
def test_parties_shown_different_headers_get_noise(key: bytes, first: bytes, second: bytes) -> None:
    buffer = bytearray(32)
    ENGINES[0].apply(buffer, pad_key(key, first))
    ENGINES[0].apply(buffer, pad_key(key, second))
    assert any(buffer) == (first != second)

"""Footprint scheduling against the reference, and its success rate by load (protocol.md §5)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import derivations as ref
from zipnet.protocol.params import RoundParams
from zipnet.protocol.reservation import (
    granted_slots,
    read_vector,
    reservation_entries,
    write_reservations,
)

KEYS = st.binary(min_size=32, max_size=32)
SEED = 20_261_120


def fold(params: RoundParams, entries: list[list[tuple[int, int]]]) -> bytes:
    total = 0
    for own in entries:
        body = bytearray(params.body_bytes)
        write_reservations(body, params, own)
        total ^= int.from_bytes(body, "big")
    return total.to_bytes(params.body_bytes, "big")


@given(st.lists(st.tuples(KEYS, st.integers(0, 3)), min_size=1, max_size=8, unique=True), KEYS)
def test_grants_equal_the_references_and_never_overlap(
    clients: list[tuple[bytes, int]], header: bytes
) -> None:
    params = RoundParams(num_slots=4, slot_bytes=64)
    entries = [reservation_entries(key, header, params, wanted) for key, wanted in clients]
    assert entries == [ref.reservations(key, header, 4, wanted) for key, wanted in clients]
    body = fold(params, entries)
    vector = bytes(body[params.matrix_bytes :])
    won: list[int] = []
    keys_seen: set[bytes] = set()
    for (key, _), own in zip(clients, entries, strict=True):
        granted = granted_slots(read_vector(body, params), own, params)
        assert granted == ref.granted(vector, own, 4)
        if key not in keys_seen:
            won += [slot for slot in granted if slot is not None]
        keys_seen.add(key)
    # Two clients can win one slot only if a third one's value happens to restore an entry.
    assert len(won) == len(set(won))


def success_rate(params: RoundParams, clients: int, rounds: int, generator: random.Random) -> float:
    won = 0
    for _ in range(rounds):
        header = generator.randbytes(32)
        entries = [
            reservation_entries(generator.randbytes(32), header, params, 1) for _ in range(clients)
        ]
        vector = read_vector(fold(params, entries), params)
        won += sum(granted_slots(vector, own, params) != [None] for own in entries)
    return won / (clients * rounds)


@pytest.mark.spec(5)
@pytest.mark.parametrize("num_slots", [64, 256])
@pytest.mark.parametrize(
    ("load", "floor"), [(1.0, 0.87), (0.25, 0.96)], ids=["full load", "quarter load"]
)
def test_reservation_success_rate(num_slots: int, load: float, floor: float) -> None:
    print(f"seed {SEED}")
    params = RoundParams(num_slots=num_slots, slot_bytes=64)
    clients = int(load * num_slots)
    rounds = 12_800 // clients
    rate = success_rate(params, clients, rounds, random.Random(SEED))
    print(f"{rate:.4f} of {clients * rounds} reservations won")
    assert rate >= floor
    # The theory says exp(-load / 8); far above it would mean collisions are not seen.
    assert rate <= 1 - load / 8 + load**2 / 128 + 0.01

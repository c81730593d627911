"""Reservations at their edges; the vectors hold the ordinary cases."""

from __future__ import annotations

import pytest

from zipnet.errors import LocalProtocolError
from zipnet.protocol.params import RoundParams
from zipnet.protocol.reservation import (
    EMPTY_SCHEDULE_HASH,
    granted_slots,
    read_vector,
    reservation_entries,
    schedule_hash,
    write_reservations,
)

PARAMS = RoundParams(num_slots=4, slot_bytes=64)
HEADER = b"\1" * 32


def test_a_client_draws_distinct_positions_even_when_it_wants_every_slot() -> None:
    for number in range(50):
        entries = reservation_entries(bytes([number]) * 32, HEADER, PARAMS, 4)
        assert len({position for position, _ in entries}) == 4
        assert all(0 <= p < 32 and 0 < v <= 0xFFFF for p, v in entries)


def test_entries_depend_on_key_and_header() -> None:
    results = {
        tuple(reservation_entries(key, header, RoundParams(), 3))
        for key in (b"\1" * 32, b"\2" * 32)
        for header in (HEADER, b"\2" * 32)
    }
    assert len(results) == 4


def test_written_entries_read_back_and_leave_the_matrix_alone() -> None:
    body = bytearray(PARAMS.body_bytes)
    write_reservations(body, PARAMS, [(0, 1), (31, 0xFFFE)])
    assert not any(body[: PARAMS.matrix_bytes])
    vector = read_vector(body, PARAMS)
    assert vector == (1, *[0] * 30, 0xFFFE)
    assert bytes(body[-2:]) == b"\xff\xfe"


@pytest.mark.parametrize("entry", [(-1, 1), (32, 1), (0, 0), (0, 0x10000), (0, -1)])
def test_entry_out_of_range_writes_nothing(entry: tuple[int, int]) -> None:
    body = bytearray(PARAMS.body_bytes)
    with pytest.raises(LocalProtocolError):
        write_reservations(body, PARAMS, [(1, 1), entry])
    assert not any(body)


def test_granting_is_the_same_from_bytes_and_from_the_read_vector() -> None:
    body = bytearray(PARAMS.body_bytes)
    entries = [(7, 0x0102), (9, 0x0300), (8, 5)]
    write_reservations(body, PARAMS, entries)
    vector = read_vector(body, PARAMS)
    expected = [0, 2, 1]
    assert granted_slots(vector, entries, PARAMS) == expected
    assert granted_slots(bytes(body[PARAMS.matrix_bytes :]), entries, PARAMS) == expected
    assert granted_slots(vector, [(7, 0x0201), (10, 1)], PARAMS) == [None, None]


def test_vectors_and_bodies_of_another_length_are_refused() -> None:
    with pytest.raises(LocalProtocolError):
        granted_slots(bytes(62), [], PARAMS)
    with pytest.raises(LocalProtocolError):
        granted_slots((0,) * 31, [], PARAMS)
    with pytest.raises(LocalProtocolError):
        read_vector(bytes(PARAMS.body_bytes - 1), PARAMS)
    with pytest.raises(LocalProtocolError):
        write_reservations(bytearray(3), PARAMS, [])


def test_count_out_of_range_is_refused() -> None:
    for count in (-1, 5):
        with pytest.raises(LocalProtocolError):
            reservation_entries(bytes(32), HEADER, PARAMS, count)
    assert reservation_entries(bytes(32), HEADER, PARAMS, 0) == []


def test_no_vector_has_the_empty_schedule_hash() -> None:
    hashes = {schedule_hash(b""), schedule_hash(bytes(64)), EMPTY_SCHEDULE_HASH}
    assert len(hashes) == 3

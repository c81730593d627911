"""Footprint scheduling: who uses which slot of the next round, without saying who (protocol.md §5).

Rules:

1. A client writes non-zero 16-bit values at PRF positions of the reservation vector; both depend on
   its own key and the round header, so nobody else can foresee or repeat them.
2. Vectors of all clients are XORed. Two clients at one position destroy each other's value, and
   each sees that its own no longer stands.
3. A value that stands grants the slot equal to the rank of its position among non-zero entries.
   Ranks past the last slot wait; a destroyed entry still takes a rank, which leaves its slot empty.
"""

from __future__ import annotations

import struct
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from zipnet.errors import LocalProtocolError
from zipnet.protocol.ids import Digest, SlotIndex, derive, keyed
from zipnet.protocol.params import RESERVATION_ENTRY_BYTES
from zipnet.protocol.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zipnet.protocol.encoding import Buffer
    from zipnet.protocol.params import RoundParams

__all__ = [
    "EMPTY_SCHEDULE_HASH",
    "Reservation",
    "granted_slots",
    "read_vector",
    "reservation_entries",
    "schedule_hash",
    "write_reservations",
]

Reservation: TypeAlias = tuple[int, int]
"""Position in the reservation vector and the non-zero 16-bit value written there."""

_MAX_VALUE = 0xFFFF

EMPTY_SCHEDULE_HASH = derive("schedule")
"""Schedule hash of a header that follows no record; no vector has it."""


def reservation_entries(
    key: Secret | bytes | bytearray, header_hash: bytes, params: RoundParams, count: int
) -> list[Reservation]:
    """Derive one client's reservations of a round: ``count`` pairs with distinct positions.

    Args:
        key: The client's own reservation key, 32 bytes.
        header_hash: Hash of the round's header, 32 bytes.
        params: The group's parameters.
        count: How many slots the client wants, at most ``params.num_slots``.

    Raises:
        LocalProtocolError: When ``count`` is out of range or the key is not 32 bytes long.
    """
    if not 0 <= count <= params.num_slots:
        raise LocalProtocolError(f"{count} reservations, 0 to {params.num_slots} are allowed")
    if isinstance(key, Secret):
        with key.reveal() as view:
            return _draw_distinct(bytes(view), header_hash, params, count)
    return _draw_distinct(key, header_hash, params, count)


def _draw_distinct(
    key: Buffer, header_hash: bytes, params: RoundParams, count: int
) -> list[Reservation]:
    chosen: dict[int, int] = {}
    for position, value in _candidates(key, header_hash, params.reservation_entries):
        if len(chosen) == count:
            break
        chosen.setdefault(position, value)
    return list(chosen.items())


def _candidates(key: Buffer, header_hash: bytes, entries: int) -> Iterator[Reservation]:
    """Endless PRF pairs: 8 bytes each for position and value, so that the modulus shows no bias."""
    counter = 0
    while True:
        block = keyed("reservation", key, header_hash, counter.to_bytes(4, "big"))
        for start in (0, 16):
            position = int.from_bytes(block[start : start + 8], "big") % entries
            value = 1 + int.from_bytes(block[start + 8 : start + 16], "big") % _MAX_VALUE
            yield position, value
        counter += 1


def write_reservations(
    body: bytearray, params: RoundParams, entries: Sequence[Reservation]
) -> None:
    """Write reservations into a client's round vector, in place.

    Raises:
        LocalProtocolError: When the body has another length than the group's, or an entry is out of
            range; nothing is written then.
    """
    _require_body(body, params)
    for position, value in entries:
        if not 0 <= position < params.reservation_entries or not 0 < value <= _MAX_VALUE:
            raise LocalProtocolError("reservation is out of range")
    for position, value in entries:
        offset = params.matrix_bytes + RESERVATION_ENTRY_BYTES * position
        body[offset : offset + RESERVATION_ENTRY_BYTES] = value.to_bytes(2, "big")


def read_vector(body: Buffer, params: RoundParams) -> tuple[int, ...]:
    """Read the reservation vector of a round vector: ``params.reservation_entries`` big-endian u16.

    Raises:
        LocalProtocolError: When the body has another length than the group's.
    """
    _require_body(body, params)
    return struct.unpack_from(f">{params.reservation_entries}H", body, params.matrix_bytes)


def schedule_hash(vector_bytes: Buffer) -> Digest:
    """Hash of a final reservation vector, which the next header names (protocol.md §5)."""
    return derive("schedule", vector_bytes)


def granted_slots(
    vector: Buffer | tuple[int, ...], entries: Sequence[Reservation], params: RoundParams
) -> list[SlotIndex | None]:
    """Tell which slots of the next round a client's reservations won.

    Args:
        vector: The final reservation vector: its bytes, or what :func:`read_vector` gave.
        entries: The client's own reservations of that round.
        params: The group's parameters.

    Returns:
        For each entry, in order, its slot, or None when it was destroyed or ranks past the last.

    Raises:
        LocalProtocolError: When the vector has another length than the group's.
    """
    if isinstance(vector, tuple):
        values = vector
    else:
        if len(vector) != params.reservation_bytes:
            raise LocalProtocolError(f"reservation vector has {len(vector)} bytes")
        values = struct.unpack(f">{params.reservation_entries}H", vector)
    if len(values) != params.reservation_entries:
        raise LocalProtocolError(f"reservation vector has {len(values)} entries")
    counts = tuple(accumulate(map(bool, values)))
    return [_granted(values[p], v, counts[p] - 1, params) for p, v in entries]


def _granted(standing: int, written: int, rank: int, params: RoundParams) -> SlotIndex | None:
    return SlotIndex(rank) if standing == written and rank < params.num_slots else None


def _require_body(body: Buffer, params: RoundParams) -> None:
    if len(body) != params.body_bytes:
        raise LocalProtocolError(f"body has {len(body)} bytes, the group's has {params.body_bytes}")

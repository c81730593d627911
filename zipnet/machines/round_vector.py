"""A client's own round vector: slots it was granted, slots it asks for (protocol.md §5).

Rules:

1. Reservations are made under a key of this client's own, one set per round, and remembered until a
   later record is final.
2. Slots are granted by the last verified record only, and only for the round whose header names
   that record and its schedule: after an aborted round the same grants hold again.
3. The work done is the same for a message, a reservation and cover.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.protocol.ids import MESSAGE_ID_BYTES, MessageId, SlotIndex
from zipnet.protocol.reservation import (
    Reservation,
    granted_slots,
    reservation_entries,
    write_reservations,
)
from zipnet.protocol.secret import Secret
from zipnet.protocol.slots import Fragment, encode_slot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.ids import Digest, RoundNumber
    from zipnet.protocol.params import RoundParams
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["SlotClaims"]

_NOTHING = Fragment(MessageId(bytes(MESSAGE_ID_BYTES)), 0, 1, b"\0")


class SlotClaims:
    """The reservations one client made, and the vectors it fills.

    Args:
        params: The group's parameters.
        limit: Most slots asked for in one round.
        draw: Source of random bytes, for the reservation key.
    """

    __slots__ = ("_key", "_limit", "_made", "_params")

    def __init__(self, params: RoundParams, limit: int, draw: Callable[[int], bytes]) -> None:
        self._params = params
        self._limit = min(limit, params.num_slots)
        self._key = Secret.random(draw)
        self._made: dict[RoundNumber, tuple[Digest, list[Reservation]]] = {}

    def granted(self, header: RoundHeader, last: VerifiedRecord | None) -> list[SlotIndex]:
        """Return the slots this client owns in the round of ``header``, in reservation order."""
        if last is None or header.previous_record != last.hash:
            return []
        content = last.record.content
        made = self._made.get(last.round)
        if made is None or header.schedule != content.schedule or made[0] != content.header.hash:
            return []
        slots = granted_slots(content.reservations, made[1], self._params)
        return [slot for slot in slots if slot is not None]

    def fill(
        self,
        round_number: RoundNumber,
        header_hash: Digest,
        boarded: Sequence[tuple[SlotIndex, Fragment]],
        *,
        wanted: int,
    ) -> bytearray:
        """Return the clear round vector: fragments in slots, up to ``wanted`` reservations."""
        params = self._params
        body = bytearray(params.body_bytes)
        for slot, fragment in boarded:
            start = slot * params.slot_bytes
            body[start : start + params.slot_bytes] = encode_slot(
                fragment, params, header_hash, slot
            )
        # As many slots are encoded for cover as for the most that can be said; these go nowhere.
        for _ in range(self._limit - len(boarded)):
            encode_slot(_NOTHING, params, header_hash, SlotIndex(0))
        # Always derived in full, so that asking for nothing takes as long as asking.
        entries = reservation_entries(self._key, header_hash, params, self._limit)
        entries = entries[: max(wanted, 0)]
        write_reservations(body, params, entries)
        self._made[round_number] = (header_hash, entries)
        return body

    def forget_before(self, round_number: RoundNumber) -> None:
        """Forget the reservations of rounds before a final one; they can grant nothing any more."""
        for number in [n for n in self._made if n < round_number]:
            del self._made[number]

    def forget_between(self, final: RoundNumber, opened: RoundNumber) -> None:
        """Forget the rounds that a signed header passed over: they were given up."""
        for number in [n for n in self._made if final < n < opened]:
            del self._made[number]

    def close(self) -> None:
        """Wipe the reservation key."""
        self._key.wipe()
        self._made.clear()

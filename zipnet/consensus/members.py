"""Who belongs to the committee, as the log itself says, and the snapshot that carries it.

A committee has a fixed number of *seats*, numbered from 0. A seat is held by a member with an id of
its own (64 bits, never given to another), or is empty while its holder is being replaced. Whoever
replaces a member takes the same seat under another id, so nothing that was said by one counts for
the other.

Layouts (big-endian)::

    members  = count u8 ‖ (id u64 ‖ votes u8 ‖ previous id u64) for each seat
    snapshot = "ZNSN" ‖ version u8 ‖ index u64 ‖ term u64 ‖ commands u64 ‖ members ‖ state

Rules:

1. A change concerns one seat: its holder goes, or a new one comes in. Majorities before and after
   such a change always meet (Raft dissertation, §4.1).
2. The members in force are those of the newest entry in the log that names any, committed or not.
3. ``previous`` is the id that was replaced last: its messages are void even for a member that has
   seen the seat emptied but not yet filled again.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

from zipnet.errors import StorageError

__all__ = [
    "MAX_STATE_BYTES",
    "NOBODY",
    "Members",
    "Seat",
    "Snapshot",
    "decode_members",
    "decode_snapshot",
]

#: Largest state of the application a snapshot takes.
MAX_STATE_BYTES: Final = 48 << 20
#: No member's id.
NOBODY: Final = (1 << 64) - 1

_MAGIC: Final = b"ZNSN"
_VERSION: Final = 1
_HEAD: Final = struct.Struct(">4sBQQQ")
_SEAT: Final = struct.Struct(">QBQ")
_MAX_SEATS: Final = 16


@dataclass(frozen=True, slots=True)
class Seat:
    """One place in the committee.

    Attributes:
        member: Id of its holder, or of the one about to come while ``votes`` is false.
        votes: Whether the holder counts.
        previous: Id of who held it before, :data:`NOBODY` at first.
    """

    member: int
    votes: bool = True
    previous: int = NOBODY


@dataclass(frozen=True, slots=True)
class Members:
    """All seats, in order."""

    seats: tuple[Seat, ...]

    @staticmethod
    def founding(ids: tuple[int, ...]) -> Members:
        """Return a committee in which everyone votes."""
        return Members(tuple(Seat(member) for member in ids))

    @staticmethod
    def awaiting(ids: tuple[int, ...]) -> Members:
        """Return what a newcomer knows before anybody told it more: nobody votes."""
        return Members(tuple(Seat(member, votes=False) for member in ids))

    def voters(self) -> frozenset[int]:
        """Seats whose holders count."""
        return frozenset(i for i, seat in enumerate(self.seats) if seat.votes)

    def next_towards(self, wanted: tuple[int, ...], *, keep: int) -> Members | None:
        """Return these members one change nearer to ``wanted``, None when there is none to make.

        Args:
            wanted: Id of the member each seat should have.
            keep: A seat that is not to be emptied, because who asks sits there.
        """
        for index, (seat, member) in enumerate(zip(self.seats, wanted, strict=True)):
            if seat.member == member and not seat.votes:
                return self._with(index, replace(seat, votes=True))
        for index, (seat, member) in enumerate(zip(self.seats, wanted, strict=True)):
            if seat.member != member and index != keep:
                return self._with(index, Seat(member, votes=False, previous=seat.member))
        return None

    def encode(self) -> bytes:
        """Lay the members out."""
        seats = (_SEAT.pack(seat.member, seat.votes, seat.previous) for seat in self.seats)
        return bytes([len(self.seats)]) + b"".join(seats)

    def _with(self, index: int, seat: Seat) -> Members:
        return Members((*self.seats[:index], seat, *self.seats[index + 1 :]))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What stands in place of the log up to and including ``index``.

    Attributes:
        index: Last index of the log it stands for.
        term: Term of that entry.
        commands: How many of the entries up to there were commands.
        members: The members in force there.
        state: What the commands led to; the engine does not look inside.
    """

    index: int
    term: int
    commands: int
    members: Members
    state: bytes

    def encode(self) -> bytes:
        """Lay the snapshot out; equal snapshots have equal bytes."""
        head = _HEAD.pack(_MAGIC, _VERSION, self.index, self.term, self.commands)
        return head + self.members.encode() + self.state


def decode_members(data: bytes, *, size: int) -> Members:
    """Parse members that have exactly ``size`` seats.

    Raises:
        StorageError: The bytes are no such members.
    """
    if len(data) != 1 + size * _SEAT.size or data[0] != size or size > _MAX_SEATS:
        raise StorageError("members of a consensus engine that do not parse")
    seats: list[Seat] = []
    for offset in range(1, len(data), _SEAT.size):
        member, votes, previous = _SEAT.unpack_from(data, offset)
        if votes > 1:
            raise StorageError("members of a consensus engine that do not parse")
        seats.append(Seat(member, votes == 1, previous))
    return Members(tuple(seats))


def decode_snapshot(data: bytes, *, size: int) -> Snapshot:
    """Parse a snapshot of a committee with ``size`` seats.

    Raises:
        StorageError: The bytes are no such snapshot.
    """
    end = _HEAD.size + 1 + size * _SEAT.size
    if len(data) < end or len(data) - end > MAX_STATE_BYTES:
        raise StorageError("a consensus snapshot of an impossible length")
    magic, version, index, term, commands = _HEAD.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION) or not commands < index < 1 << 62:
        raise StorageError("a consensus snapshot that does not parse")
    return Snapshot(
        index, term, commands, decode_members(data[_HEAD.size : end], size=size), data[end:]
    )

"""The next version of the descriptor on its way through the log, part by part (decision 0007).

Rules:

1. Each member of the committee has one offer at a time; beginning another one forgets it.
2. Parts come in order. The last one makes the offer whole, and it is looked at then: only a version
   that may follow the one in force is kept (``zipnet.protocol.succession``).
3. What was offered under one version is forgotten with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from zipnet.errors import VerificationError
from zipnet.protocol.command import DESCRIPTOR_PART_BYTES, OfferDescriptor
from zipnet.protocol.descriptor import MAX_DESCRIPTOR_BYTES, TrustedDescriptor
from zipnet.protocol.ids import Digest
from zipnet.protocol.succession import succeed

if TYPE_CHECKING:
    from zipnet.protocol.encoding import Reader, Writer
    from zipnet.protocol.ids import RegistryIndex, ServerIndex

__all__ = ["MAX_PARTS", "DescriptorAdopted", "DescriptorOffered", "Offers", "parts_of"]

MAX_PARTS: Final = -(-MAX_DESCRIPTOR_BYTES // DESCRIPTOR_PART_BYTES)
_COMMITTEE: Final = 16


@dataclass(frozen=True, slots=True)
class DescriptorOffered:
    """A part of the next version is in the log."""

    server: ServerIndex
    position: int


@dataclass(frozen=True, slots=True)
class DescriptorAdopted:
    """A new version of the descriptor is in force.

    Attributes:
        descriptor: The version.
        seat: The seat whose server was replaced, if one was.
        retired: Clients that were retired with it.
    """

    descriptor: TrustedDescriptor
    seat: ServerIndex | None
    retired: tuple[RegistryIndex, ...]


def parts_of(descriptor: TrustedDescriptor) -> tuple[OfferDescriptor, ...]:
    """Return the commands that carry a version's file."""
    file, size = descriptor.descriptor.file, DESCRIPTOR_PART_BYTES
    pieces = [file[start : start + size] for start in range(0, len(file), size)]
    digest = descriptor.descriptor.digest
    return tuple(
        OfferDescriptor(digest, position, len(pieces), piece)
        for position, piece in enumerate(pieces)
    )


@dataclass(slots=True)
class Offers:
    """What was offered since the version in force began."""

    _parts: dict[int, tuple[Digest, int, tuple[bytes, ...]]] = field(default_factory=dict)
    _whole: dict[int, TrustedDescriptor] = field(default_factory=dict)

    def take(self, author: int, command: OfferDescriptor, current: TrustedDescriptor) -> str | None:
        """Take a part; return why not, or None."""
        if not 0 <= command.position < command.count <= MAX_PARTS:
            return "bad_offer"
        digest, count, parts = self._parts.get(author, (None, 0, ()))
        if command.position == 0:
            parts = ()
        elif (digest, count) != (command.descriptor, command.count):
            return "other_offer"
        if len(parts) != command.position:
            return "out_of_order"
        parts = (*parts, command.part)
        if len(parts) < command.count:
            self._whole.pop(author, None)
            self._parts[author] = (command.descriptor, command.count, parts)
            return None
        try:
            offered = succeed(current, b"".join(parts))
        except VerificationError:
            self.forget(author)
            return "bad_offer"
        if offered.descriptor.digest != command.descriptor:
            self.forget(author)
            return "bad_offer"
        self._parts[author] = (command.descriptor, command.count, parts)
        self._whole[author] = offered
        return None

    def forget(self, author: int) -> None:
        """Forget what a member offered."""
        self._parts.pop(author, None)
        self._whole.pop(author, None)

    def clear(self) -> None:
        """Forget everything."""
        self._parts.clear()
        self._whole.clear()

    def __bool__(self) -> bool:
        return bool(self._parts)

    def next_part(self, author: int, descriptor: TrustedDescriptor) -> OfferDescriptor | None:
        """Return the part of a version that a member has to offer next; None when all are here."""
        commands = parts_of(descriptor)
        digest, count, parts = self._parts.get(author, (None, 0, ()))
        same = (digest, count) == (descriptor.descriptor.digest, len(commands))
        have = len(parts) if same else 0
        return commands[have] if have < len(commands) else None

    def whole(self) -> TrustedDescriptor | None:
        """Return a version that was offered in full; the one of the lowest seat."""
        return self._whole[min(self._whole)] if self._whole else None

    def find(self, version: int, digest: Digest) -> TrustedDescriptor | None:
        """Return a version that was offered in full."""
        for offered in self._whole.values():
            if (offered.version, offered.descriptor.digest) == (version, digest):
                return offered
        return None

    def write(self, writer: Writer) -> None:
        """Lay the offers out for a snapshot."""
        writer.u8(len(self._parts))
        for author, (digest, count, parts) in sorted(self._parts.items()):
            writer.u8(author).fixed(digest, 32).u8(count).u8(len(parts))
            for part in parts:
                writer.var16(part)

    def read(self, reader: Reader, current: TrustedDescriptor) -> bool:
        """Take what :meth:`write` laid out; False when no log leads to it."""
        for _ in range(reader.u8()):
            author, digest, count = reader.u8(), _digest(reader), reader.u8()
            held = reader.u8()
            if author >= _COMMITTEE or not 0 < held <= count:
                return False
            for position in range(held):
                part = reader.var16(max_len=DESCRIPTOR_PART_BYTES)
                command = OfferDescriptor(digest, position, count, part)
                if self.take(author, command, current) is not None:
                    return False
        return True


def _digest(reader: Reader) -> Digest:
    return Digest(reader.fixed(32))

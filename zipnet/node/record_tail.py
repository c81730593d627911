"""The newest records as an aggregator verified them, for its own subscribers.

protocol.md §6 "Record". An aggregator keeps nothing durable: it begins at the record a server
calls the last one, verifies it with the descriptor, and from there on takes only what extends it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from zipnet.errors import VerificationError
from zipnet.protocol.record import decode_record, require_extends, verify_record

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["RecordTail"]

_KEPT = 64
_KEPT_BYTES = 16 * 1024 * 1024


class RecordTail:
    """A verified chain's newest end.

    Args:
        descriptor: What records are verified with.

    Attributes:
        next_sequence: Sequence number the next record must have, None before the first look.
        last: The newest verified record, if any.
    """

    def __init__(self, descriptor: TrustedDescriptor) -> None:
        self.next_sequence: int | None = None
        self.last: VerifiedRecord | None = None
        self._descriptor = descriptor
        self._kept: deque[bytes] = deque()
        self._bytes = 0

    @property
    def descriptor(self) -> TrustedDescriptor:
        """The newest version of the descriptor this goes by."""
        return self._descriptor

    def use_descriptor(self, descriptor: TrustedDescriptor) -> None:
        """Go by a later version of the descriptor."""
        self._descriptor = descriptor

    @property
    def last_bytes(self) -> bytes | None:
        """The newest record's bytes."""
        return self._kept[-1] if self._kept else None

    def verify(self, data: bytes) -> VerifiedRecord:
        """Parse and verify one record by itself; takes milliseconds, safe in any thread.

        Raises:
            RemoteProtocolError: When the bytes are no record of this group.
            VerificationError: When it does not verify.
        """
        return verify_record(decode_record(data, self._descriptor.params), self._descriptor)

    def version_of(self, data: bytes) -> int:
        """Return the version of the descriptor a record names; nothing of it is verified.

        Raises:
            RemoteProtocolError: When the bytes are no record.
        """
        content = decode_record(data, self._descriptor.params).content
        return int(content.header.descriptor_version)

    def begin(self, next_sequence: int) -> None:
        """Begin at this sequence number without a record before it."""
        self.next_sequence = next_sequence

    def append(self, record: VerifiedRecord, data: bytes) -> bool:
        """Add a verified record; False when it is one this tail is past already.

        Raises:
            VerificationError: When it leaves a gap, or extends another chain.
        """
        due = self.next_sequence
        if due is not None and record.sequence < due:
            if self.last is not None and self.last.sequence == record.sequence:
                self._require_same(record)
            return False
        if due is not None and record.sequence != due:
            raise VerificationError(f"record {record.sequence} came where {due} was due")
        if self.last is not None:
            require_extends(record, self.last)
        self.last = record
        self.next_sequence = record.sequence + 1
        self._keep(data)
        return True

    def _require_same(self, record: VerifiedRecord) -> None:
        if self.last is not None and record.hash != self.last.hash:
            raise VerificationError(f"there are two records {record.sequence}")

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._bytes += len(data)
        while len(self._kept) > _KEPT or (self._bytes > _KEPT_BYTES and len(self._kept) > 1):
            self._bytes -= len(self._kept.popleft())

    def read(self, from_sequence: int, limit: int, *, max_bytes: int) -> list[bytes]:
        """Return kept records from a sequence number on; none when it is not among them."""
        following = self.next_sequence or 0
        position = len(self._kept) - (following - from_sequence)
        if not 0 <= position < len(self._kept):
            return []
        found: list[bytes] = []
        for data in list(self._kept)[position : position + limit]:
            if found and sum(map(len, found)) + len(data) > max_bytes:
                break
            found.append(data)
        return found

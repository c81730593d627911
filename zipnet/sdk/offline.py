"""Reading records that are already at hand, such as a server's log on disk: no link, all checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.errors import VerificationError
from zipnet.machines.reader import FetchFrom, ReaderMachine, RecordArrived, RefuseRecord
from zipnet.protocol.record import decode_record, verify_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zipnet.machines.reader import ReaderEffect
    from zipnet.protocol.descriptor import TrustedDescriptor

__all__ = ["read_records"]


def read_records(
    records: Iterable[bytes], descriptor: TrustedDescriptor, *, from_sequence: int = 0
) -> Iterator[ReaderEffect]:
    """Verify encoded records one after the other and yield what they tell (protocol.md §6).

    Args:
        records: Encoded records in sequence order.
        descriptor: The instance they must be of.
        from_sequence: Sequence number of the first one; from 0 on the chain is complete.

    Raises:
        RemoteProtocolError: When bytes are no record.
        VerificationError: When a record does not verify or does not extend the one before it.
    """
    machine = ReaderMachine(from_sequence)
    for data in records:
        record = verify_record(decode_record(data, descriptor.params), descriptor)
        for effect in machine.step(RecordArrived(record)):
            if isinstance(effect, FetchFrom):
                raise VerificationError(
                    f"record {record.sequence} comes where {effect.from_sequence} is due"
                )
            if isinstance(effect, RefuseRecord):
                raise VerificationError(effect.text)
            yield effect

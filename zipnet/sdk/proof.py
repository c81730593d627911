"""Checking a receipt or an accusation years later, with the descriptor and nothing else.

A receipt's proof is the co-signed records that hold the message: whoever has the descriptor gets
the very message back out of them. Two records for one place in the log, both signed by the
committee, prove that it told two stories.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.errors import VerificationError
from zipnet.protocol.record import decode_record, verify_record
from zipnet.protocol.slots import Reassembler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.protocol.descriptor import TrustedDescriptor

__all__ = ["verify_equivocation", "verify_proof"]


def verify_proof(proof: Sequence[bytes], message_id: bytes, descriptor: TrustedDescriptor) -> bytes:
    """Return the message that a receipt's proof shows was broadcast (protocol.md §6 "Record").

    Args:
        proof: ``receipt.proof``: encoded records in log order.
        message_id: ``receipt.message_id``.
        descriptor: The instance; valid or expired, but the operator's.

    Raises:
        RemoteProtocolError: When something in it is no record.
        VerificationError: When a record does not verify, or the message is not in them.
    """
    reassembler = Reassembler()
    for data in proof:
        record = verify_record(decode_record(data, descriptor.params), descriptor)
        for _, fragment in sorted(record.fragments.items()):
            if fragment.message_id == message_id:
                message = reassembler.offer(record.round, fragment)
                if message is not None:
                    return message
    raise VerificationError(
        "the records do not hold the whole message", hint="ask for the receipt's whole proof"
    )


def verify_equivocation(proof: tuple[bytes, bytes], descriptor: TrustedDescriptor) -> int:
    """Return the sequence number for which the committee signed two different records.

    Raises:
        RemoteProtocolError: When one of the two is no record.
        VerificationError: When one does not verify, or they are not two records of one place.
    """
    first, second = (
        verify_record(decode_record(data, descriptor.params), descriptor) for data in proof
    )
    if first.sequence != second.sequence or first.hash == second.hash:
        raise VerificationError("these are not two records for one place in the log")
    return first.sequence

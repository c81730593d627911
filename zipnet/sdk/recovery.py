"""What became of messages that an earlier process did not live to see the end of.

protocol.md §4.6, §8.8. A registration is good from the round after the last one that was opened
when it was committed. So whatever an earlier process sent was sent in a round before this process's
first one, and stands in a record up to the last final round before that, or nowhere.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from zipnet.errors import AdmissionError
from zipnet.machines.outgoing import Outgoing, QueuedMessage
from zipnet.protocol.slots import fragment_message
from zipnet.sdk.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.machines.outgoing import Receipt
    from zipnet.ports import Transport
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.ids import RoundNumber
    from zipnet.sdk.links import Trouble
    from zipnet.sdk.outbox import Stored

__all__ = ["find_broadcast"]

_NEVER = float("inf")


async def find_broadcast(
    stored: Sequence[Stored],
    descriptor: TrustedDescriptor,
    transport: Transport,
    *,
    until: RoundNumber,
    servers_at: Sequence[tuple[str, int]] | None,
    capability: bytes | None,
    on_trouble: Trouble,
) -> dict[int, Receipt]:
    """Read the log up to a round and return the receipts of what it holds, by outbox number.

    Args:
        stored: What to look for.
        descriptor: The instance.
        transport: How servers are reached.
        until: The last final round an earlier process can have been in; 0 when there is none.
        servers_at: As for :class:`zipnet.Reader`.
        capability: Shown only where servers let nobody read without one.
        on_trouble: Told about servers that fail meanwhile.
    """
    if not stored or until == 0:
        return {}

    def reader(shown: bytes | None) -> Reader:
        return Reader(
            descriptor,
            transport=transport,
            from_sequence=min(one.since for one in stored),
            servers_at=servers_at,
            capability=shown,
            on_trouble=on_trouble,
        )

    try:
        return await _search(stored, descriptor, reader(None), until)
    except AdmissionError as error:
        if error.code != "capability_missing" or capability is None:
            raise
    return await _search(stored, descriptor, reader(capability), until)


async def _search(
    stored: Sequence[Stored], descriptor: TrustedDescriptor, log: Reader, until: RoundNumber
) -> dict[int, Receipt]:
    found: dict[int, Receipt] = {}
    books = Outgoing()
    for one in stored:
        fragments = fragment_message(one.message, descriptor.params, partial(_salt, one))
        books.add(QueuedMessage(one.number, tuple(fragments), _NEVER))
    async with log as reader:
        async for record in reader.records():
            # Several records' work in a row must not hold up the rounds of this client.
            await asyncio.sleep(0)
            for message, _placed in books.land(record):
                receipt = message.receipt()
                if receipt is not None:
                    found[message.ticket] = receipt
            if record.round >= until:
                break
    return found


def _salt(stored: Stored, _size: int) -> bytes:
    return stored.salt

"""How large the crowd is: asked of the whole committee, believed as the least of the answers.

protocol.md §5.5, row Z19. Rules:

1. Every server is asked over a link that does not say who asks.
2. As many answers are needed as a record needs signatures: among that many is an honest server, as
   long as the promise of protocol.md §1 holds at all, and the least answer is at most its own.
3. The question is the same for a client with a message and for one without.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from zipnet.sdk.links import LINK_ERRORS, Dialer, Trouble, serving
from zipnet.transport.session import Role
from zipnet.wire.messages import Crowd, GetCrowd, Kind, decode, encode

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import NodeEntry, TrustedDescriptor

__all__ = ["count_crowd"]


async def count_crowd(
    descriptor: TrustedDescriptor, dialer: Dialer, on_trouble: Trouble
) -> int | None:
    """Return how many clients are registered by the least answer; None when too few answered.

    Args:
        descriptor: The instance.
        dialer: How nodes are reached; it is used anonymously.
        on_trouble: Told about servers that did not answer.
    """

    async def ask(node: NodeEntry) -> int | None:
        try:
            session = await dialer.anonymous().open(node, expected_role=Role.SERVER)
            async with serving(session):
                answer = await session.request(Kind.GET_CROWD, encode(GetCrowd()))
                return decode(answer.payload, Crowd).registered
        except LINK_ERRORS as error:
            on_trouble(error)
            return None

    answers = await asyncio.gather(*(ask(node) for node in descriptor.descriptor.servers))
    counts = [count for count in answers if count is not None]
    return min(counts) if len(counts) >= descriptor.required_signatures else None

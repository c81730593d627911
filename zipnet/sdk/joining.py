"""Where a registration stands: told by one server, believed when most of the committee says it.

protocol.md §4.6. A client counts its chains from the first round that it is told. One server could
tell it another round, and the client would send noise from then on: every record would be spoiled,
and nobody would see by whom. Rules:

1. The registration goes to every other server as well, byte for byte. One that has it already says
   where it stands, and changes nothing.
2. What more than half of the committee says counts: the log itself needs as many.
3. An answer that differs is told as trouble, with the names. Where it is not outvoted, the client
   registers anew, with another server.
4. Where too few answer and none differs, the client goes on with what it was told, and says so:
   servers that refuse to answer must not be able to keep it out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from zipnet.errors import TransportError, VerificationError
from zipnet.sdk.links import LINK_ERRORS, Dialer, Trouble, serving
from zipnet.transport.session import Role
from zipnet.wire.messages import Kind, Registered, decode

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import NodeEntry, TrustedDescriptor

__all__ = ["require_agreed"]


async def require_agreed(
    told: Registered,
    by: NodeEntry,
    request: bytes,
    *,
    descriptor: TrustedDescriptor,
    dialer: Dialer,
    on_trouble: Trouble,
    timeout_s: float,
) -> None:
    """Return once more than half of the committee says the same, or nobody says anything else.

    Args:
        told: What the first server said.
        by: That server.
        request: The very request it was sent.
        descriptor: The instance.
        dialer: How nodes are reached, as this client.
        on_trouble: Told about servers that do not answer, or say something else.
        timeout_s: How long one server may take.

    Raises:
        VerificationError: When somebody says something else and is not outvoted.
    """

    async def ask(node: NodeEntry) -> tuple[NodeEntry, Registered | None]:
        try:
            session = await dialer.open(node, expected_role=Role.SERVER)
            async with serving(session):
                answer = await session.request(Kind.REGISTER, request, timeout_s=timeout_s)
                return node, decode(answer.payload, Registered)
        except LINK_ERRORS as error:
            on_trouble(error)
            return node, None

    servers = descriptor.descriptor.servers
    needed = len(servers) // 2 + 1
    agreeing, differing = 1, 0
    asking = [asyncio.create_task(ask(node)) for node in servers if node.name != by.name]
    try:
        for answered in asyncio.as_completed(asking):
            node, said = await answered
            if said == told:
                agreeing += 1
            elif said is not None:
                differing += 1
                on_trouble(VerificationError(_differs(by, node)))
            if agreeing >= needed:
                return
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    if differing:
        raise VerificationError(f"nobody outvotes whoever lies about the place {by.name} told")
    on_trouble(TransportError(f"{agreeing} of {len(servers)} servers confirm this registration"))


def _differs(first: NodeEntry, other: NodeEntry) -> str:
    return f"{first.name} and {other.name} say different things about this client's registration"

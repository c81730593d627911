"""Ask other nodes, before a node starts, whether somebody else lives under its identity.

A node whose identity is alive elsewhere would replace or be refused link by link; asking first
gives one clear error before any port is bound or file written.

Rules:

1. Who cannot be reached has no say; a node that is alone in the world may start.
2. More than half of those that answered must say ``duplicate_identity``: one lying node cannot
   keep another from starting.
3. ``identity_busy`` means that the other node is finding out; it is asked again until the deadline.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zipnet.errors import AdmissionError, DuplicateIdentityError, ZipnetError
from zipnet.transport.session import initiate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.ports import Transport
    from zipnet.transport.session import SessionTerms

__all__ = ["Target", "require_alone"]

_DEADLINE_S = 4.0
_PAUSE_S = 0.3


@dataclass(frozen=True, slots=True)
class Target:
    """A node to ask.

    Attributes:
        host: Where it listens.
        port: Its port.
        key: Ed25519 key (32 bytes) of its certificate.
    """

    host: str
    port: int
    key: bytes


async def require_alone(
    targets: Sequence[Target], terms: SessionTerms, transport: Transport, *, name: str
) -> None:
    """Return when nobody, or only a minority, says that this identity is alive elsewhere.

    Args:
        targets: Nodes to ask, all at once.
        terms: What this node says; its identity is the one asked about.
        transport: Engine to dial with.
        name: This node's name in the descriptor, for the error.

    Raises:
        DuplicateIdentityError: When more than half of those that answered say so.
    """
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_ask(target, terms, transport)) for target in targets]
    answers = [task.result() for task in asked if task.result() is not None]
    if sum(1 for answer in answers if answer) * 2 > len(answers):
        raise DuplicateIdentityError(
            f"another live node uses the identity of {name!r}",
            hint="stop it first, or give this node an identity of its own",
        )


async def _ask(target: Target, terms: SessionTerms, transport: Transport) -> bool | None:
    """Whether a node says the identity is taken; None when it gave no usable answer."""
    try:
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                try:
                    return await _ask_once(target, terms, transport)
                except AdmissionError as error:
                    if error.code != "identity_busy":
                        return None
                await asyncio.sleep(_PAUSE_S)
    except (TimeoutError, ZipnetError):  # not reachable, or a quarrel the link will report
        return None


async def _ask_once(target: Target, terms: SessionTerms, transport: Transport) -> bool:
    connection = await transport.connect(
        target.host, target.port, expected_key=target.key, timeout_s=_DEADLINE_S
    )
    try:
        session = await initiate(connection, terms, deadline_s=_DEADLINE_S)
    except DuplicateIdentityError:
        return True
    await session.close()
    return False

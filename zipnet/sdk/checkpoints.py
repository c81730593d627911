"""Asking committee servers for their signed checkpoints of the record log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.ledger.checkpoint import open_checkpoint
from zipnet.sdk.links import LINK_ERRORS, Dialer, Trouble, serving
from zipnet.transport.session import Role
from zipnet.wire.messages import GetCheckpoint, Kind, SignedCheckpoint, decode, encode

if TYPE_CHECKING:
    from zipnet.ledger.checkpoint import VerifiedCheckpoint
    from zipnet.protocol.descriptor import NodeEntry
    from zipnet.protocol.ids import ServerIndex

__all__ = ["fetch_checkpoints"]


async def fetch_checkpoints(
    dialer: Dialer, *, on_trouble: Trouble | None = None
) -> dict[ServerIndex, VerifiedCheckpoint]:
    """Return a verified checkpoint of each server that has one, as it signed it.

    Args:
        dialer: How servers are reached.
        on_trouble: Told about servers that did not answer, or answered with none of their own.
    """
    found: dict[ServerIndex, VerifiedCheckpoint] = {}
    for node in dialer.descriptor.descriptor.servers:
        try:
            checkpoint = await _ask(dialer, node)
        except LINK_ERRORS as error:
            if on_trouble is not None:
                on_trouble(error)
        else:
            (server,) = checkpoint.servers
            found[server] = checkpoint
    return found


async def _ask(dialer: Dialer, node: NodeEntry) -> VerifiedCheckpoint:
    session = await dialer.open(node, expected_role=Role.SERVER)
    async with serving(session):
        answer = await session.request(Kind.GET_CHECKPOINT, encode(GetCheckpoint()))
    note = decode(answer.payload, SignedCheckpoint).note
    try:
        checkpoint = open_checkpoint(note, dialer.descriptor)
    except VerificationError as error:
        raise RemoteProtocolError(f"a checkpoint is not genuine: {error}") from error
    if checkpoint.servers != {dialer.descriptor.server_index(node.peer_id)}:
        raise RemoteProtocolError("a server showed a checkpoint that others signed")
    return checkpoint

"""A committee server's part in revoking: it cuts off at once, tells the others, and sees it logged.

Row Z26. The log is what makes a revocation count for all and for good. It is not what starts it: a
revoked server may be the very one that leads, and would sit on the command. So:

1. Whoever gets a statement, from an operator or from another server, checks it, cuts off whom it
   names, makes it durable, and passes it on once.
2. From then on it proposes it until its log has it: with the one cut off that kept it from being
   committed, the others elect a leader without it.
3. A new statement is accepted from outside on the day it was signed; what this server knows is
   proposed whenever it was.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from zipnet.errors import (
    AdmissionError,
    ConsensusError,
    RemoteProtocolError,
    SafeMode,
    VerificationError,
)
from zipnet.machines.server_effects import ClientNotAdmitted
from zipnet.observe.log import get_logger
from zipnet.protocol.command import Revoke
from zipnet.protocol.revocation import require_fresh
from zipnet.wire.messages import Kind, Revoked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from zipnet.machines.committee import CommitteeState
    from zipnet.machines.server_effects import EnforceRevocation
    from zipnet.node.server_parts import ServerParts
    from zipnet.protocol.command import Command
    from zipnet.protocol.revocation import Revocation

__all__ = ["ServerRevoking"]

_LOOK_S: Final = 0.25
_log = get_logger(__name__)


class ServerRevoking:
    """Revokes for one server.

    Args:
        parts: The server's parts.
        propose: Puts a command into the log.
        begin: Runs something beside, in the driver's task group.
        wall: Seconds since 1970.
    """

    def __init__(
        self,
        parts: ServerParts,
        propose: Callable[[Command], Awaitable[None]],
        begin: Callable[[Coroutine[object, object, None]], Awaitable[None]],
        wall: Callable[[], float],
    ) -> None:
        self._parts = parts
        self._propose = propose
        self._begin = begin
        self._wall = wall
        self._changed = asyncio.Event()
        self._due = asyncio.Event()

    async def on_log(self, effect: EnforceRevocation) -> None:
        """Enforce what the log says, and retire clients who registered by a revoked capability.

        Raises:
            SafeMode: When it could not be made durable.
        """
        parts = self._parts
        await parts.revocations.enforce(effect.revocation, effect.statement)
        self._changed.set()
        self._changed = asyncio.Event()
        for peer in parts.capabilities.forget_revoked():
            index = parts.machine.state.registry.index_of(peer)
            if index is not None:  # the machine proposes to retire it
                await self._begin(parts.events.post(ClientNotAdmitted(index)))

    async def take(self, statement: bytes) -> Revocation:
        """Enforce a statement that came from outside, pass it on, and have it logged (rule 1).

        Raises:
            AdmissionError: When nobody entitled signed it, or it is new here and too old.
        """
        parts = self._parts
        try:
            revocation = parts.revocations.open(statement)
        except (RemoteProtocolError, VerificationError) as error:
            raise AdmissionError(
                "nobody entitled signed this statement for this group", code="bad_revocation"
            ) from error
        if parts.revocations.book.has(revocation):
            return revocation
        require_fresh(revocation, int(self._wall() * 1000))
        # Before anything is cut: whoever is cut must not be the one way to the others.
        parts.mesh.push_all(Kind.REVOKED, Revoked(statements=[statement]))
        try:
            await parts.revocations.enforce(revocation, statement)
        except SafeMode as error:
            await self._begin(_fail(error))
            raise AdmissionError("this server enters safe mode", code="safe_mode") from error
        self._due.set()
        return revocation

    async def wait_logged(self, revocation: Revocation) -> None:
        """Return once the log has what a statement names; bound the wait."""
        key = (revocation.kind, revocation.target)
        while key not in self._parts.machine.state.revoked:
            await self._changed.wait()

    async def run(self) -> None:
        """Propose what is known here and not in the log, until cancelled (rule 2)."""
        consensus = self._parts.consensus
        while True:
            self._due.clear()
            waiting = self._unlogged()
            if waiting and consensus.caught_up() and not self._is_out():
                try:
                    await self._propose(Revoke(waiting[0]))
                except ConsensusError as error:
                    _log.info("proposal_failed", reason=error.reason)
            if waiting:
                await asyncio.sleep(_LOOK_S)
            else:
                await self._due.wait()

    def _is_out(self) -> bool:
        """Whether this very server was revoked: nobody takes its commands."""
        return self._parts.revocations.book.has_peer(self._parts.identity.peer_id)

    def _unlogged(self) -> list[bytes]:
        """What is known here and the log would take: a key it was signed with may be over since."""
        state = self._parts.machine.state
        missing = self._parts.revocations.book.missing_in(state.revoked)
        return [statement for statement in missing if _is_taken(state, statement)]


def _is_taken(state: CommitteeState, statement: bytes) -> bool:
    try:
        state.revocation_of(statement)
    except (RemoteProtocolError, VerificationError):
        return False
    return True


async def _fail(error: SafeMode) -> None:
    """End the driver: it runs in the group that this is begun in."""
    raise error

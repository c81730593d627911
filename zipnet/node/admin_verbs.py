"""What a running node does when its operators tell it to (``zipnet.node.admin`` lets them).

Rules:

1. Every verb answers with facts that name no client.
2. What a node cannot do it refuses with a reason that says who can.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from zipnet.errors import (
    AdmissionError,
    StorageError,
    ZipnetError,
)
from zipnet.protocol.ids import short_peer_id
from zipnet.transport.session import Role
from zipnet.wire.admin import MAX_EXPORT_BYTES
from zipnet.wire.frames import CloseCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from zipnet.node.revocations import NodeRevocations
    from zipnet.node.server_revoking import ServerRevoking
    from zipnet.observe.health import Health
    from zipnet.protocol.ids import PeerId
    from zipnet.transport.session import HelloFacts, Session

__all__ = ["AdminHooks", "NodeVerbs"]

_OUTSIDERS: Final = frozenset({Role.CLIENT, Role.READER})
_DRAINED_RETRY_S: Final = 10.0
_REVOKE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminHooks:
    """What the verbs need of a node.

    Attributes:
        role: ``server`` or ``aggregator``.
        peer: The node's peer id.
        health: Its conditions.
        version: What ``/version`` says.
        sessions: Its live sessions.
        revocations: What was revoked.
        stop: Ends the node.
        audit_file: The audit trail, where one is kept.
        revoking: Revokes, and sees it logged; None on an aggregator.
        enter_safe_mode: Makes the node enter safe mode; None where there is none to enter.
        rotations: What can be rotated while the node runs.
        facts: More for ``status``.
    """

    role: str
    peer: PeerId
    health: Health
    version: Mapping[str, str]
    sessions: Callable[[], Iterable[Session]]
    revocations: NodeRevocations
    stop: asyncio.Event
    audit_file: Path | None = None
    revoking: ServerRevoking | None = None
    enter_safe_mode: Callable[[], Awaitable[None]] | None = None
    rotations: Mapping[str, Callable[[], Awaitable[dict[str, str]]]] = field(default_factory=dict)
    facts: Callable[[], dict[str, str]] = dict


class NodeVerbs:
    """The verbs of one node; implements ``zipnet.node.admin.AdminVerbs``."""

    def __init__(self, hooks: AdminHooks) -> None:
        self._hooks = hooks
        self._draining = False
        self._leaving: set[asyncio.Task[None]] = set()

    def refusal(self, facts: HelloFacts) -> ZipnetError | None:
        """Return the refusal of whoever comes to a node that lets people go."""
        if not self._draining or facts.role not in _OUTSIDERS:
            return None
        return AdmissionError(
            "this node is being drained", code="not_ready", retry_after=_DRAINED_RETRY_S
        )

    async def status(self) -> dict[str, str]:
        """Say how the node is: version, readiness and its reasons, sessions by role."""
        hooks = self._hooks
        sessions = [session.peer.role for session in hooks.sessions()]
        failed = ",".join(f"{item.condition}:{item.reason}" for item in hooks.health.failed())
        counted = {f"sessions_{role.value}s": str(sessions.count(role)) for role in Role}
        return {
            "role": hooks.role,
            "peer": short_peer_id(hooks.peer),
            "ready": "yes" if hooks.health.ready() else f"no ({failed})",
            "draining": "yes" if self._draining else "no",
            "revocations": str(len(hooks.revocations.book.statements)),
            **hooks.version,
            **counted,
            **hooks.facts(),
        }

    async def safe_mode(self) -> dict[str, str]:
        """Enter safe mode: sign and release nothing, serve readers, until an operator looked.

        Raises:
            AdmissionError: Where there is no safe mode to enter.
        """
        enter = self._hooks.enter_safe_mode
        if enter is None:
            raise AdmissionError(
                "only a server with a state folder has a safe mode", code="nothing_kept"
            )
        await enter()
        return {"safe_mode": "entered", "leave_with": "zipnet safe-mode leave, once it is stopped"}

    async def revoke(self, statement: bytes) -> dict[str, str]:
        """Have the committee revoke what a statement names, and wait until this node has.

        Raises:
            AdmissionError: The statement does not hold, or the committee did not take it in time.
        """
        revoking = self._hooks.revoking
        if revoking is None:
            raise AdmissionError(
                "an aggregator puts nothing into the log", code="not_a_server",
                hint="hand the statement to a committee server",
            )  # fmt: skip
        began = asyncio.get_running_loop().time()
        revocation = await revoking.take(statement)
        facts = {"kind": revocation.kind.name.lower(), "key_id": revocation.target.hex()[:16]}
        try:
            async with asyncio.timeout(_REVOKE_S):
                await revoking.wait_logged(revocation)
        except TimeoutError as error:
            raise AdmissionError(
                "cut off here and wherever this server is heard; the committee's log has not "
                "taken it yet, and is asked until it does",
                code="not_logged_yet",
                retry_after=1.0,
            ) from error
        took = asyncio.get_running_loop().time() - began
        return {**facts, "state": "revoked", "took_ms": str(round(took * 1000))}

    async def rotate(self, kind: str) -> dict[str, str]:
        """Begin to use a new key of a kind.

        Raises:
            AdmissionError: When this node rotates no such key while it runs.
        """
        rotation = self._hooks.rotations.get(kind)
        if rotation is None:
            known = ", ".join(sorted(self._hooks.rotations)) or "nothing"
            raise AdmissionError(
                f"this node rotates {known} while it runs, and not that", code="not_rotatable"
            )
        return await rotation()

    async def drain(self, *, on: bool) -> dict[str, str]:
        """Let clients and readers go and take none; or take them again."""
        self._draining = on
        gone = [one for one in self._hooks.sessions() if one.peer.role in _OUTSIDERS] if on else []
        self._hooks.health.set("admission", ok=not on, reason="drained")
        for session in gone:
            closing = session.close(code=CloseCode.OVERLOADED, reason="drained")
            task = asyncio.get_running_loop().create_task(closing)
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        return {"draining": "yes" if on else "no", "let_go": str(len(gone))}

    async def export(self, what: str, offset: int) -> bytes:
        """Return the next bytes of the audit trail, the one thing there is to export.

        Raises:
            AdmissionError: When something else is asked for, or no trail is kept.
            StorageError: When it cannot be read.
        """
        path = self._hooks.audit_file
        if what != "audit" or path is None:
            raise AdmissionError("this node keeps nothing of that name", code="nothing_kept")

        def read() -> bytes:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(MAX_EXPORT_BYTES)

        try:
            return await asyncio.to_thread(read)
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error

    async def shutdown(self) -> dict[str, str]:
        """End the node in good order, a moment after the answer."""
        asyncio.get_running_loop().call_later(0.1, self._hooks.stop.set)
        return {"state": "stopping"}

"""Revocations at one node: kept for restarts, and whoever they name is cut off (row Z26).

Rules:

1. A statement is checked with the descriptor alone, by every node for itself, whoever brought it.
2. It is enforced at once and then made durable, where the node keeps anything; a restarted node
   knows it before it listens.
3. Enforcing ends the live sessions of the peer, or those that showed the capability, and the links
   this node dials; from then on the handshake refuses the peer with ``revoked``.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from zipnet.access.revoked import RevokedBook
from zipnet.errors import (
    AdmissionError,
    RemoteProtocolError,
    StorageError,
    TransportError,
    VerificationError,
)
from zipnet.observe.log import get_logger
from zipnet.protocol.succession import open_by_operators
from zipnet.transport.session import Role
from zipnet.wire.frames import CloseCode
from zipnet.wire.messages import MAX_STATEMENTS_PER_PUSH, Kind, Revoked, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from zipnet.access.capability import Capability
    from zipnet.ports import Journal
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.ids import PeerId
    from zipnet.protocol.revocation import Revocation
    from zipnet.transport.dial import PersistentLink
    from zipnet.transport.session import HelloFacts, Session

__all__ = ["NodeRevocations", "pushes_of"]

_log = get_logger(__name__)


class NodeRevocations:
    """What was revoked, at one node.

    Args:
        descriptor: Names the operator whose word counts.
        journal: Where statements are kept; None keeps them for this process only.
        tells: Whether it tells the aggregators that are here. Servers do; an aggregator's children
            hear it from the servers, and take no push from their parent. What servers tell may have
            been signed long ago, so an aggregator takes the word of every operator there was.

    Raises:
        StorageError: When the journal holds what no operator signed.
    """

    def __init__(
        self, descriptor: TrustedDescriptor, journal: Journal | None = None, *, tells: bool = True
    ) -> None:
        self._tells = tells
        self._descriptor = descriptor
        self._journal = journal
        self.book = RevokedBook()
        self._running: set[asyncio.Task[None]] = set()
        self._sessions: Callable[[], Iterable[Session]] = tuple
        self._shown_by: Callable[[Session], Capability | None] = lambda _session: None
        self._links: Callable[[], Mapping[PeerId, PersistentLink]] = dict
        self._on_enforced: Callable[[Revocation], None] = lambda _revocation: None
        for statement in () if journal is None else journal.entries():
            try:
                known = open_by_operators(statement, descriptor, ever=True)
                self.book.add(known, statement)
            except (RemoteProtocolError, VerificationError) as error:
                raise StorageError(
                    "the journal of revocations holds a statement that does not verify",
                    hint="remove it: the committee's log says again what was revoked",
                ) from error

    def open(self, statement: bytes) -> Revocation:
        """Check a statement.

        Raises:
            RemoteProtocolError: It is no statement of this group.
            VerificationError: Nobody entitled signed it.
        """
        return open_by_operators(statement, self._descriptor, ever=not self._tells)

    def use_descriptor(self, descriptor: TrustedDescriptor) -> None:
        """Go by a later version of the descriptor."""
        self._descriptor = descriptor

    def refusal(self, facts: HelloFacts) -> AdmissionError | None:
        """Return the refusal of a peer that was revoked."""
        if not self.book.has_peer(facts.peer_id):
            return None
        return AdmissionError("this peer was revoked", code="revoked")

    def bind(
        self,
        *,
        sessions: Callable[[], Iterable[Session]],
        shown_by: Callable[[Session], Capability | None],
        links: Callable[[], Mapping[PeerId, PersistentLink]],
        on_enforced: Callable[[Revocation], None],
    ) -> None:
        """Say what there is to cut off, and cut the links to whom a restart found revoked.

        Args:
            sessions: This node's live sessions.
            shown_by: The capability a session showed.
            links: The links this node keeps up, by the far node's peer id.
            on_enforced: Told of each new revocation, once.
        """
        self._sessions, self._shown_by = sessions, shown_by
        self._links, self._on_enforced = links, on_enforced
        self._cut()

    async def enforce(self, revocation: Revocation, statement: bytes) -> bool:
        """Cut off, then keep, what a checked statement names; False when that was done before.

        Raises:
            SafeMode: When it could not be made durable.
        """
        if not self.book.add(revocation, statement):
            return False
        if self._tells:
            self._tell(statement)
        self._cut()
        self._on_enforced(revocation)
        # A client may be meant: which one stays out of the log.
        _log.warning("principal_revoked", mode=revocation.kind.name.lower())
        if self._journal is not None:
            await asyncio.to_thread(self._journal.append, statement)
        return True

    def _cut(self) -> None:
        book = self.book
        for session in self._sessions():
            if book.has_peer(session.peer.peer_id) or book.has_capability(self._shown_by(session)):
                self._begin(session.close(code=CloseCode.REFUSED, reason="revoked"))
        for peer, link in self._links().items():
            if book.has_peer(peer):
                self._begin(link.cut())

    def _tell(self, statement: bytes) -> None:
        """Push a statement to the aggregators that are here; who comes later gets it then."""
        for kind, payload in pushes_of([statement]):
            for session in self._sessions():
                if session.peer.role is Role.AGGREGATOR:
                    self._begin(_push(session, kind, payload))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


async def _push(session: Session, kind: Kind, payload: bytes) -> None:
    with contextlib.suppress(TransportError):
        await session.push(kind, payload)


def pushes_of(statements: Sequence[bytes]) -> list[tuple[Kind, bytes]]:
    """Return the pushes that tell an aggregator of these statements."""
    size = MAX_STATEMENTS_PER_PUSH
    pages = (statements[start : start + size] for start in range(0, len(statements), size))
    return [(Kind.REVOKED, encode(Revoked(statements=list(page)))) for page in pages]

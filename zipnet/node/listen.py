"""The listening half of a node: both transports on one port, handshakes, and who is connected.

protocol.md §7. A connection becomes a session only after the handshake; the session is then handed
to the handler of its role, which serves it until it ends.

Rules:

1. The descriptor decides who is a server or an aggregator. Clients and readers come in where the
   node has a handler for them and its ``admit`` callback agrees.
2. One identity has one live session in each role. The same process (same boot id) replaces its
   own. Another process is told ``identity_busy`` while the older session is asked whether it is
   still there; if it answers, the next attempt is refused as ``duplicate_identity``, for good.
3. Handshakes in progress and sessions are capped, and the handshakes of one network prefix in each
   second; at twice that number its connections are closed before any work is done. Whoever showed
   a registered node's certificate is not counted with its neighbours, and committee and
   aggregators are not kept out by the cap on sessions.
4. ``close`` stops listening, ends all sessions and waits for them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zipnet.access.bounds import DEFAULT_BOUNDS
from zipnet.access.principal import prefix_of
from zipnet.access.quota import TokenBuckets
from zipnet.errors import (
    AdmissionError,
    ConfigError,
    DuplicateIdentityError,
    RemoteProtocolError,
    SlowPeerError,
    TransportError,
    ZipnetError,
)
from zipnet.node.wall import is_auth_failure
from zipnet.observe.log import get_logger
from zipnet.transport.dial import refusal_code
from zipnet.transport.quic import QuicTransport
from zipnet.transport.session import Role, accept
from zipnet.transport.tls import TlsTransport
from zipnet.wire.frames import CloseCode

if TYPE_CHECKING:
    from zipnet.access.bounds import WallBounds
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.ports import Connection, Listener, Transport
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.ids import PeerId
    from zipnet.transport.session import HelloFacts, Session, SessionTerms

__all__ = ["DEFAULT_LISTEN_LIMITS", "ListenLimits", "NodeListener", "SessionHandler"]

SessionHandler = Callable[["Session"], Awaitable[None]]
"""Serves one session and returns when it has ended."""

_NODE_ROLES = frozenset({Role.SERVER, Role.AGGREGATOR})
_PORT_ATTEMPTS = 16

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ListenLimits:
    """Bounds of a listening node.

    Attributes:
        max_handshakes: Handshakes in progress at once.
        max_sessions: Sessions of clients and readers at once.
        handshake_deadline_s: Time for one handshake.
        ping_timeout_s: Time an older session of one identity has to show it is there.
        busy_retry_s: When a process that met ``identity_busy`` may come back.
        handshakes_per_s: Handshakes one network prefix may begin in a second.
        handshake_burst: How many of them it may save up.
        prefixes: Prefixes counted apart at once.
    """

    max_handshakes: int = 64
    max_sessions: int = 4096
    handshake_deadline_s: float = 5.0
    ping_timeout_s: float = 1.0
    busy_retry_s: float = 0.25
    handshakes_per_s: float = DEFAULT_BOUNDS.handshakes_per_s
    handshake_burst: int = DEFAULT_BOUNDS.handshake_burst
    prefixes: int = DEFAULT_BOUNDS.principals

    @classmethod
    def of(cls, bounds: WallBounds) -> ListenLimits:
        """Return the limits that go with a wall's bounds."""
        return cls(
            max_handshakes=bounds.handshakes,
            max_sessions=bounds.sessions,
            handshake_deadline_s=bounds.first_bytes_s,
            handshakes_per_s=bounds.handshakes_per_s,
            handshake_burst=bounds.handshake_burst,
            prefixes=bounds.principals,
        )


DEFAULT_LISTEN_LIMITS = ListenLimits()

_Key = tuple["PeerId", Role]


class NodeListener:
    """Listens for a node and keeps the table of its live sessions.

    Args:
        terms: What this node says in handshakes; its identity owns the transports' certificate.
        descriptor: Decides who is a server or an aggregator.
        handlers: Serves the sessions of each role; a role without handler is refused.
        metrics: Where refusals are counted.
        admit: Further say about clients and readers: an error refuses.
        barred: The refusal of a peer of whatever role that may not come in; None lets it.
        unserved: The refusal for a role without handler; ``not_registered`` when None.
        limits: Bounds.
        on_refused: Told the reason of every admission refused and every bond dropped.
    """

    def __init__(  # noqa: PLR0913 - who may come in has four sides
        self,
        *,
        terms: SessionTerms,
        descriptor: TrustedDescriptor,
        handlers: Mapping[Role, SessionHandler],
        metrics: NodeMetrics,
        admit: Callable[[HelloFacts], ZipnetError | None] | None = None,
        barred: Callable[[HelloFacts], ZipnetError | None] | None = None,
        unserved: Callable[[Role], ZipnetError] | None = None,
        limits: ListenLimits = DEFAULT_LISTEN_LIMITS,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        self._terms = terms
        self._descriptor = descriptor
        self._handlers = handlers
        self._metrics = metrics
        self._admit_others = admit
        self._barred = barred
        self._unserved = unserved
        self._limits = limits
        self._on_refused = on_refused
        self._listeners: list[Listener] = []
        self._sessions: dict[_Key, Session] = {}
        self._anonymous: set[Session] = set()
        self._confirmed: dict[_Key, Session] = {}
        self._probes: dict[_Key, asyncio.Task[None]] = {}
        self._handshakes = 0
        rate, burst, most = limits.handshakes_per_s, limits.handshake_burst, limits.prefixes
        self._by_prefix = TokenBuckets(rate=rate, burst=burst, most=most)
        self._begun_by_prefix = TokenBuckets(rate=2 * rate, burst=2 * burst, most=most)

    # -- what the node may ask -------------------------------------------------------------

    def session_of(self, peer: PeerId, role: Role) -> Session | None:
        """Return the live session of an identity in a role."""
        return self._sessions.get((peer, role))

    def sessions(self, role: Role | None = None) -> tuple[Session, ...]:
        """Return all live sessions, or those of one role."""
        live = (*self._sessions.values(), *self._anonymous)
        return tuple(s for s in live if role is None or s.peer.role is role)

    def use_descriptor(self, descriptor: TrustedDescriptor) -> tuple[Session, ...]:
        """Go by a later version of the descriptor; returns sessions of nodes it no longer has."""
        self._descriptor = descriptor
        return tuple(session for session in self._sessions.values() if self._is_out(session))

    def _is_out(self, session: Session) -> bool:
        peer, role = session.peer.peer_id, session.peer.role
        return role in _NODE_ROLES and (peer is None or not self._is_node(peer, role))

    # -- listening -------------------------------------------------------------------------

    async def start(self, host: str, port: int, transports: Sequence[Transport]) -> int:
        """Listen with every transport on one port and return it; 0 picks one free for all.

        Raises:
            ConfigError: When the port is taken or the address is not this machine's.
        """
        for attempt in range(_PORT_ATTEMPTS):
            try:
                return await self._bind_all(host, port, transports)
            except TransportError as error:
                await self._close_listeners()
                if port != 0 or attempt == _PORT_ATTEMPTS - 1:
                    raise ConfigError(
                        f"cannot listen on {host}:{port}: {error}",
                        hint="choose a free port with --listen, or stop the other process",
                    ) from error
        raise AssertionError("unreachable")

    async def _bind_all(self, host: str, port: int, transports: Sequence[Transport]) -> int:
        bound = port
        for transport in transports:
            if isinstance(transport, QuicTransport | TlsTransport):
                transport.may_begin = self._may_begin
            listener = await transport.listen(host, bound, self._on_connection)
            self._listeners.append(listener)
            bound = listener.port
        return bound

    async def close(self) -> None:
        """Stop listening, end every session, and wait until that is done."""
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        await self._close_listeners()

    async def _close_listeners(self) -> None:
        listeners, self._listeners = self._listeners, []
        await asyncio.gather(*(listener.close() for listener in listeners))

    # -- one connection --------------------------------------------------------------------

    async def _on_connection(self, connection: Connection) -> None:
        busy = self._too_busy_for(connection)
        if busy is not None:
            self._count_refused(busy)
            await connection.close(code=CloseCode.OVERLOADED, reason=busy)
            return
        self._handshakes += 1
        try:
            session = await accept(
                connection,
                self._terms,
                self._admit,
                deadline_s=self._limits.handshake_deadline_s,
            )
        except ZipnetError as error:
            self._count_refused(_reason_of(error))
            _log.info("peer_refused", reason=_reason_of(error), error=str(error))
            return
        finally:
            self._handshakes -= 1
        await self._run(session)

    def _may_begin(self, host: str) -> bool:
        """Whether a connection is worth a handshake of its transport, before it is known whose."""
        if not self._begun_by_prefix.take(prefix_of(host), 1, time.monotonic()):
            return True
        self._count_refused("too_many_handshakes")
        return False

    def _too_busy_for(self, connection: Connection) -> str | None:
        """Why a connection is not even asked who it is; None where it is."""
        if connection.peer_certificate.public_key is None:
            prefix = prefix_of(connection.remote_address)
            if self._by_prefix.take(prefix, 1, time.monotonic()):
                return "too_many_handshakes"
        if self._handshakes >= self._limits.max_handshakes:
            return "overloaded"
        return None

    def _count_refused(self, reason: str) -> None:
        self._metrics.rejected.inc(reason)
        if is_auth_failure(reason):
            self._metrics.auth_failures.inc("handshake")
        if self._on_refused is not None:
            self._on_refused(reason)

    async def _run(self, session: Session) -> None:
        if self._is_out(session):  # a version came during its handshake
            await session.close(code=CloseCode.REFUSED, reason="not_registered")
            return
        replaced = self._enter(session)
        if replaced is session:  # another process was faster between admission and here
            await session.close(code=CloseCode.REFUSED, reason="duplicate_identity")
            return
        try:
            if replaced is not None:
                await replaced.close(code=CloseCode.NORMAL)
            await self._handlers[session.peer.role](session)
        finally:
            self._leave(session)
            self._note_dropped(session)
            await session.close()

    def _note_dropped(self, session: Session) -> None:
        """Count a link the peer lost: by breaking the rules, or with its evidence."""
        ended = session.ended_by
        if isinstance(ended, RemoteProtocolError | SlowPeerError):
            self._count_refused(_reason_of(ended))
            _log.info("peer_refused", reason=_reason_of(ended), error=str(ended))
        if isinstance(ended, AdmissionError):
            self._count_refused(ended.code)
            _log.warning("bond_dropped", reason=ended.code, error=str(ended))

    def _enter(self, session: Session) -> Session | None:
        """Put a session into the table; returns the one it replaces, or itself when it may not."""
        peer = session.peer
        if peer.peer_id is None:
            self._anonymous.add(session)
            return None
        key = (peer.peer_id, peer.role)
        older = self._sessions.get(key)
        if older is not None and _is_live(older) and older.peer.boot_id != peer.boot_id:
            return session
        self._sessions[key] = session
        return older

    def _leave(self, session: Session) -> None:
        peer = session.peer
        self._anonymous.discard(session)
        if peer.peer_id is not None and self._sessions.get((peer.peer_id, peer.role)) is session:
            del self._sessions[peer.peer_id, peer.role]
            self._confirmed.pop((peer.peer_id, peer.role), None)

    # -- admission -------------------------------------------------------------------------

    def _admit(self, facts: HelloFacts) -> ZipnetError | None:
        barred = None if self._barred is None else self._barred(facts)
        refusal = barred or self._admit_role(facts)
        if refusal is None and facts.peer_id is not None:
            refusal = self._admit_single((facts.peer_id, facts.role), facts.boot_id)
        return refusal

    def _admit_role(self, facts: HelloFacts) -> ZipnetError | None:
        if facts.role not in self._handlers:
            if self._unserved is not None:
                return self._unserved(facts.role)
            return AdmissionError(
                f"this node serves no peer in the role {facts.role.value}", code="not_registered"
            )
        if facts.role in _NODE_ROLES:
            return self._admit_node(facts)
        others = len(self._anonymous) + len(self._sessions)
        if others >= self._limits.max_sessions:
            return AdmissionError(
                "this node has all the sessions it takes", code="overloaded", retry_after=2.0
            )
        return self._admit_others(facts) if self._admit_others is not None else None

    def _admit_node(self, facts: HelloFacts) -> ZipnetError | None:
        peer = facts.peer_id
        if peer is not None and self._is_node(peer, facts.role):
            return None
        return AdmissionError(
            f"the descriptor registers no such {facts.role.value}", code="not_registered"
        )

    def _is_node(self, peer: PeerId, role: Role) -> bool:
        if role is Role.SERVER:
            return self._descriptor.server_index(peer) is not None
        return self._descriptor.aggregator(peer) is not None

    def _admit_single(self, key: _Key, boot_id: bytes) -> ZipnetError | None:
        """Rule 2: one live session for an identity in a role."""
        older = self._sessions.get(key)
        if older is None or not _is_live(older) or older.peer.boot_id == boot_id:
            return None
        confirmed = self._confirmed.get(key) is older
        self._probe(key, older)
        if confirmed:
            return DuplicateIdentityError("another live process uses this identity")
        return AdmissionError(
            "another process used this identity a moment ago; asking whether it still does",
            code="identity_busy",
            retry_after=self._limits.busy_retry_s,
        )

    def _probe(self, key: _Key, session: Session) -> None:
        """Ask a session, in a task of its own, whether its peer is there; end it if not."""
        if key in self._probes:
            return
        task = asyncio.get_running_loop().create_task(self._ask(key, session))
        self._probes[key] = task
        task.add_done_callback(lambda _: self._probes.pop(key, None))

    async def _ask(self, key: _Key, session: Session) -> None:
        self._confirmed.pop(key, None)
        if await session.alive(self._limits.ping_timeout_s):
            if self._sessions.get(key) is session:
                self._confirmed[key] = session
        else:
            await session.close(code=CloseCode.IDLE, reason="no answer to a ping")


def _reason_of(error: ZipnetError) -> str:
    """Return the code of a refusal; a broken rule of the wire has the name of its close code."""
    if not isinstance(error, RemoteProtocolError):
        return refusal_code(error)
    try:
        return CloseCode(error.code).name.lower()
    except ValueError:
        return error.reason


def _is_live(session: Session) -> bool:
    return session.ended_by is None

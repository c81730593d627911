"""The wall: Auth → Policy → Quota → Handler, the one way to every handler of a node (row A5).

Every frame of a session, every HTTP request and every admin call goes through
:meth:`Wall.pass_through`. Used like this::

    wall = Wall(Service.SERVER, WallParts(metrics, capabilities=capabilities))
    routes = wall.routes({Kind.GET_RECORDS: get_records, ...})   # raises without a policy
    ...
    await session.serve(routes.handler(session))

Rules:

1. Auth: the caller is who the handshake or the kernel proved, and is not revoked. Policy: the table
   names the route, this kind of caller, this form and size, and the capability is there. Quota: of
   the principal, of its network prefix, and of the node. Only then the handler runs, for so long.
2. A route without a policy cannot be registered: the node does not start.
3. A refusal is an :class:`~zipnet.errors.AdmissionError` of the table in ``zipnet.access.refusal``;
   it is counted here, once, and says nothing about the node.
4. Committee servers' pushes are neither metered nor shed (``zipnet.access.policy``, rule 4).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from zipnet.access.bounds import DEFAULT_BOUNDS, WallBounds
from zipnet.access.policy import POLICIES, UNKNOWN_ROUTE, RouteId, RoutePolicy, Service, route_name
from zipnet.access.principal import Principal, PrincipalKind, peer_principal
from zipnet.access.quota import TokenBuckets
from zipnet.access.refusal import AUTH_CODES, refusal
from zipnet.access.shedding import Load
from zipnet.errors import AdmissionError, LocalProtocolError
from zipnet.node.request_log import SILENT, RequestLog
from zipnet.wire.limits import DEFAULT_LIMITS, Limits
from zipnet.wire.messages import Message, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zipnet.node.capabilities import SessionCapabilities
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.protocol.ids import PeerId
    from zipnet.transport.session import Session
    from zipnet.wire.frames import Frame

__all__ = ["RouteHandler", "SessionRoutes", "Wall", "WallParts", "is_auth_failure", "link_limits"]

RouteHandler = Callable[["Session", bytes], Awaitable[Message | None]]
"""Answers a request of a session (its payload), or takes a push and returns None."""

FrameHandler = Callable[["Frame"], Awaitable["Frame | None"]]

_T = TypeVar("_T")
_RESERVE_S = 4.0


_NODES: Final = frozenset({PrincipalKind.SERVER, PrincipalKind.AGGREGATOR})
_NO_FACTS: Final[Mapping[str, str]] = MappingProxyType({})


def _nobody(_peer: PeerId | None) -> bool:
    return False


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class WallParts:
    """What a wall works with.

    Attributes:
        metrics: Where refusals and times are counted.
        bounds: How much callers may have.
        capabilities: What sessions showed; None where nothing asks for a capability.
        is_revoked: Whether a peer was revoked.
        monotonic: Seconds that only go forward.
        requests: Where requests of nodes and operators are noted.
    """

    metrics: NodeMetrics
    bounds: WallBounds = DEFAULT_BOUNDS
    capabilities: SessionCapabilities | None = None
    is_revoked: Callable[[PeerId | None], bool] = _nobody
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False)
    requests: RequestLog = field(default=SILENT, repr=False)


def link_limits(bounds: WallBounds) -> Limits:
    """Return the limits of each link that go with a wall's bounds."""
    return replace(
        DEFAULT_LIMITS,
        max_frame_bytes=bounds.body_bytes,
        chunk_bytes=bounds.chunk_bytes,
        handshake_deadline_s=bounds.first_bytes_s,
        request_deadline_s=bounds.request_s,
        min_bytes_per_s=bounds.min_bytes_per_s,
        slow_grace_s=bounds.slow_grace_s,
        idle_timeout_s=bounds.idle_s,
        max_in_flight=bounds.in_flight,
    )


def is_auth_failure(code: str) -> bool:
    """Whether a refusal means that the caller is not who it must be."""
    return code in AUTH_CODES or code.startswith("capability_")


class Wall:
    """What stands before the handlers of one service.

    Args:
        service: Whose table of policies applies.
        parts: What it works with.
    """

    def __init__(self, service: Service, parts: WallParts) -> None:
        bounds = parts.bounds
        self.service = service
        self.parts = parts
        self.load = Load(most=bounds.total_in_flight, most_bytes=bounds.total_bytes)
        self._own = _buckets(bounds.requests_per_s, bounds.requests_per_s, bounds)
        self._committee = _buckets(bounds.committee_per_s, bounds.committee_per_s, bounds)
        self._reserve = _buckets(bounds.reserve_per_s, _RESERVE_S * bounds.reserve_per_s, bounds)
        self._prefixes = _buckets(bounds.prefix_per_s, bounds.prefix_burst, bounds)

    def require(self, routes: Iterable[RouteId]) -> None:
        """Refuse routes that no policy speaks of (rule 2).

        Raises:
            LocalProtocolError: Names the first.
        """
        for route in routes:
            if route not in POLICIES[self.service]:
                raise LocalProtocolError(
                    f"route {route_name(route)} of service {self.service} has no policy"
                )

    def routes(self, table: Mapping[int, RouteHandler]) -> SessionRoutes:
        """Return the routes of this service's sessions, behind this wall.

        Raises:
            LocalProtocolError: When one has no policy.
        """
        self.require(table)
        return SessionRoutes(self, table)

    async def pass_through(
        self,
        principal: Principal,
        route: RouteId,
        size: int,
        handler: Callable[[], Awaitable[_T]],
        *,
        push: bool = False,
        authorize: Callable[[], None] = _nothing,
        facts: Mapping[str, str] = _NO_FACTS,
    ) -> _T:
        """Let one request through to its handler, or refuse it.

        Args:
            principal: Who asks, as proved.
            route: What for.
            size: Bytes of its payload.
            handler: What to do.
            push: Whether it is a frame that nobody answers.
            authorize: Raises where a capability that is asked for is missing.
            facts: What the log may say of a node that asks, besides its route.

        Raises:
            AdmissionError: When it is refused, here or by the handler.
        """
        try:
            if push:
                return await self._admit(principal, route, size, handler, authorize, push=True)
            name, log = route_name(route), self.parts.requests
            with log.noting(principal.kind, self.service.value, name, facts):
                return await self._admit(principal, route, size, handler, authorize, push=False)
        except AdmissionError as error:
            self.count(error.code)
            raise

    async def _admit(
        self,
        principal: Principal,
        route: RouteId,
        size: int,
        handler: Callable[[], Awaitable[_T]],
        authorize: Callable[[], None],
        *,
        push: bool,
    ) -> _T:
        self._authenticate(principal)
        policy = self._policy(principal, route, size, push=push)
        authorize()
        self._charge(principal, policy)
        return await self._run(route, policy, size, handler)

    def count(self, code: str) -> None:
        """Count a refusal."""
        metrics = self.parts.metrics
        metrics.rejected.inc(code)
        if is_auth_failure(code):
            metrics.auth_failures.inc(self.service.value)

    def _authenticate(self, principal: Principal) -> None:
        if principal.peer is not None and self.parts.is_revoked(principal.peer):
            raise refusal("revoked")

    def _policy(
        self, principal: Principal, route: RouteId, size: int, *, push: bool
    ) -> RoutePolicy:
        policy = POLICIES[self.service].get(route)
        if policy is None and route_name(route) == UNKNOWN_ROUTE:
            self.parts.metrics.unknown_kind.inc()
        if policy is None or principal.kind not in policy.kinds or policy.push is not push:
            raise refusal("not_allowed")
        most = self.parts.bounds.body_bytes if policy.max_bytes is None else policy.max_bytes
        if size > most:
            raise refusal("too_large")
        return policy

    def _charge(self, principal: Principal, policy: RoutePolicy) -> None:
        if self.load.sheds(policy.rank):
            raise refusal("shed")
        if policy.cost == 0:
            return
        now = self.parts.monotonic()
        among_committee = principal.kind is PrincipalKind.SERVER
        own = self._committee if among_committee else self._own
        wait_s = own.take(principal.key, policy.cost, now)
        if wait_s:
            # Who has no name shares its network's; nobody is told what others have left of it.
            nameless = principal.peer is None and principal.prefix is not None
            raise refusal("rate_limited", retry_after=None if nameless else wait_s)
        if principal.prefix is None:
            return
        if principal.peer is not None and not self._reserve.take(principal.key, policy.cost, now):
            return
        if self._prefixes.take(principal.prefix, policy.cost, now):
            raise refusal("prefix_limited")

    async def _run(
        self,
        route: RouteId,
        policy: RoutePolicy,
        size: int,
        handler: Callable[[], Awaitable[_T]],
    ) -> _T:
        began = time.perf_counter()
        self.load.enter(size)
        limit_s = None if policy.lasting or policy.push else self.parts.bounds.request_s
        scope = asyncio.timeout(limit_s)
        try:
            async with scope:
                answer = await handler()
        except TimeoutError:
            if not scope.expired():
                raise
            raise refusal("timeout") from None
        finally:
            self.load.leave(size)
            self.parts.metrics.request_took(route_name(route), time.perf_counter() - began)
        return answer


class SessionRoutes:
    """The routes of a service's sessions: made by :meth:`Wall.routes`.

    Args:
        wall: What stands before them.
        table: Frame kind → handler.
    """

    def __init__(self, wall: Wall, table: Mapping[int, RouteHandler]) -> None:
        self._wall = wall
        self._table = dict(table)

    @property
    def kinds(self) -> frozenset[int]:
        """Frame kinds with a handler."""
        return frozenset(self._table)

    def handler(self, session: Session) -> FrameHandler:
        """Return what takes a session's frames; its requests over the link's bound count here too.

        The principal is what the handshake proved, and the address it came from then.
        """
        peer = session.peer
        principal = peer_principal(peer.role, peer.peer_id, peer.remote_address)
        session.on_overload = lambda: self._wall.count("overloaded")

        async def handle(frame: Frame) -> Frame | None:
            return await self._handle(session, principal, frame)

        return handle

    def _facts(self, session: Session, principal: Principal) -> Mapping[str, str]:
        """Return what the log may say of a node: its address, and which capability it showed."""
        if principal.kind not in _NODES:
            return _NO_FACTS
        capabilities = self._wall.parts.capabilities
        shown = None if capabilities is None else capabilities.shown_by(session)
        capability = {} if shown is None else {"capability_id": shown.ids[-1].hex()[:16]}
        return {"peer_addr": session.peer.remote_address, **capability}

    async def _handle(self, session: Session, principal: Principal, frame: Frame) -> Frame | None:
        route = self._table.get(frame.kind)
        capabilities = self._wall.parts.capabilities

        def authorize() -> None:
            if capabilities is not None:
                capabilities.check(session, frame.kind)

        async def run() -> Message | None:
            if route is None:
                raise refusal("not_allowed")
            return await route(session, frame.payload)

        answer = await self._wall.pass_through(
            principal,
            frame.kind,
            len(frame.payload),
            run,
            push=frame.request_id == 0,
            authorize=authorize,
            facts=self._facts(session, principal),
        )
        return None if answer is None else frame.answer(frame.kind, encode(answer))


def _buckets(rate: float, burst: float, bounds: WallBounds) -> TokenBuckets:
    return TokenBuckets(rate=rate, burst=burst, most=bounds.principals)

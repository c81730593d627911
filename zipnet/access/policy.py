"""The table of all routes: who may use which, at what cost, and what goes first (rows A5, M4).

One entry for each request, push, HTTP path and admin verb of each service. What is not in the table
is refused; a node that serves a route without an entry does not start
(``zipnet.node.wall.Wall.require``), and the suite fails.

Rules:

1. The kinds of callers are what a handshake or the kernel proved.
2. Which capability a route asks for, where a deployment asks for any, is in
   :data:`zipnet.access.terms.GATED` and :data:`zipnet.access.verbs.VERBS`.
3. ``rank`` is the order of shedding; control planes come last and are never shed.
4. What a committee server pushes is neither metered nor shed: it proved the committee's secret, a
   push cannot be refused without ending the link, and back-pressure bounds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zipnet.access.principal import PrincipalKind
from zipnet.access.shedding import Rank
from zipnet.access.verbs import VERBS
from zipnet.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "POLICIES",
    "UNKNOWN_ROUTE",
    "RouteId",
    "RoutePolicy",
    "Service",
    "policy_of",
    "route_name",
]

UNKNOWN_ROUTE: Final = "unknown"
"""Name of every frame kind that is none of ours."""

RouteId = int | str
"""Frame kind, ``METHOD /path`` or verb."""


class Service(StrEnum):
    """What listens; each has its own table."""

    SERVER = "server"
    SAFE_MODE = "safe_mode"
    AGGREGATOR = "aggregator"
    UPSTREAM = "upstream"
    HTTP = "http"
    GATEWAY = "gateway"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What a route asks of its callers.

    Attributes:
        kinds: Callers that may use it.
        rank: What it is worth when there is too much at once.
        cost: Tokens it costs; 0 is not metered.
        push: Whether it is a push, which is not answered, rather than a request.
        max_bytes: Largest payload; None for the node's own bound.
        query: Names of the parameters its query may have; HTTP only.
        lasting: Whether the answer may stream for as long as the caller likes.
    """

    kinds: frozenset[PrincipalKind]
    rank: Rank
    cost: int = 1
    push: bool = False
    max_bytes: int | None = None
    query: frozenset[str] = frozenset()
    lasting: bool = False


_SERVER = frozenset({PrincipalKind.SERVER})
_AGGREGATOR = frozenset({PrincipalKind.AGGREGATOR})
_CLIENT = frozenset({PrincipalKind.CLIENT})
_NODES = _SERVER | _AGGREGATOR
_FOLLOWERS = _AGGREGATOR | _CLIENT | {PrincipalKind.READER}
_ALL = _FOLLOWERS | _SERVER
_WEB = frozenset({PrincipalKind.WEB})
_OPERATOR = frozenset({PrincipalKind.OPERATOR})

_SMALL: Final = 256
_TOKEN_BYTES: Final = 16 * 1024
_PUBLISH_BYTES: Final = 3 * 1024 * 1024

_FOLLOW = RoutePolicy(_FOLLOWERS, Rank.READING, cost=2, max_bytes=_SMALL)
_SHOW_TOKEN = RoutePolicy(_FOLLOWERS, Rank.PUBLISHING, cost=10, max_bytes=_TOKEN_BYTES)
_READ = RoutePolicy(_ALL, Rank.READING, cost=2, max_bytes=_SMALL)
_COMMITTEE_PUSH = RoutePolicy(_SERVER, Rank.CONTROL, cost=0, push=True)
_COMMITTEE_ASKS = RoutePolicy(_SERVER, Rank.CONTROL)
_AGGREGATE = RoutePolicy(_AGGREGATOR, Rank.RELAYING)
_LOOK = RoutePolicy(_WEB, Rank.CONTROL, max_bytes=0)
_BROWSE = RoutePolicy(_WEB, Rank.READING, max_bytes=0)
_PAGES = RoutePolicy(
    _WEB, Rank.READING, cost=2, max_bytes=0, query=frozenset({"from", "limit"}), lasting=True
)

_SERVER_ROUTES: Final[dict[RouteId, RoutePolicy]] = {
    Kind.SUBSCRIBE: _FOLLOW,
    Kind.PRESENT_CAPABILITY: _SHOW_TOKEN,
    Kind.GET_RECORDS: _READ,
    Kind.GET_CHECKPOINT: RoutePolicy(_ALL, Rank.READING, cost=20, max_bytes=_SMALL),
    Kind.GET_CROWD: _READ,
    Kind.GET_DESCRIPTOR: _READ,
    Kind.GET_KEM_KEYS: RoutePolicy(_CLIENT, Rank.PUBLISHING, cost=2, max_bytes=_SMALL),
    Kind.REGISTER: RoutePolicy(_CLIENT, Rank.PUBLISHING, cost=2),
    Kind.GET_REGISTRY: RoutePolicy(_NODES, Rank.RELAYING),
    Kind.SUBMIT_AGGREGATE: _AGGREGATE,
    Kind.GET_CLOCK: _COMMITTEE_ASKS,
    Kind.GET_VERSION: _COMMITTEE_ASKS,
    Kind.GET_KEM_EVIDENCE: _COMMITTEE_ASKS,
    Kind.GET_BLOB: _COMMITTEE_ASKS,
    Kind.SEAT: _COMMITTEE_ASKS,
    Kind.PUT_BLOB: _COMMITTEE_PUSH,
    Kind.REVOKED: _COMMITTEE_PUSH,
    Kind.CONSENSUS: _COMMITTEE_PUSH,
}

_SAFE_MODE_ROUTES: Final[dict[RouteId, RoutePolicy]] = {
    Kind.SUBSCRIBE: RoutePolicy(frozenset({PrincipalKind.READER}), Rank.READING, cost=2),
    Kind.GET_RECORDS: RoutePolicy(frozenset({PrincipalKind.READER}), Rank.READING, cost=2),
}

_AGGREGATOR_ROUTES: Final[dict[RouteId, RoutePolicy]] = {
    Kind.SUBSCRIBE: _FOLLOW,
    Kind.PRESENT_CAPABILITY: _SHOW_TOKEN,
    Kind.GET_RECORDS: _READ,
    Kind.GET_DESCRIPTOR: _READ,
    Kind.SUBMIT_ENVELOPE: RoutePolicy(_CLIENT, Rank.PUBLISHING),
    Kind.SUBMIT_AGGREGATE: _AGGREGATE,
}

# What an aggregator takes from the servers it dialled.
_UPSTREAM_ROUTES: Final[dict[RouteId, RoutePolicy]] = {
    Kind.ROUND_OPENED: _COMMITTEE_PUSH,
    Kind.RECORD_SEALED: _COMMITTEE_PUSH,
    Kind.ROUND_ABORTED: _COMMITTEE_PUSH,
    Kind.VERSION_ADOPTED: _COMMITTEE_PUSH,
    Kind.REVOKED: _COMMITTEE_PUSH,
}

_HTTP_ROUTES: Final[dict[RouteId, RoutePolicy]] = {
    "GET /healthz": _LOOK,
    "GET /readyz": _LOOK,
    "GET /version": _LOOK,
    "GET /metrics": RoutePolicy(_WEB, Rank.CONTROL, cost=5, max_bytes=0),
}

_GATEWAY_ROUTES: Final[dict[RouteId, RoutePolicy]] = {
    "GET /": RoutePolicy(_WEB, Rank.READING, cost=5, max_bytes=0),
    "GET /healthz": _LOOK,
    "GET /readyz": _LOOK,
    "GET /openapi.json": _BROWSE,
    "GET /v1/broadcasts": _PAGES,
    "GET /v1/rounds": _PAGES,
    "GET /v1/status": _BROWSE,
    # It answers once a record holds the message, or when its own deadline has passed.
    "POST /v1/publish": RoutePolicy(
        _WEB, Rank.PUBLISHING, cost=10, max_bytes=_PUBLISH_BYTES, lasting=True
    ),
}

_ADMIN_ROUTES: Final[dict[RouteId, RoutePolicy]] = {
    verb: RoutePolicy(_OPERATOR, Rank.CONTROL, cost=1, lasting=True) for verb in VERBS
}

POLICIES: Final[Mapping[Service, Mapping[RouteId, RoutePolicy]]] = MappingProxyType(
    {
        Service.SERVER: MappingProxyType(_SERVER_ROUTES),
        Service.SAFE_MODE: MappingProxyType(_SAFE_MODE_ROUTES),
        Service.AGGREGATOR: MappingProxyType(_AGGREGATOR_ROUTES),
        Service.UPSTREAM: MappingProxyType(_UPSTREAM_ROUTES),
        Service.HTTP: MappingProxyType(_HTTP_ROUTES),
        Service.GATEWAY: MappingProxyType(_GATEWAY_ROUTES),
        Service.ADMIN: MappingProxyType(_ADMIN_ROUTES),
    }
)
"""Service → route → what it asks for."""


def policy_of(service: Service, route: RouteId) -> RoutePolicy | None:
    """Return what a route asks for; None where there is no such route."""
    return POLICIES[service].get(route)


def route_name(route: RouteId) -> str:
    """Return a route's name for metrics: lower case, of a bounded set."""
    if isinstance(route, str):
        return route
    try:
        return Kind(route).name.lower()
    except ValueError:
        return UNKNOWN_ROUTE

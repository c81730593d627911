"""The wall before HTTP ports: health and metrics of a node, and the gateway (row A5).

The only way to make an application of routes here is :func:`walled_application`; it asks the table
of policies for each path and method.

Rules:

1. A caller is anonymous and counted under its network prefix; what a path asks besides, such as the
   gateway's names, is the handler's.
2. A refusal is JSON: ``{"error": code, "text": …}`` and, where waiting helps, ``retry_after`` and
   the header ``Retry-After``. A path that does not exist is refused like any other, with 404.
3. Requests that may last, such as one that publishes, take half of a port at most.
4. A body is bounded before a handler sees it, in bytes and in the time it may take; a parameter of
   the query that the route does not know is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from zipnet.access.policy import POLICIES
from zipnet.access.principal import Principal, PrincipalKind, prefix_of
from zipnet.access.refusal import refusal, retry_after_of, status_of
from zipnet.errors import AdmissionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from zipnet.node.wall import Wall

__all__ = ["HttpHandler", "refused_response", "walled_application"]

HttpHandler: TypeAlias = "Callable[[Request], Awaitable[Response]]"
"""Answers one request."""

_METHOD_NOT_ALLOWED: Final = 405
_NOT_FOUND: Final = 404
_BAD_LENGTH: Final = 1 << 62
"""Stands for a length that is no number: over every bound."""


def walled_application(
    wall: Wall, routes: Mapping[str, HttpHandler], *, headers: Mapping[str, str] | None = None
) -> Starlette:
    """Return an application whose every route stands behind a wall.

    Args:
        wall: The wall of the service.
        routes: ``METHOD /path`` → handler.
        headers: Put on every answer.

    Raises:
        LocalProtocolError: When a route has no policy.
    """
    wall.require(routes)
    # All requests in progress, and those of them that last.
    in_flight = {False: 0, True: 0}

    async def refuse(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else _NOT_FOUND
        wrong = "method" if status == _METHOD_NOT_ALLOWED else "not_served"
        wall.count(wrong)
        return finish(refused_response(refusal(wrong), status))

    def finish(answer: Response) -> Response:
        wall.parts.metrics.http_requests.inc(str(answer.status_code))
        answer.headers.update(headers or {})
        return answer

    def endpoint(route: str, handler: HttpHandler) -> HttpHandler:
        policy = POLICIES[wall.service][route]
        counted = (False, True) if policy.lasting else (False,)
        most = {False: wall.parts.bounds.in_flight, True: max(wall.parts.bounds.in_flight // 2, 1)}

        async def walled(request: Request) -> Response:
            for kind in counted:
                in_flight[kind] += 1
            try:
                if any(in_flight[kind] > most[kind] for kind in counted):
                    wall.count("overloaded")
                    raise refusal("overloaded")
                answer = await wall.pass_through(
                    _principal_of(request),
                    route,
                    _length_of(request),
                    lambda: handler(request),
                    authorize=lambda: _require_known(request, policy.query),
                )
            except AdmissionError as error:
                answer = refused_response(error)
            finally:
                for kind in counted:
                    in_flight[kind] -= 1
            return finish(answer)

        return walled

    found = []
    for route, handler in routes.items():
        method, _, path = route.partition(" ")
        found.append(Route(path, endpoint(route, handler), methods=[method]))
    application = Starlette(
        routes=found, exception_handlers={_NOT_FOUND: refuse, _METHOD_NOT_ALLOWED: refuse}
    )
    # It would answer for a path that is none of ours, and with whatever host the caller named.
    application.router.redirect_slashes = False
    return application


def refused_response(error: AdmissionError, status: int | None = None) -> Response:
    """Return a refusal as an HTTP answer (rule 2)."""
    body: dict[str, object] = {"error": error.code, "text": str(error)}
    headers = {}
    wait = retry_after_of(error)
    if wait is not None:
        body["retry_after"] = error.retry_after
        headers["Retry-After"] = wait
    return Response(
        msgspec.json.encode(body),
        status_of(error.code) if status is None else status,
        headers=headers,
        media_type="application/json",
    )


def _require_known(request: Request, known: frozenset[str]) -> None:
    if not known.issuperset(request.query_params.keys()):
        raise refusal("unknown_field")


def _principal_of(request: Request) -> Principal:
    prefix = prefix_of(request.client.host if request.client is not None else "")
    return Principal(PrincipalKind.WEB, key=f"{PrincipalKind.WEB}:{prefix}", prefix=prefix)


def _length_of(request: Request) -> int:
    """The length of the body as announced; one that is not counts as a byte, and as it arrives."""
    if "transfer-encoding" in request.headers:
        return 1
    text = request.headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else _BAD_LENGTH

"""The gateway's routes, and its life: follow the log, serve it, publish where that is allowed.

Rules:

1. What is served was verified here (row A6); what no server shows verified is answered with 502.
2. Only names of this gateway are served (``Host``), so that a page elsewhere cannot rebind a name
   to it; no answer lets other origins' scripts read it.
3. A bind beyond loopback needs :data:`ALLOW_PUBLIC_BIND`, publishing for others
   :data:`ALLOW_PUBLISHING_FOR_OTHERS`, word for word.
4. Followers are bounded in number, pages in length, bodies in bytes, requests in time.
5. Whoever waits while the gateway stops is answered: a message under way with what is known of it
   and the salt to ask again with, a page with what hinders it, followers by the end of the stream.

Long because it is the table of the gateway's routes, each with its answer and its refusals.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Self

import msgspec
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from zipnet.access.bounds import DEFAULT_BOUNDS, WallBounds
from zipnet.access.policy import Service
from zipnet.access.principal import prefix_of
from zipnet.access.refusal import refusal
from zipnet.errors import AdmissionError, ConfigError, TransportError, ZipnetError
from zipnet.gateway.history import History
from zipnet.gateway.openapi import openapi
from zipnet.gateway.page import CONTENT_SECURITY_POLICY, render_page
from zipnet.gateway.publishing import Publishing
from zipnet.gateway.views import BroadcastPage, Member, Problem, Round, RoundPage, Status
from zipnet.node.breakers import Breakers
from zipnet.node.build import build_version
from zipnet.node.http import HttpServer, serve_application
from zipnet.node.wall import Wall, WallParts
from zipnet.node.wall_http import walled_application
from zipnet.observe.metrics import NodeMetrics
from zipnet.sdk.publisher import Publisher
from zipnet.sdk.reader import Reader
from zipnet.settings.values import (
    ALLOW_PUBLIC_GATEWAY,
    ALLOW_PUBLISHING_FOR_OTHERS,
    Endpoint,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.applications import Starlette
    from starlette.requests import Request

    from zipnet.node.wall_http import HttpHandler
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.sdk.links import Trouble

__all__ = [
    "ALLOW_PUBLIC_BIND",
    "ALLOW_PUBLISHING_FOR_OTHERS",
    "Gateway",
    "GatewayOptions",
]

ALLOW_PUBLIC_BIND: Final = ALLOW_PUBLIC_GATEWAY
"""Value of ``public`` that lets the gateway listen beyond loopback."""

_UPSTREAM = "upstream"
_MAX_LIMIT = 256
_DEFAULT_LIMIT = 64
_MAX_FOLLOWERS = 128
_MAX_FOLLOWERS_OF_ONE_NETWORK = 32
_MAX_CONNECTIONS = 640  # above the wall's own bound, whose refusal has a reason
_RECENT = 64
_SHOWN = 40
_MESSAGES_SHOWN = 100
_KEEP_ALIVE_S = 15.0
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How a gateway is run.

    Attributes:
        listen: Address of its HTTP port.
        transport: ``quic`` or ``tls``, towards the nodes.
        proxy: ``socks5://host:port`` towards the nodes; needs ``tls``.
        publishing: Whether to publish at all; the gateway then takes part in rounds.
        public: :data:`ALLOW_PUBLIC_BIND` to listen beyond loopback.
        publish_for_others: :data:`ALLOW_PUBLISHING_FOR_OTHERS` to publish for other machines.
        names: Host names it answers to besides its own address.
        start: First record it follows; older ones are fetched when asked for.
        servers_at: Host and port of each committee server, where the descriptor's do not apply.
        capability: Token shown to the nodes, where they ask for one.
        bounds: How much callers may have.
    """

    listen: Endpoint = field(default_factory=lambda: Endpoint("127.0.0.1", 8640))
    transport: str = "quic"
    proxy: str | None = None
    publishing: bool = True
    public: str | None = None
    publish_for_others: str | None = None
    names: tuple[str, ...] = ()
    start: int = 0
    servers_at: Sequence[tuple[str, int]] | None = None
    capability: bytes | None = field(default=None, repr=False)
    bounds: WallBounds = DEFAULT_BOUNDS

    def require_allowed(self) -> None:
        """Refuse what needs an explicit switch.

        Raises:
            ConfigError: When the switch was not given, or not word for word.
        """
        if not self.listen.is_loopback and self.public != ALLOW_PUBLIC_BIND:
            raise ConfigError(
                f"the gateway would listen on {self.listen}, where others can reach it",
                hint=f'listen on 127.0.0.1, or give --public "{ALLOW_PUBLIC_BIND}"',
            )
        given = self.publish_for_others
        if given is not None and given != ALLOW_PUBLISHING_FOR_OTHERS:
            raise ConfigError(
                "publishing for others was not asked for in so many words",
                hint=f'give --publish-for-others "{ALLOW_PUBLISHING_FOR_OTHERS}"',
            )


class Gateway:
    """A running gateway: ``async with Gateway(descriptor, options) as gateway``.

    Args:
        descriptor: The instance, verified.
        options: How to run.
        on_trouble: Told about nodes that fail while the gateway goes on.

    Attributes:
        url: Where it answers, once it runs.
    """

    def __init__(
        self,
        descriptor: TrustedDescriptor,
        options: GatewayOptions,
        *,
        on_trouble: Trouble | None = None,
    ) -> None:
        options.require_allowed()
        self.url = ""
        self._descriptor = descriptor
        self._options = options
        self._on_trouble = on_trouble or (lambda _error: None)
        self._metrics = NodeMetrics(
            CollectorRegistry(), instance=descriptor.descriptor.name, role="gateway"
        )
        self._breakers = Breakers(self._metrics)
        self._history = History(self._reader, start=options.start)
        self._publishing: Publishing | None = None
        self._followers: Counter[str] = Counter()
        self._names: frozenset[str] = frozenset(options.names)
        self._ended: asyncio.Task[None] | None = None
        self._stack = contextlib.AsyncExitStack()
        self._http: HttpServer | None = None

    async def __aenter__(self) -> Self:
        """Bind, follow the log, and take part in rounds where publishing is on.

        Raises:
            ConfigError: When the address cannot be bound.
        """
        options = self._options
        try:
            if options.publishing:
                publisher = await self._stack.enter_async_context(self._publisher())
                anybody = options.publish_for_others == ALLOW_PUBLISHING_FOR_OTHERS
                self._publishing = Publishing(publisher, anybody=anybody)
            self._http = await serve_application(
                options.listen.host,
                options.listen.port,
                self._application(),
                setting="listen",
                max_connections=_MAX_CONNECTIONS,
                first_bytes_s=options.bounds.first_bytes_s,
            )
            self._stack.push_async_callback(self._http.close)
        except BaseException:
            await self._stack.aclose()
            raise
        bound = Endpoint(self._http.host, self._http.port)
        self.url = f"http://{bound}"
        self._ended = asyncio.create_task(self._history.follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop following, answering and taking part."""
        if self._ended is not None:
            self._ended.cancel()
            await asyncio.wait({self._ended})
        # Rule 5: before the port closes, which would cut short whoever still waits.
        await self._history.close()
        if self._publishing is not None:
            await self._publishing.close()
        await self._stack.aclose()

    async def wait(self, stop: asyncio.Event) -> None:
        """Return once ``stop`` is set.

        Raises:
            ZipnetError: What ended the reading for good, such as an equivocation with its proof.
        """
        if self._ended is None:
            return
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({self._ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if self._ended.done() and not self._ended.cancelled():
            self._ended.result()

    def _trouble(self, error: ZipnetError) -> None:
        self._history.note_trouble(error)
        self._on_trouble(error)

    def _reader(self, start: int, follow: bool) -> Reader:  # noqa: FBT001 - History's own callable
        options = self._options
        return Reader(
            self._descriptor,
            transport="tls" if options.transport == "tls" else "quic",
            proxy=options.proxy,
            from_sequence=start,
            follow=follow,
            servers_at=options.servers_at,
            capability=options.capability,
            on_trouble=self._trouble,
        )

    def _publisher(self) -> Publisher:
        options = self._options
        return Publisher(
            self._descriptor,
            transport="tls" if options.transport == "tls" else "quic",
            proxy=options.proxy,
            servers_at=options.servers_at,
            capability=options.capability,
            on_trouble=self._on_trouble,
            on_warning=lambda _text: None,  # the page shows the crowd
        )

    # Routes -------------------------------------------------------------------------------------

    def _application(self) -> Starlette:
        routes: dict[str, HttpHandler] = {
            "GET /": self._page,
            "GET /healthz": _healthz,
            "GET /readyz": self._readyz,
            "GET /openapi.json": self._openapi,
            "GET /v1/broadcasts": self._broadcasts,
            "GET /v1/rounds": self._rounds,
            "GET /v1/status": self._status,
        }
        if self._publishing is not None:
            routes["POST /v1/publish"] = self._publish
        wall = Wall(Service.GATEWAY, WallParts(self._metrics, bounds=self._options.bounds))
        guarded = {route: self._guarded(handler) for route, handler in routes.items()}
        return walled_application(wall, guarded, headers=_HEADERS)

    def _guarded(self, route: HttpHandler) -> HttpHandler:
        async def guarded(request: Request) -> Response:
            if not self._knows(request.headers.get("host", "")):
                return _problem(421, "host", "this gateway does not answer to that name")
            try:
                answer = await route(request)
            except _BadRequestError as error:
                answer = _problem(400, error.reason, str(error))
            except AdmissionError as error:
                if error.code == "breaker_open":
                    raise  # its own; a server's refusal is no answer for this caller
                answer = _problem(502, error.reason, str(error))
            except TimeoutError:
                answer = _problem(503, "timeout", "no server showed those records in time")
            except TransportError as error:
                answer = _problem(503, error.reason, str(error))
            except ZipnetError as error:
                answer = _problem(502, error.reason, str(error))
            return answer

        return guarded

    def _knows(self, host: str) -> bool:
        name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
        own = str(Endpoint(self._options.listen.host, 0)).rpartition(":")[0]
        return name in _LOOPBACK_NAMES or name == own or name in self._names

    async def _page(self, _: Request) -> Response:
        history = self._history
        page = render_page(
            self._status_now(), history.latest(_SHOWN), history.latest_talk(_MESSAGES_SHOWN)
        )
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)

    async def _readyz(self, _: Request) -> Response:
        ready = self._history.following
        return PlainTextResponse("ok\n" if ready else "not following\n", 200 if ready else 503)

    async def _openapi(self, _: Request) -> Response:
        document = openapi(build_version(), publishing=self._publishing is not None)
        return _json(document)

    async def _status(self, _: Request) -> Response:
        return _json(self._status_now())

    def _status_now(self) -> Status:
        descriptor = self._descriptor.descriptor
        recent = self._history.latest(_RECENT)
        return Status(
            instance=descriptor.name,
            universe=descriptor.universe,
            descriptor_version=descriptor.version,
            min_participants=descriptor.params.min_participants,
            attestation=str(descriptor.attestation.mode),
            committee=[
                Member(
                    index=index,
                    name=node.name,
                    recent_rounds=sum(index in made.roster for made in recent),
                    of_rounds=len(recent),
                )
                for index, node in enumerate(descriptor.servers)
            ],
            newest=self._history.newest,
            following=self._history.following,
            integrity_failures=self._history.integrity_failures,
            publishing=self._publishing is not None,
        )

    async def _broadcasts(self, request: Request) -> Response:
        if _wants_events(request):
            return self._events(request, _broadcast_events)
        start, rounds = await self._range(request)
        return _json(
            BroadcastPage(
                broadcasts=[b for made in rounds for b in made.broadcasts],
                next=rounds[-1].sequence + 1 if rounds else start,
                newest=self._history.newest,
            )
        )

    async def _rounds(self, request: Request) -> Response:
        if _wants_events(request):
            return self._events(request, _round_events)
        start, rounds = await self._range(request)
        following = rounds[-1].sequence + 1 if rounds else start
        return _json(RoundPage(rounds=rounds, next=following, newest=self._history.newest))

    async def _range(self, request: Request) -> tuple[int, list[Round]]:
        start = self._start(request.query_params.get("from", "0"))
        limit = _number(request.query_params.get("limit", str(_DEFAULT_LIMIT)), "limit")
        if not 1 <= limit <= _MAX_LIMIT:
            raise _BadRequestError(f"limit is 1 to {_MAX_LIMIT}")
        if not self._history.holds(start) and not self._breakers.allows(_UPSTREAM):
            wait_s = self._breakers.retry_after_s(_UPSTREAM)
            raise refusal("breaker_open", retry_after=wait_s)
        try:
            rounds = await self._history.page(start, limit)
        except (TransportError, TimeoutError):
            self._breakers.failed(_UPSTREAM)
            raise
        if not self._history.holds(start):
            self._breakers.succeeded(_UPSTREAM)
        return start, rounds

    def _start(self, text: str) -> int:
        number = _number(text, "from")
        return max(self._history.newest + 1 + number, 0) if number < 0 else number

    def _events(self, request: Request, write: Callable[[Round], bytes]) -> Response:
        network = _network_of(request)
        if self._followers.total() >= _MAX_FOLLOWERS:
            return _problem(503, "overloaded", "too many follow this gateway already")
        if network and self._followers[network] >= _MAX_FOLLOWERS_OF_ONE_NETWORK:
            return _problem(429, "prefix_limited", "too many of this network follow already")
        last = request.headers.get("last-event-id")
        asked = request.query_params.get("from")
        if last is not None:
            start = _number(last, "Last-Event-ID") + 1
        else:
            start = self._history.newest + 1 if asked is None else self._start(asked)

        async def stream() -> AsyncIterator[bytes]:
            self._followers[network] += 1
            rounds = self._history.live(start)
            waiting = asyncio.ensure_future(anext(rounds, None))
            try:
                while True:
                    await asyncio.wait({waiting}, timeout=_KEEP_ALIVE_S)
                    if not waiting.done():
                        yield b": still here\n\n"
                        continue
                    made = waiting.result()
                    if made is None:
                        return
                    yield write(made)
                    waiting = asyncio.ensure_future(anext(rounds, None))
            finally:
                waiting.cancel()
                self._followers[network] -= 1
                self._followers += Counter()  # networks that are gone are not remembered

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def _publish(self, request: Request) -> Response:
        if self._publishing is None:
            return _problem(404, "not_served", "this gateway does not publish")
        status, answer = await self._publishing.handle(request)
        response = _json(answer, status)
        if status == 503:  # noqa: PLR2004 - Service Unavailable
            response.headers["Retry-After"] = "5"
        return response


class _BadRequestError(ZipnetError):
    """A number in the request is out of range."""

    reason = "bad_request"


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok\n")


def _number(text: str, what: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise _BadRequestError(f"{what} is not a whole number") from None
    if abs(number) >= 1 << 62:
        raise _BadRequestError(f"{what} is out of range")
    return number


def _network_of(request: Request) -> str:
    """Where a caller comes from; empty for this machine, where a proxy may stand for everybody."""
    host = "" if request.client is None else request.client.host
    with contextlib.suppress(ValueError):
        if ip_address(host).is_loopback:
            return ""
    return prefix_of(host)


def _wants_events(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def _round_events(made: Round) -> bytes:
    return b"id: %d\nevent: round\ndata: %s\n\n" % (made.sequence, msgspec.json.encode(made))


def _broadcast_events(made: Round) -> bytes:
    events = [
        b"event: broadcast\ndata: %s\n\n" % msgspec.json.encode(one) for one in made.broadcasts
    ]
    # The id comes last: who reconnects in the middle of a round is told all of it again.
    return b"".join(events) + b"id: %d\nevent: round\ndata: {}\n\n" % made.sequence


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _problem(status: int, error: str, text: str) -> Response:
    return _json(Problem(error=error, text=text), status)

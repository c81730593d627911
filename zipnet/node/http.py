"""The loopback HTTP port of a node: ``/healthz``, ``/readyz``, ``/version`` and ``/metrics``.

Rules:

1. ``/healthz`` says that the process answers, nothing more. ``/readyz`` is 503 while a dependency
   failed, else 200; its body names every dependency, and why one is failed or degraded.
2. Every path stands behind the wall (``zipnet.node.wall_http``), and a connection that has sent no
   request in time is closed. Requests are not logged and there is no server header. Connections
   are few and short-lived.
3. The web server lives in the caller's event loop, captures no signals, and stops with
   :meth:`HttpServer.close`.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import h11
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from zipnet.access.bounds import DEFAULT_BOUNDS
from zipnet.access.policy import Service
from zipnet.errors import ConfigError
from zipnet.node.request_log import SILENT, RequestLog
from zipnet.node.wall import Wall, WallParts
from zipnet.node.wall_http import walled_application

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from starlette.applications import Starlette
    from starlette.requests import Request

    from zipnet.access.bounds import WallBounds
    from zipnet.node.wall_http import HttpHandler
    from zipnet.observe.health import FailedCondition, Health
    from zipnet.observe.metrics import NodeMetrics

__all__ = ["HttpServer", "serve_application", "serve_http"]

_MAX_CONNECTIONS = 32
_KEEP_ALIVE_S = 5
_DRAIN_S = 2
_BACKLOG = 16


class _QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers, which would swallow SIGINT and SIGTERM of the node."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say when the port is served: stopping uvicorn any earlier would leak the listener."""
        await super().startup(sockets)
        self.serving.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the node."""
        yield


class HttpServer:
    """A running HTTP port. It owns its task; :meth:`close` ends it.

    Attributes:
        host: Address that is bound.
        port: Port that is bound.
    """

    def __init__(
        self, host: str, port: int, server: uvicorn.Server, task: asyncio.Task[None]
    ) -> None:
        self.host = host
        self.port = port
        self._server = server
        self._task = task

    async def close(self) -> None:
        """Stop accepting, drain for at most two seconds, wait for the end. Idempotent."""
        self._server.should_exit = True
        await asyncio.wait({self._task})
        self._task.result()


async def serve_http(
    host: str,
    port: int,
    *,
    health: Health,
    metrics: NodeMetrics,
    version: Mapping[str, str],
    bounds: WallBounds = DEFAULT_BOUNDS,
    requests: RequestLog = SILENT,
) -> HttpServer:
    """Bind and serve; returns once the port answers.

    Args:
        host: Address to bind, loopback unless settings allowed more by name.
        port: Port to bind; 0 takes any free one.
        health: What ``/readyz`` reports.
        metrics: Whose registry ``/metrics`` shows.
        version: What ``/version`` shows.
        bounds: How much callers may have.
        requests: Where requests are noted.

    Raises:
        ConfigError: When the address cannot be bound; names it and the setting.
    """
    wall = Wall(Service.HTTP, WallParts(metrics, bounds=bounds, requests=requests))
    application = walled_application(wall, _routes(health, metrics.registry, dict(version)))
    return await serve_application(
        host, port, application, setting="METRICS", first_bytes_s=bounds.first_bytes_s
    )


async def serve_application(
    host: str,
    port: int,
    application: Starlette,
    *,
    setting: str,
    max_connections: int = _MAX_CONNECTIONS,
    first_bytes_s: float = DEFAULT_BOUNDS.first_bytes_s,
) -> HttpServer:
    """Bind and serve an application; returns once the port answers.

    Args:
        host: Address to bind.
        port: Port to bind; 0 takes any free one.
        application: What to serve.
        setting: What named the address, for the error.
        max_connections: Connections at once; further ones get 503.
        first_bytes_s: Time until a connection has sent a request's head; then it is closed.

    Raises:
        ConfigError: When the address cannot be bound; names it and the setting.
    """
    listening = _bind(host, port, setting)
    bound: tuple[str, int] = listening.getsockname()[:2]
    config = uvicorn.Config(
        application,
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        lifespan="off",
        loop="none",
        http=_impatient(first_bytes_s),
        ws="none",
        limit_concurrency=max_connections,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    server = _QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[listening]), name="zipnet-http")
    task.add_done_callback(lambda _: listening.close())
    task.add_done_callback(lambda _: server.serving.set())
    try:
        await server.serving.wait()
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.done():
        task.result()
    return HttpServer(bound[0], bound[1], server, task)


def _bind(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Without it a restarted node would wait for old connections to leave TIME_WAIT.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"setting {setting}: port {port} of {host} cannot be bound: {error.strerror}",
            hint="write another host:port, or 127.0.0.1:0 for any free port",
        ) from error
    listening.settimeout(0)
    return listening


def _impatient(first_bytes_s: float) -> type[H11Protocol]:
    """Return uvicorn's protocol with a bound it lacks: on the time until a request is there."""

    class Impatient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._deadline = self._arm()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._disarm()
            elif self._deadline is None and self.conn.trailing_data[0]:
                self._deadline = self._arm()  # a further request has begun

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _arm(self) -> asyncio.TimerHandle | None:
            return asyncio.get_running_loop().call_later(first_bytes_s, self.transport.close)

        def _disarm(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = None

    return Impatient


def _listed(items: Iterable[FailedCondition]) -> list[dict[str, str]]:
    return [{"condition": item.condition, "reason": item.reason} for item in items]


def _routes(
    health: Health, registry: CollectorRegistry, version: dict[str, str]
) -> dict[str, HttpHandler]:
    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        failed, degraded = _listed(health.failed()), _listed(health.degraded())
        status = "not_ready" if failed else "degraded" if degraded else "ready"
        body = {
            "ready": not failed,
            "status": status,
            "failed": failed,
            "degraded": degraded,
            "dependencies": health.states(),
        }
        return JSONResponse(body, status_code=503 if failed else 200)

    async def show_version(_: Request) -> Response:
        return JSONResponse(version)

    async def show_metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return {
        "GET /healthz": healthz,
        "GET /readyz": readyz,
        "GET /version": show_version,
        "GET /metrics": show_metrics,
    }

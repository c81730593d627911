"""Promises of the HTTP port: four paths, loopback, no logs of requests, a clean stop."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from zipnet.errors import ConfigError
from zipnet.node.http import HttpServer, serve_http
from zipnet.observe import Health
from zipnet.observe.health import degraded
from zipnet.observe.metrics import NodeMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VERSION = {"version": "1.2.3", "commit": "abc"}


@asynccontextmanager
async def _serving() -> AsyncIterator[tuple[HttpServer, Health]]:
    metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
    health = Health(["consensus"], metrics)
    server = await serve_http("127.0.0.1", 0, health=health, metrics=metrics, version=VERSION)
    try:
        yield server, health
    finally:
        async with asyncio.timeout(10):
            await server.close()


async def _get(port: int, path: str, method: str = "GET") -> tuple[int, str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(10):
        answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


async def _json(port: int, path: str) -> tuple[int, Any]:
    status, _, body = await _get(port, path)
    return status, json.loads(body)


async def test_healthz_says_the_process_answers_ready_or_not() -> None:
    async with _serving() as (server, _):
        status, head, body = await _get(server.port, "/healthz")
    assert (status, body) == (200, "ok\n")
    assert "\nserver:" not in head


async def test_readyz_lists_what_fails_and_turns_200_when_nothing_does() -> None:
    async with _serving() as (server, health):
        health.set("consensus", ok=False, reason="no_leader")
        failed = [{"condition": "consensus", "reason": "no_leader"}]
        status, body = await _json(server.port, "/readyz")
        assert (status, body["ready"], body["failed"]) == (503, False, failed)
        assert (body["status"], body["degraded"]) == ("not_ready", [])
        assert body["dependencies"] == {"consensus": "failed"}
        health.set("consensus", ok=True)
        status, body = await _json(server.port, "/readyz")
        assert (status, body["ready"], body["failed"]) == (200, True, [])
        assert body["status"] == "ready"


async def test_a_degraded_node_is_ready_and_says_what_is_not_well() -> None:
    async with _serving() as (server, health):
        health.report("consensus", degraded("catching_up"))
        status, body = await _json(server.port, "/readyz")
    assert (status, body["ready"], body["status"]) == (200, True, "degraded")
    assert body["degraded"] == [{"condition": "consensus", "reason": "catching_up"}]
    assert body["dependencies"] == {"consensus": "degraded"}


async def test_a_path_with_a_slash_behind_it_is_none_and_nobody_is_sent_elsewhere() -> None:
    async with _serving() as (server, _):
        status, head, body = await _get(server.port, "/healthz/")
    assert status == 404
    assert "location" not in head
    assert json.loads(body)["error"] == "not_served"


async def test_version_and_metrics_are_served_and_nothing_else_is() -> None:
    async with _serving() as (server, _):
        assert await _json(server.port, "/version") == (200, VERSION)
        status, head, body = await _get(server.port, "/metrics")
        assert status == 200
        assert "text/plain; version=" in head
        assert "zipnet_ready_state{" in body
        assert (await _get(server.port, "/"))[0] == 404
        assert (await _get(server.port, "/docs"))[0] == 404
        assert (await _get(server.port, "/readyz", "POST"))[0] == 405


async def test_a_taken_port_is_a_configuration_error_that_names_port_and_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        metrics = NodeMetrics(CollectorRegistry(), instance="acme.test", role="server")
        with pytest.raises(ConfigError, match=rf"METRICS.*{port}"):
            await serve_http("127.0.0.1", port, health=Health([]), metrics=metrics, version=VERSION)


async def test_signals_stay_with_the_node() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with _serving():
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_close_frees_the_port_ends_idle_connections_and_may_be_called_twice() -> None:
    async with _serving() as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(10):
            await server.close()
            await server.close()
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)


async def test_requests_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with _serving() as (server, _):
        await _get(server.port, "/healthz?token=canary")
    assert "canary" not in caplog.text
    assert "/healthz" not in caplog.text

"""HTTP for tests, without a library: requests in a thread, server-sent events as they come."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from email.message import Message

__all__ = ["Answer", "fetch", "follow"]

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Answer:
    """What came back; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever was sent
        """The body as JSON."""
        return json.loads(self.body)


async def fetch(
    url: str,
    *,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
) -> Answer:
    """Make one request; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if data is not None else {}
    request = urllib.request.Request(  # noqa: S310 - the test's own server
        url, data=data, headers={**sent, **(headers or {})}, method=method
    )

    def go() -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                return Answer(answer.status, _lower(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, _lower(error.headers), error.read())

    return await asyncio.to_thread(go)


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


async def follow(
    url: str, *, headers: Mapping[str, str] | None = None
) -> AsyncGenerator[dict[str, str], None]:
    """Yield server-sent events as dictionaries of their fields."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.rpartition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    lines = [
        f"GET /{path} HTTP/1.1",
        f"Host: {host}",
        "Accept: text/event-stream",
        *(f"{key}: {value}" for key, value in (headers or {}).items()),
    ]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head
        event: dict[str, str] = {}
        buffer = b""
        while chunk := await _chunk(reader):
            buffer += chunk
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                key, _, value = line.decode().partition(": ")
                if line and key:
                    event[key] = value
                elif not line and event:
                    yield event
                    event = {}
    finally:
        writer.close()


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(TIMEOUT_S):
        size = int(await reader.readline() or b"0", 16)
        data = await reader.readexactly(size)
        await reader.readline()
        return data

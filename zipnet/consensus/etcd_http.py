"""The few calls of etcd's v3 JSON gateway the engine needs, over plain HTTP/1.0.

One request a connection: HTTP/1.0 has neither chunks nor pipelining, so there is little to parse
and nothing to keep in step. Watches are streams that stay open. Keys and values are bytes; the
gateway writes them in base64 and 64-bit numbers as text.

Every failure — no connection, another status than 200, a body that does not parse or is too large —
is a :class:`~zipnet.errors.ConsensusError`; whether the call took effect is then not known.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from zipnet.errors import ConsensusError

if TYPE_CHECKING:
    import ssl

__all__ = ["EtcdHttp", "Header", "KeyValue", "Lease", "RangeResult", "TxnResult", "text"]

_MAX_BODY_BYTES: Final = 8 << 20
_MAX_LINE_BYTES: Final = 1 << 16
_OK: Final = 200


class Header(msgspec.Struct, frozen=True):
    """What every answer begins with."""

    revision: str = "0"


class KeyValue(msgspec.Struct, frozen=True):
    """One key; the gateway leaves out what is empty or zero."""

    key: bytes
    value: bytes = b""
    mod_revision: str = "0"


class RangeResult(msgspec.Struct, frozen=True):
    """Keys that were asked for, ascending."""

    kvs: list[KeyValue] = []


class _Op(msgspec.Struct, frozen=True):
    response_range: RangeResult | None = None


class TxnResult(msgspec.Struct, frozen=True):
    """What a transaction did."""

    header: Header = Header()
    succeeded: bool = False
    responses: list[_Op] = []

    def ranges(self) -> list[RangeResult]:
        """Answers of the range operations, in order."""
        return [op.response_range for op in self.responses if op.response_range is not None]


class Lease(msgspec.Struct, frozen=True):
    """A granted lease."""

    ID: str = "0"
    TTL: str = "0"


class _KeepAlive(msgspec.Struct, frozen=True):
    result: Lease


_T = TypeVar("_T")


def text(data: bytes) -> str:
    """Return bytes as the gateway wants them."""
    return base64.b64encode(data).decode()


class EtcdHttp:
    """Calls one etcd member.

    Args:
        host: Where its client port is; the engine only ever speaks to the member beside it.
        port: That port.
        tls: For mutual TLS with it; None speaks plain HTTP.
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._port = port
        self._tls = tls

    async def txn(
        self,
        compare: list[Mapping[str, object]],
        success: list[Mapping[str, object]],
        failure: list[Mapping[str, object]] | None = None,
    ) -> TxnResult:
        """Run a transaction; one that only reads is linearizable like any other."""
        body = {"compare": compare, "success": success, "failure": failure or []}
        return await self._call("/v3/kv/txn", body, TxnResult)

    async def compact(self, revision: int) -> None:
        """Let the member forget what keys were before ``revision``."""
        await self._call("/v3/kv/compaction", {"revision": str(revision)}, Header)

    async def grant(self, ttl_s: int) -> Lease:
        """Take a lease."""
        return await self._call("/v3/lease/grant", {"TTL": str(ttl_s)}, Lease)

    async def keep_alive(self, lease: str) -> bool:
        """Renew a lease; False when it has lapsed."""
        answer = await self._call("/v3/lease/keepalive", {"ID": lease}, _KeepAlive)
        return answer.result.TTL != "0"

    async def revoke(self, lease: str) -> None:
        """Give a lease up, and the keys that hang on it."""
        await self._call("/v3/lease/revoke", {"ID": lease}, Header)

    @asynccontextmanager
    async def watch(self, prefix: bytes, end: bytes) -> AsyncIterator[AsyncIterator[None]]:
        """Yield an iterator that gives one item whenever a key of ``[prefix, end)`` changed."""
        request = {"create_request": {"key": text(prefix), "range_end": text(end)}}
        reader, writer = await self._send("/v3/watch", request)
        try:
            yield _lines(reader)
        finally:
            await _close(writer)

    async def _call(self, path: str, body: Mapping[str, object], kind: type[_T]) -> _T:
        reader, writer = await self._send(path, body)
        try:
            data = await _read_all(reader)
        finally:
            await _close(writer)
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise ConsensusError("etcd gave an answer that does not parse") from error

    async def _send(
        self, path: str, body: Mapping[str, object]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        data = msgspec.json.encode(body)
        head = (
            f"POST {path} HTTP/1.0\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        try:
            reader, writer = await asyncio.open_connection(
                self._host, self._port, ssl=self._tls, limit=_MAX_LINE_BYTES
            )
        except OSError as error:
            raise ConsensusError(f"etcd at {self._host}:{self._port} is not reachable") from error
        try:
            writer.write(head.encode() + data)
            await writer.drain()
            await _require_ok(reader)
        except BaseException as error:
            await _close(writer)
            if isinstance(error, OSError | ValueError):
                raise ConsensusError("etcd broke a connection off") from error
            raise
        return reader, writer


async def _require_ok(reader: asyncio.StreamReader) -> None:
    status = (await reader.readline()).split(b" ", 2)
    while (await reader.readline()).strip():
        """Headers say nothing that is needed: the body ends with the connection."""
    code = int(status[1]) if len(status) > 1 and status[1].isdigit() else 0
    if code != _OK:
        raise ConsensusError(f"etcd refused a request with status {code}")


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    data = bytearray()
    try:
        while piece := await reader.read(1 << 16):
            data += piece
            if len(data) > _MAX_BODY_BYTES:
                raise ConsensusError("etcd gave an answer that is too large")
    except OSError as error:
        raise ConsensusError("etcd broke a connection off") from error
    return bytes(data)


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[None]:
    """One item for each change; a change larger than the buffer is several."""
    while True:
        try:
            piece = await reader.read(_MAX_LINE_BYTES)
        except OSError:
            return
        if not piece:
            return
        yield None


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(1):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()

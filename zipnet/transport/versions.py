"""Versions of the descriptor, asked for over a session and believed for their signatures alone.

Rules:

1. What is older is followed by digest, from a version that is trusted back to the first.
2. What is newer is followed by signature, one version at a time.
3. Whoever answers is believed nothing: a file that does not fit is a broken rule of its sender.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from zipnet.errors import (
    ConfigError,
    RemoteProtocolError,
    TransportError,
    VerificationError,
)
from zipnet.protocol.descriptor import parse_descriptor
from zipnet.protocol.succession import MAX_VERSIONS, link_earlier, succeed
from zipnet.transport.session import initiate
from zipnet.wire.messages import DescriptorFile, GetDescriptor, Kind, decode, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from zipnet.ports import Connection
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.transport.session import SessionTerms
    from zipnet.wire.frames import Frame

__all__ = ["Asked", "ask_earlier", "ask_later", "fetch_earlier", "fetch_later", "know_version"]


class Asked(Protocol):
    """A node that answers requests: a session that is served, or a link."""

    async def request(self, kind: int, payload: bytes, timeout_s: float | None = None) -> Frame:
        """Send a request and return its answer."""
        ...


async def fetch_earlier(session: Asked, newest: TrustedDescriptor) -> TrustedDescriptor:
    """Return a version with all that were before it.

    Args:
        session: A session that is served, to any node.
        newest: The version that is trusted.

    Raises:
        RemoteProtocolError: The node gave other files than the ones asked for.
        ZipnetError: The node does not know them, or did not answer.
    """
    if newest.earlier:
        return newest
    files: list[bytes] = []
    at = newest.descriptor
    try:
        while at.previous is not None:
            if len(files) >= MAX_VERSIONS:
                raise RemoteProtocolError("more versions of a descriptor than there may be")
            file = await _fetch(session, int(at.version) - 1)
            if file is None:
                raise RemoteProtocolError("the node does not know an earlier version")
            older = parse_descriptor(file)
            if older.digest != at.previous:
                raise RemoteProtocolError("the node gave another version than the one before")
            files.insert(0, file)
            at = older
        return link_earlier(newest, files)
    except (ConfigError, VerificationError) as error:
        raise RemoteProtocolError(f"the node gave no earlier version: {error}") from error


async def ask_earlier(
    connection: Connection, terms: SessionTerms, newest: TrustedDescriptor, *, timeout_s: float
) -> TrustedDescriptor:
    """Do what :func:`fetch_earlier` does over a connection of its own, and end it.

    Raises:
        ZipnetError: As there, and where no session came about or it took too long.
    """
    return await _ask(connection, terms, fetch_earlier, newest, timeout_s)


async def ask_later(
    connection: Connection, terms: SessionTerms, current: TrustedDescriptor, *, timeout_s: float
) -> TrustedDescriptor:
    """Do what :func:`fetch_later` does over a connection of its own, and end it.

    Raises:
        ZipnetError: As there, and where no session came about or it took too long.
    """
    return await _ask(connection, terms, fetch_later, current, timeout_s)


async def _ask(
    connection: Connection,
    terms: SessionTerms,
    fetch: Callable[[Asked, TrustedDescriptor], Awaitable[TrustedDescriptor]],
    known: TrustedDescriptor,
    timeout_s: float,
) -> TrustedDescriptor:
    session = await initiate(connection, terms, deadline_s=timeout_s)
    serving = asyncio.create_task(session.serve(_answer_nothing))
    try:
        async with asyncio.timeout(timeout_s):
            return await fetch(session, known)
    except TimeoutError as error:
        raise TransportError("a node did not give the versions in time") from error
    finally:
        await session.close()
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def _answer_nothing(_frame: Frame) -> Frame | None:
    raise RemoteProtocolError("a node asked something of whoever fetches versions")


async def fetch_later(session: Asked, current: TrustedDescriptor) -> TrustedDescriptor:
    """Return the newest version a node knows; ``current`` itself where it knows no later one.

    Args:
        session: A session that is served, to any node.
        current: The newest version that is trusted.

    Raises:
        RemoteProtocolError: The node gave a file that does not follow.
        ZipnetError: It did not answer.
    """
    while (file := await _fetch(session, current.version + 1)) is not None:
        try:
            current = succeed(current, file)
        except VerificationError as error:
            raise RemoteProtocolError(f"the node gave no later version: {error}") from error
    return current


async def know_version(
    session: Asked, current: TrustedDescriptor, version: int
) -> TrustedDescriptor:
    """Return ``current``, or a descriptor that knows ``version`` as well where the node has it.

    Args:
        session: A session that is served, to any node.
        current: The newest version that is trusted.
        version: What a header or record names.

    Raises:
        RemoteProtocolError: The node gave a file that does not fit.
        ZipnetError: It did not answer.
    """
    if version < current.founding.version and current.founding.descriptor.previous is not None:
        current = await fetch_earlier(session, replace(current, earlier=()))
    return await fetch_later(session, current) if version > current.version else current


async def _fetch(session: Asked, version: int) -> bytes | None:
    answer = await session.request(Kind.GET_DESCRIPTOR, encode(GetDescriptor(version=version)))
    return decode(answer.payload, DescriptorFile).file

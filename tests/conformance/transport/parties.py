"""Nodes and clients with real identities, for tests of the session over a real transport."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from tests.conformance.transport.engines import PATIENCE_S, Engine
from zipnet.errors import ZipnetError
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import GroupId, InstanceId
from zipnet.protocol.secret import Secret
from zipnet.transport.certificate import NodeCertificate, node_certificate
from zipnet.transport.session import (
    Handler,
    HelloFacts,
    Role,
    Session,
    SessionTerms,
    accept,
    initiate,
)
from zipnet.wire.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from zipnet.ports import Connection, Listener
    from zipnet.wire.frames import Frame

INSTANCE: Final = InstanceId(b"i" * 32)
GROUP: Final = GroupId(b"g" * 32)
COMMITTEE_SECRET: Final = bytes(range(100, 132))


@functools.cache
def identity(number: int) -> Identity:
    """One of a few fixed identities."""
    return Identity.from_secret(Secret(bytes([number]) * 31 + b"\x01"))


def certificate(number: int) -> NodeCertificate:
    return node_certificate(identity(number).ed25519_private_key())


def terms(number: int, role: Role, **changes: Any) -> SessionTerms:  # noqa: ANN401 - any field
    """What party ``number`` brings to a handshake; a reader brings no identity."""
    usual = SessionTerms(
        instance_id=INSTANCE,
        group_id=GROUP,
        role=role,
        identity=None if role is Role.READER else identity(number),
        boot_id=bytes([number]) * 16,
        committee_secret=Secret(COMMITTEE_SECRET) if role is Role.SERVER else None,
    )
    return replace(usual, **changes)


async def reverse(frame: Frame) -> Frame | None:
    """Answer a request with its payload reversed."""
    return frame.answer(frame.kind, frame.payload[::-1])


async def silent(frame: Frame) -> Frame | None:
    """Take no notice."""
    del frame
    return None


@dataclass
class Node:
    """Server number 1: accepts sessions, remembers what it saw."""

    engine: Engine
    terms: SessionTerms = field(default_factory=lambda: terms(1, Role.SERVER))
    handler: Handler = reverse
    admit: Callable[[HelloFacts], ZipnetError | None] = lambda _: None
    deadline_s: float = PATIENCE_S
    facts: list[HelloFacts] = field(default_factory=list)
    refused: list[ZipnetError] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    after: Callable[[Session], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self.engine.server = certificate(1)

    def _admit(self, facts: HelloFacts) -> ZipnetError | None:
        self.facts.append(facts)
        return self.admit(facts)

    async def on_connection(self, connection: Connection) -> None:
        try:
            session = await accept(connection, self.terms, self._admit, deadline_s=self.deadline_s)
        except ZipnetError as error:
            self.refused.append(error)
            self.done.set()
            raise
        self.sessions.append(session)
        if self.after is not None:
            await self.after(session)
        await session.serve(self.handler)
        self.done.set()

    @contextlib.asynccontextmanager
    async def running(self, *, limits: Limits = DEFAULT_LIMITS) -> AsyncIterator[Listener]:
        registered = {certificate(n).public_key: certificate(n).der for n in (1, 2, 3)}
        self.terms = replace(self.terms, limits=limits)
        async with self.engine.listening(
            self.on_connection, limits=limits, registered=registered
        ) as listener:
            yield listener

    async def dial(
        self, port: int, other: SessionTerms, *, with_certificate: int | None = None
    ) -> Session:
        """Connect and introduce ``other``; nodes show their certificate where the engine can."""
        shown = certificate(with_certificate) if with_certificate is not None else None
        connection = await self.engine.connect(port, certificate=shown, limits=other.limits)
        return await initiate(connection, other, deadline_s=PATIENCE_S)


@contextlib.asynccontextmanager
async def served(session: Session, handler: Handler = silent) -> AsyncIterator[Session]:
    """The session with its ``serve`` running; closed at the end."""
    async with asyncio.TaskGroup() as group:
        group.create_task(session.serve(handler))
        try:
            yield session
        finally:
            await session.close()

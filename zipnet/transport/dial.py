"""One link kept up: dial, prove, serve, and dial again for as long as the caller's task runs.

A :class:`PersistentLink` belongs to one far node. Used like this::

    link = PersistentLink(transport, node.host, node.port, node.identity.ed25519, terms,
                          expected_peer=node.peer_id, on_frame=handle, on_up=subscribe)
    async with asyncio.TaskGroup() as group:
        group.create_task(link.run())
        answer = await link.request(Kind.GET_RECORDS, payload)   # TransportError while down

Rules:

1. At most one session at a time; :attr:`PersistentLink.session` is None whenever it cannot serve.
2. What may pass by itself (no route, a slow peer, an overload) is tried again after a wait that
   doubles up to a bound and is jittered, so that nodes do not come back in step.
3. What somebody has to change (:data:`FATAL_REFUSALS`) is not tried again in silence: it is given
   to ``on_refused``, which may ask to go on at the slowest pace; otherwise ``run`` raises it.
4. The far side must be the expected one twice: by certificate key before a frame leaves, and by
   peer id, which also covers its post-quantum key, before the session is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from zipnet.errors import (
    AdmissionError,
    ConfigError,
    RemoteProtocolError,
    TransportError,
    VerificationError,
    ZipnetError,
)
from zipnet.transport.session import initiate
from zipnet.wire.frames import CloseCode
from zipnet.wire.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from zipnet.ports import Transport
    from zipnet.protocol.ids import PeerId
    from zipnet.transport.rpc import Session
    from zipnet.transport.session import SessionTerms
    from zipnet.wire.frames import Frame

__all__ = ["DEFAULT_BACKOFF", "FATAL_REFUSALS", "Backoff", "PersistentLink", "refusal_code"]

FATAL_REFUSALS: Final = frozenset(
    {
        "bad_committee_proof",
        "config",
        "duplicate_identity",
        "identity_mismatch",
        "not_registered",
        "policy_mismatch",
        "revoked",
        "unknown_instance",
        "version",
    }
)
"""Codes of handshake refusals that no waiting mends."""

_SESSION_FAULTS = (AdmissionError, RemoteProtocolError, TransportError, VerificationError)
_MAX_ASKED_WAIT_S = 60.0
_JITTER = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait between attempts.

    Attributes:
        first_s: Longest wait after the first failure.
        most_s: Bound the doubling stops at.
        settled_s: A session that lasted this long makes the next failure a first one again.
    """

    first_s: float = 0.1
    most_s: float = 5.0
    settled_s: float = 5.0

    def delay_s(self, failures: int, jitter: float) -> float:
        """Return the wait after ``failures`` failures in a row; ``jitter`` is within 0 … 1."""
        bound = min(self.first_s * 2.0 ** min(failures - 1, 32), self.most_s)
        return bound * (0.5 + 0.5 * jitter)


DEFAULT_BACKOFF = Backoff()


def refusal_code(error: ZipnetError) -> str:
    """Return the stable code of an error: a refusal's own code, else its class's reason."""
    return error.code if isinstance(error, AdmissionError) else error.reason


async def _serve_nothing(_frame: Frame) -> Frame | None:
    raise AdmissionError("this side of the link answers no requests", code="not_served")


class PersistentLink:
    """One authenticated session to one far node, kept up by :meth:`run`.

    Args:
        transport: Engine to dial with.
        host: Address of the far node.
        port: Its port.
        expected_key: Ed25519 key (32 bytes) its certificate must carry.
        terms: What this side says in the handshake.
        expected_peer: Peer id it must prove; None leaves it to ``terms``.
        on_frame: Takes the far node's requests and pushes; None refuses them.
        on_up: Runs with each new session once it serves; when it raises, the session is dropped.
        on_down: Told why, after each session or attempt that ended.
        on_refused: Told about a refusal in :data:`FATAL_REFUSALS`; True means try again slowly.
        connect_timeout_s: Time for the transport's connect, and again for the handshake.
        backoff: Waits between attempts.
    """

    def __init__(  # noqa: PLR0913 - the four callbacks are the four things a caller may care about
        self,
        transport: Transport,
        host: str,
        port: int,
        expected_key: bytes,
        terms: SessionTerms,
        *,
        expected_peer: PeerId | None = None,
        on_frame: Callable[[Frame], Awaitable[Frame | None]] | None = None,
        on_up: Callable[[Session], Awaitable[None]] | None = None,
        on_down: Callable[[ZipnetError], None] | None = None,
        on_refused: Callable[[ZipnetError], bool] | None = None,
        connect_timeout_s: float = DEFAULT_LIMITS.handshake_deadline_s,
        backoff: Backoff = DEFAULT_BACKOFF,
    ) -> None:
        self.host = host
        self.port = port
        self.session: Session | None = None
        self._transport = transport
        self._expected_key = expected_key
        self._terms = terms
        if expected_peer is not None:
            self._terms = replace(terms, expected_peer=expected_peer)
        self._on_frame = on_frame if on_frame is not None else _serve_nothing
        self._on_up = on_up
        self._on_down = on_down
        self._on_refused = on_refused
        self._timeout_s = connect_timeout_s
        self._backoff = backoff
        self._failures = 0
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._down.set()
        self._redial = asyncio.Event()
        self._cut = False

    async def wait_up(self) -> None:
        """Return as soon as there is a session."""
        await self._up.wait()

    async def wait_down(self) -> None:
        """Return as soon as there is no session."""
        await self._down.wait()

    async def request(self, kind: int, payload: bytes, timeout_s: float | None = None) -> Frame:
        """Send a request over the current session and return its answer.

        Raises:
            TransportError: When the link is down, breaks, or gives no answer in time.
            AdmissionError: When the far node refused the request.
            ConfigError: One of its children, when the refusal names a mismatch of settings.
        """
        return await self._current().request(kind, payload, timeout_s)

    async def push(self, kind: int, payload: bytes) -> None:
        """Send a frame that nobody answers.

        Raises:
            TransportError: When the link is down or breaks.
        """
        await self._current().push(kind, payload)

    def _current(self) -> Session:
        if self.session is None:
            raise TransportError(f"no link to {self.host}:{self.port} at the moment")
        return self.session

    def retry_now(self) -> None:
        """Cut short the wait before the next attempt."""
        self._redial.set()

    async def cut(self) -> None:
        """End the session and dial no more: the far node was revoked."""
        self._cut = True
        self._redial.set()
        if self.session is not None:
            await self.session.close(code=CloseCode.REFUSED, reason="revoked")

    async def run(self) -> None:
        """Keep the link up until cancelled.

        Raises:
            ZipnetError: A refusal of :data:`FATAL_REFUSALS` that ``on_refused`` did not take.
        """
        loop = asyncio.get_running_loop()
        while not self._cut:
            began = loop.time()
            slowly = False
            error: ZipnetError
            try:
                session = await self._dial()
            except ZipnetError as refused:
                error = refused
                slowly = self._require_hope(refused)
            else:
                error = await self._live(session)
            if loop.time() - began >= self._backoff.settled_s:
                self._failures = 0
            self._failures += 1
            if self._on_down is not None:
                self._on_down(error)
            await self._pause(error, slowly=slowly)
        await asyncio.Event().wait()  # whoever runs it expects it to last

    def _require_hope(self, error: ZipnetError) -> bool:
        """Whether to go on slowly; raises when nobody wants to go on (rule 3)."""
        if refusal_code(error) not in FATAL_REFUSALS:
            return False
        if self._on_refused is None or not self._on_refused(error):
            raise error
        return True

    async def _dial(self) -> Session:
        connection = await self._transport.connect(
            self.host, self.port, expected_key=self._expected_key, timeout_s=self._timeout_s
        )
        return await initiate(connection, self._terms, deadline_s=self._timeout_s)

    async def _live(self, session: Session) -> ZipnetError:
        """Serve one session to its end and say why it ended; raises only what is fatal."""
        if self._cut:  # while it was dialled
            await session.close(code=CloseCode.REFUSED, reason="revoked")
            return TransportError("the far node was revoked")
        self.session = session
        self._up.set()
        self._down.clear()
        failed: list[ZipnetError] = []

        async def welcome(serving: asyncio.Task[None]) -> None:
            try:
                if self._on_up is not None:
                    await self._on_up(session)
            except (
                TransportError,
                AdmissionError,
                RemoteProtocolError,
                VerificationError,
            ) as error:
                failed.append(error)
                serving.cancel()

        try:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(session.serve(self._on_frame))
                welcoming = group.create_task(welcome(serving))
                serving.add_done_callback(lambda _: welcoming.cancel())
        finally:
            self.session = None
            self._up.clear()
            self._down.set()
        if failed:
            return failed[0]
        return session.ended_by or TransportError("the session ended")

    async def _pause(self, error: ZipnetError, *, slowly: bool) -> None:
        delay_s = self._backoff.delay_s(self._failures, _JITTER.random())
        if slowly or isinstance(error, ConfigError):
            delay_s = max(delay_s, self._backoff.most_s)
        if isinstance(error, AdmissionError) and error.retry_after is not None:
            delay_s = max(delay_s, min(error.retry_after, _MAX_ASKED_WAIT_S))
        self._redial.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._redial.wait()

"""The session: requests, answers and pushes over one connection whose peer is known.

Made by ``zipnet.transport.session`` once the handshake is over; used like this::

    async with asyncio.TaskGroup() as group:
        group.create_task(session.serve(handler))
        answer = await session.request(Kind.GET_RECORDS, payload)

Rules:

1. One task runs ``serve``; it owns all tasks of the session and ends when the link ends.
2. Requests of the peer run at the same time, at most ``max_in_flight`` of them holding at most
   ``max_in_flight_bytes``; one more is refused at once with code ``overloaded``.
3. Pushes reach the handler one by one, in order. When ``max_queued_frames`` or
   ``max_queued_bytes`` wait, reading stops until the handler catches up (back-pressure).
4. Pings are answered here, never by the handler; at most eight wait for their answer, further
   ones are dropped. ``serve`` itself pings at a third of ``idle_timeout_s``.
5. A handler that raises an error of ours refuses the request with that error's code;
   ``RemoteProtocolError`` means the peer broke the rules and ends the link with its number. A push
   cannot be refused: one that is not admitted, or does not verify, breaks the rules as well, and
   any other error of its handler comes out of ``serve``.
6. A response nobody asked for, a request number used twice, a stray handshake frame: the peer is
   broken, the link ends.
7. Fresh evidence is asked for and shown here (``zipnet.transport.bond``); when the bond drops, the
   link ends with the reason.
8. When the link ends, handlers of open requests are cancelled; pushes already received are
   still delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zipnet.errors import (
    AdmissionError,
    LocalProtocolError,
    RemoteProtocolError,
    TransportError,
    VerificationError,
    ZipnetError,
)
from zipnet.wire.frames import MAX_REQUEST_ID, CloseCode, Frame, SessionKind
from zipnet.wire.handshake import (
    Refusal,
    Role,
    decode_handshake,
    encode_handshake,
    error_to_refusal,
    refusal_to_error,
)

if TYPE_CHECKING:
    from zipnet.admission import Judgement
    from zipnet.ports import Connection
    from zipnet.protocol.identity import PublicIdentity
    from zipnet.protocol.ids import PeerId
    from zipnet.transport.bond import Bond
    from zipnet.wire.limits import Limits

__all__ = ["Handler", "PeerFacts", "Session"]

Handler = Callable[[Frame], Awaitable[Frame | None]]
"""Takes a request (returns its answer, None for an empty one) or a push (returns None)."""

_MAX_SESSION_KIND = 15
_MAX_WAITING_PINGS = 8
_ABANDONED_PER_SLOT = 4
_PINGS_PER_IDLE_TIMEOUT = 3


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """Who the other side of a session proved to be.

    Attributes:
        peer_id: Proved peer id; None for an anonymous reader.
        identity: Proved public identity; None for an anonymous reader.
        role: Its role on this link.
        boot_id: 16 random bytes drawn when its process started.
        remote_address: ``host:port``, for refusal logs only.
        committee_proved: Whether it proved the committee secret on this link.
        evidence: Its evidence as judged in the handshake; None where none was due.
    """

    peer_id: PeerId | None
    identity: PublicIdentity | None = field(repr=False)
    role: Role
    boot_id: bytes
    remote_address: str
    committee_proved: bool = False
    evidence: Judgement | None = field(default=None, repr=False)


class _PushQueue:
    """Pushes on their way to the handler, bounded in number and bytes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()
        self._ended = False

    async def put(self, frame: Frame) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._has_room(frame))
            self._frames.append(frame)
            self._bytes += len(frame.payload)
            self._changed.notify_all()

    def _has_room(self, frame: Frame) -> bool:
        if not self._frames or self._ended:
            return True
        return (
            len(self._frames) < self._limits.max_queued_frames
            and self._bytes + len(frame.payload) <= self._limits.max_queued_bytes
        )

    async def get(self) -> Frame | None:
        """The next push; None once the queue has ended and is empty."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._frames or self._ended)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._bytes -= len(frame.payload)
            self._changed.notify_all()
            return frame

    async def end(self) -> None:
        async with self._changed:
            self._ended = True
            self._changed.notify_all()


class Session:
    """Requests, answers and pushes over one authenticated connection.

    Args:
        connection: The link; owned by the session from here on.
        peer: What the handshake proved about the other side.
        limits: Bounds of this session.
        bond: Evidence to keep fresh; None where the group asks for none.

    Attributes:
        peer: What the handshake proved about the other side.
        on_overload: Told of each request that was refused for being one too many (rule 2).
    """

    def __init__(
        self, connection: Connection, peer: PeerFacts, limits: Limits, bond: Bond | None = None
    ) -> None:
        self.peer = peer
        self.on_overload: Callable[[], None] = lambda: None
        self._bond = bond
        self._connection = connection
        self._limits = limits
        self._answers: dict[int, asyncio.Future[Frame]] = {}
        self._abandoned: set[int] = set()
        self._slots = asyncio.Semaphore(limits.max_in_flight)
        self._last_id = 0
        self._pushes = _PushQueue(limits)
        self._pings: deque[Frame] = deque()
        self._ping_waits = asyncio.Event()
        self._open: dict[int, asyncio.Task[None]] = {}
        self._open_bytes = 0
        self._serving = False
        self._ended_by: ZipnetError | None = None

    @property
    def ended_by(self) -> ZipnetError | None:
        """Why the session ended; None while it lives."""
        return self._ended_by

    async def send(self, frame: Frame) -> None:
        """Send one frame as it is; raises as :class:`zipnet.ports.Connection` says."""
        await self._connection.send(frame)

    async def receive(self) -> Frame:
        """Return the next frame; only for sessions without ``serve``.

        Raises:
            LocalProtocolError: When ``serve`` does the receiving.
        """
        if self._serving:
            raise LocalProtocolError("this session's frames go to its handler")
        return await self._connection.receive()

    async def push(self, kind: int, payload: bytes) -> None:
        """Send a frame that nobody answers; waits while the peer is slow.

        Raises:
            TransportError: When the link is gone.
        """
        await self._connection.send(Frame(kind, 0, payload))

    async def request(self, kind: int, payload: bytes, timeout_s: float | None = None) -> Frame:
        """Send a request and return its answer; needs ``serve`` running in another task.

        Args:
            kind: Frame kind of the request.
            payload: Its bytes.
            timeout_s: Time for everything, ``request_deadline_s`` by default.

        Raises:
            TransportError: When the link is gone or no answer came in time.
            AdmissionError: When the peer refused; ``code`` and ``retry_after`` are the peer's.
            ConfigError: One of its children, when the refusal names a mismatch of settings.
        """
        limit_s = self._limits.request_deadline_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s), self._slots:
                answer = await self._exchange(kind, payload)
        except TimeoutError as error:
            raise TransportError(f"no answer within {limit_s:g} s") from error
        if answer.kind == SessionKind.REFUSAL:
            raise refusal_to_error(decode_handshake(answer.payload, Refusal))
        return answer

    async def alive(self, timeout_s: float) -> bool:
        """Whether the peer answers a ping within ``timeout_s``; needs ``serve`` running."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._exchange(SessionKind.PING, b"")
        except (TimeoutError, TransportError):
            return False
        return True

    async def _exchange(self, kind: int, payload: bytes) -> Frame:
        if self._ended_by is not None:
            raise TransportError(str(self._ended_by))
        if len(self._abandoned) >= _ABANDONED_PER_SLOT * self._limits.max_in_flight:
            raise TransportError("the peer leaves too many requests unanswered")
        request_id = self._next_id()
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        try:
            await self._connection.send(Frame(kind, request_id, payload))
        except BaseException:
            del self._answers[request_id]
            answer.cancel()
            raise
        try:
            return await answer
        except asyncio.CancelledError:
            self._abandoned.add(request_id)  # its answer may still come, and is then dropped
            raise
        finally:
            del self._answers[request_id]

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % MAX_REQUEST_ID + 1
            if self._last_id not in self._answers and self._last_id not in self._abandoned:
                return self._last_id

    async def serve(self, handler: Handler) -> None:
        """Receive until the link ends: answer requests, match responses, deliver pushes.

        Returns when the link ended, for whatever reason; ``ended_by`` says which. The link is
        closed on return.

        Raises:
            LocalProtocolError: When the session is served already.
            ExceptionGroup: When the handler has a bug (raised something that is no error of ours).
        """
        if self._serving:
            raise LocalProtocolError("this session is served already")
        self._serving = True
        try:
            async with asyncio.TaskGroup() as group:
                companions = [
                    group.create_task(self._answer_pings()),
                    group.create_task(self._keep_alive()),
                    group.create_task(self._keep_bond()),
                ]
                group.create_task(self._deliver_pushes(handler))
                await self._receive_until_end(group, handler)
                for task in [*companions, *self._open.values()]:
                    task.cancel()
        finally:
            self._end(TransportError("the session was stopped"))
            await self._close_for(self._ended_by)

    async def _receive_until_end(self, group: asyncio.TaskGroup, handler: Handler) -> None:
        try:
            while True:
                await self._on_frame(await self._connection.receive(), group, handler)
        except (TransportError, RemoteProtocolError) as error:
            self._end(error)
        await self._pushes.end()

    def _end(self, error: ZipnetError) -> None:
        if self._ended_by is None:
            self._ended_by = error
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(TransportError(f"the session ended: {self._ended_by}"))
                answer.exception()  # who asked may still be sending and never look

    async def _close_for(self, error: ZipnetError | None) -> None:
        if isinstance(error, RemoteProtocolError):
            await self._connection.close(code=error.code, reason=str(error))
        else:
            await self._connection.close()

    async def _on_frame(self, frame: Frame, group: asyncio.TaskGroup, handler: Handler) -> None:
        if frame.response:
            self._on_response(frame)
        elif frame.kind == SessionKind.PING and frame.request_id:
            if len(self._pings) < _MAX_WAITING_PINGS:
                self._pings.append(frame)
                self._ping_waits.set()
        elif frame.kind == SessionKind.ATTEST and frame.request_id and self._bond is not None:
            await self._on_request(frame, group, self._show_evidence)
        elif frame.kind <= _MAX_SESSION_KIND:
            raise RemoteProtocolError(
                f"frame kind {frame.kind} has no place here", code=CloseCode.UNEXPECTED_FRAME
            )
        elif frame.request_id == 0:
            await self._pushes.put(frame)
        else:
            await self._on_request(frame, group, handler)

    def _on_response(self, frame: Frame) -> None:
        answer = self._answers.get(frame.request_id)
        if answer is not None:
            if not answer.done():
                answer.set_result(frame)
            return
        if frame.request_id not in self._abandoned:
            raise RemoteProtocolError(
                "response to a request that was never made", code=CloseCode.UNEXPECTED_FRAME
            )
        self._abandoned.discard(frame.request_id)

    async def _on_request(self, frame: Frame, group: asyncio.TaskGroup, handler: Handler) -> None:
        if frame.request_id in self._open:
            raise RemoteProtocolError("request number used twice", code=CloseCode.UNEXPECTED_FRAME)
        size = len(frame.payload)
        full = len(self._open) >= self._limits.max_in_flight
        if full or (self._open and self._open_bytes + size > self._limits.max_in_flight_bytes):
            self.on_overload()
            await self._refuse(frame, AdmissionError("too many requests", code="overloaded"))
            return
        self._open_bytes += size
        self._open[frame.request_id] = group.create_task(self._answer(frame, handler))

    async def _answer(self, frame: Frame, handler: Handler) -> None:
        try:
            result = await handler(frame)
            answer = result or frame.answer(frame.kind, b"")
            await self._connection.send(frame.answer(answer.kind, answer.payload))
        except RemoteProtocolError as error:
            await self._give_up(error)
        except ZipnetError as error:
            await self._refuse(frame, error)
        finally:
            self._open_bytes -= len(frame.payload)
            self._open.pop(frame.request_id, None)

    async def _refuse(self, frame: Frame, error: ZipnetError) -> None:
        refusal = encode_handshake(error_to_refusal(error))
        # Where the link itself is what failed, the receiving task learns of it in the same way.
        with contextlib.suppress(TransportError):
            await self._connection.send(frame.answer(SessionKind.REFUSAL, refusal))

    async def _deliver_pushes(self, handler: Handler) -> None:
        while (frame := await self._pushes.get()) is not None:
            try:
                await handler(frame)
            except RemoteProtocolError as error:
                await self._end_pushes(error)
                return
            except (AdmissionError, VerificationError) as error:
                # What a peer sent must never be able to end more than its own link.
                await self._end_pushes(RemoteProtocolError(f"a push is not taken: {error}"))
                return

    async def _end_pushes(self, error: RemoteProtocolError) -> None:
        await self._give_up(error)
        await self._pushes.end()

    async def _answer_pings(self) -> None:
        while True:
            await self._ping_waits.wait()
            self._ping_waits.clear()
            while self._pings:
                try:
                    await self._connection.send(self._pings.popleft().answer(SessionKind.PING, b""))
                except TransportError:
                    return  # the receiving task learns of it too and ends the session

    async def _keep_alive(self) -> None:
        interval_s = self._limits.idle_timeout_s / _PINGS_PER_IDLE_TIMEOUT
        while True:
            await asyncio.sleep(interval_s)
            if not await self.alive(self._limits.idle_timeout_s - interval_s):
                self._end(TransportError("the peer no longer answers"))
                await self._connection.close(code=CloseCode.IDLE, reason="no answer to pings")
                return

    async def _show_evidence(self, frame: Frame) -> Frame:
        assert self._bond is not None
        return frame.answer(frame.kind, await self._bond.answer(frame.payload))

    async def _keep_bond(self) -> None:
        if self._bond is None or self._bond.judgement is None:
            return

        async def ask(payload: bytes) -> bytes:
            return (await self.request(SessionKind.ATTEST, payload)).payload

        error = await self._bond.keep(ask)
        self._end(error)
        await self._connection.close(code=CloseCode.REFUSED, reason=error.code)

    async def _give_up(self, error: RemoteProtocolError) -> None:
        """End the link for what the peer sent; the receiving task then finds it closed."""
        self._end(error)
        await self._close_for(error)

    async def close(self, *, code: int = 0, reason: str = "") -> None:
        """End the session and its link; ``serve`` then returns. Idempotent."""
        self._end(TransportError("the session was closed here"))
        await self._connection.close(code=code, reason=reason)

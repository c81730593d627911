"""Reading from a program: ``async for message in reader``; everything yielded is verified.

Example::

    async with Reader(descriptor, from_sequence=0, follow=False) as reader:
        async for message in reader:
            print(message.round, message.slots, message.payload)

Rules:

1. Nothing is yielded from a record that does not verify with the descriptor alone or does not
   extend the one before it (protocol.md §6, §8.7).
2. The reader says nothing about itself: no identity, no registration.
3. A server that fails, lies or lags is left for another one; reading goes on where it was.
4. Without ``follow`` reading ends with what the server asked last has; a single server can hold the
   newest records back, never change or skip one.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Literal, Self

from zipnet.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    TransportError,
    VerificationError,
)
from zipnet.machines.reader import (
    Advanced,
    FetchFrom,
    Message,
    ReaderEffect,
    ReaderMachine,
    RecordArrived,
    RefuseRecord,
)
from zipnet.sdk.links import (
    LINK_ERRORS,
    Dialer,
    Trouble,
    Turns,
    client_transport,
    serving,
    silence_s,
)
from zipnet.sdk.verifier import RecordVerifier
from zipnet.transport.session import Role
from zipnet.wire.messages import (
    MAX_RECORDS_PER_PAGE,
    GetRecords,
    Kind,
    Records,
    RecordSealed,
    Subscribe,
    Subscribed,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from types import TracebackType

    from zipnet.ports import Transport
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.transport.session import Session
    from zipnet.wire.frames import Frame

__all__ = ["Reader"]

_PASSES_WITHOUT_FOLLOW = 2
_QUEUED_RECORDS = 64
_SIGN_OF_LIFE = b""


class Reader:
    """A pass over the record log of one instance.

    Args:
        descriptor: The instance, verified.
        transport: ``quic``, ``tls``, or an adapter of the Transport port.
        from_sequence: First record to read; None starts with the next one that is sealed.
        follow: Whether to wait for records that do not exist yet.
        servers_at: Host and port of each committee server, where the descriptor's do not apply.
        on_trouble: Told about failing servers while reading goes on.
    """

    def __init__(
        self,
        descriptor: TrustedDescriptor,
        *,
        transport: Literal["quic", "tls"] | Transport = "quic",
        from_sequence: int | None = 0,
        follow: bool = True,
        servers_at: Sequence[tuple[str, int]] | None = None,
        on_trouble: Trouble | None = None,
    ) -> None:
        if from_sequence is None and not follow:
            raise LocalProtocolError("reading from now on needs `follow`")
        adapter = client_transport(transport, descriptor)
        self._dialer = Dialer(descriptor, adapter, None, secrets.token_bytes(16), servers_at)
        self._turns = Turns(descriptor.descriptor.servers, on_trouble=on_trouble)
        self._machine = ReaderMachine(from_sequence)
        self._follow = follow
        self._silence_s = silence_s(descriptor)
        self._verifier = RecordVerifier(descriptor)
        self._effects: AsyncGenerator[ReaderEffect, None] | None = None

    async def __aenter__(self) -> Self:
        """Return the reader; links are made when the first item is asked for."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the link in use."""
        await self.close()

    async def close(self) -> None:
        """Do what leaving the block does. Idempotent."""
        if self._effects is not None:
            await self._effects.aclose()
        self._verifier.close()

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Yield every message that was broadcast in full, in order."""
        async for effect in self.events():
            if isinstance(effect, Message):
                yield effect

    async def records(self) -> AsyncIterator[VerifiedRecord]:
        """Yield every verified record in sequence order."""
        async for effect in self.events():
            if isinstance(effect, Advanced):
                yield effect.record

    def events(self) -> AsyncGenerator[ReaderEffect, None]:
        """Yield messages, void slots, lost messages and records as they are read.

        Raises:
            LocalProtocolError: When this reader is being read already.
            ZipnetError: While reading, when no server could serve (without ``follow``), or every
                server refuses for good.
        """
        if self._effects is not None:
            raise LocalProtocolError("a reader can be read once only")
        self._effects = self._read()
        return self._effects

    async def _read(self) -> AsyncGenerator[ReaderEffect, None]:
        while True:
            try:
                session = await self._dialer.open(self._turns.current(), expected_role=Role.SERVER)
                records = self._from_server(session)
                async with contextlib.aclosing(records):
                    async for record in records:
                        for effect in self._machine.step(RecordArrived(record)):
                            if isinstance(effect, RefuseRecord):
                                raise VerificationError(effect.text)
                            if isinstance(effect, FetchFrom):
                                raise RemoteProtocolError("the server skipped a record")
                            yield effect
                        self._turns.succeeded()
            except LINK_ERRORS as error:
                if not self._follow and self._turns.passes >= _PASSES_WITHOUT_FOLLOW:
                    raise
                await self._turns.failed(error)
            else:
                return

    async def _from_server(self, session: Session) -> AsyncGenerator[VerifiedRecord, None]:
        """Yield what one server has, and what it pushes; ends only when nothing is to follow."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUED_RECORDS)

        async def on_frame(frame: Frame) -> None:
            if frame.kind == Kind.RECORD_SEALED:
                await queue.put(decode(frame.payload, RecordSealed).record)
            elif frame.kind in (Kind.ROUND_OPENED, Kind.ROUND_ABORTED):
                await queue.put(_SIGN_OF_LIFE)
            else:
                raise RemoteProtocolError(f"frame kind {frame.kind} is no push for a reader")

        async with serving(session, on_frame) as served:
            async for record in self._pages(session):
                yield record
            if not self._follow:
                return
            subscribe = Subscribe(from_sequence=self._machine.next_sequence)
            answer = await session.request(Kind.SUBSCRIBE, encode(subscribe))
            decode(answer.payload, Subscribed)
            while (data := await _next(queue, served, self._silence_s)) is not None:
                if data != _SIGN_OF_LIFE:
                    yield await self._verifier.verify(data)
        raise session.ended_by or RemoteProtocolError("the server ended the link")

    async def _pages(self, session: Session) -> AsyncGenerator[VerifiedRecord, None]:
        while (at := self._machine.next_sequence) is not None:
            request = GetRecords(from_sequence=at, limit=MAX_RECORDS_PER_PAGE)
            answer = await session.request(Kind.GET_RECORDS, encode(request))
            page = decode(answer.payload, Records)
            for data in page.records:
                yield await self._verifier.verify(data)
            if not page.records or at + len(page.records) >= page.next_sequence:
                return


async def _next(
    queue: asyncio.Queue[bytes], served: asyncio.Task[None], silence_s: float
) -> bytes | None:
    """The next push; None once the link has ended and all that came was taken.

    Raises:
        TransportError: When nothing came for too long: a server cut off from the committee.
    """
    if queue.empty() and not served.done():
        waiting = asyncio.create_task(queue.get())
        try:
            await asyncio.wait(
                {waiting, served}, timeout=silence_s, return_when=asyncio.FIRST_COMPLETED
            )
            if waiting.done():
                return waiting.result()
        finally:
            waiting.cancel()
        if not served.done():
            raise TransportError(f"the server told of nothing for {silence_s:g} s")
    return None if queue.empty() else queue.get_nowait()

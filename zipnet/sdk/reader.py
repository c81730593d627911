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
5. A later version of the descriptor is taken from any server, as its operator's signature allows;
   reading goes on with the servers it names.
6. Servers are held against each other: two different records for one place, both signed by the
   committee, end the reading with the proof (``EquivocationError``).
7. A trust policy is asked before anything of a record is yielded.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Literal, Self

from zipnet.errors import (
    ConfigError,
    EquivocationError,
    LocalProtocolError,
    RemoteProtocolError,
    TransportError,
    TrustPolicyError,
    VerificationError,
    ZipnetError,
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
from zipnet.machines.trust import TrustPolicy
from zipnet.protocol.header import SignedHeader, verify_header
from zipnet.protocol.ids import RoundNumber
from zipnet.sdk.checkpoints import fetch_checkpoints
from zipnet.sdk.crosscheck import CrossCheck
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
from zipnet.transport.versions import fetch_earlier, know_version
from zipnet.wire.messages import (
    MAX_RECORDS_PER_PAGE,
    GetRecords,
    Kind,
    Records,
    RecordSealed,
    RoundOpened,
    Subscribe,
    Subscribed,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from types import TracebackType

    from zipnet.ledger.checkpoint import VerifiedCheckpoint
    from zipnet.machines.bookmark import Bookmark
    from zipnet.ports import Transport
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.ids import ServerIndex
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.transport.session import Session
    from zipnet.wire.frames import Frame

__all__ = ["Reader"]

_PASSES_WITHOUT_FOLLOW = 2
_QUEUED_RECORDS = 64
_SIGN_OF_LIFE = b""


class _Final(Exception):  # noqa: N818 - carries one out of the failover
    """What no other server mends."""

    def __init__(self, error: ZipnetError) -> None:
        super().__init__()
        self.error = error


class Reader:
    """A pass over the record log of one instance.

    Args:
        descriptor: The instance, verified.
        transport: ``quic``, ``tls``, or an adapter of the Transport port.
        from_sequence: First record to read; None starts with the next one that is sealed.
        resume: A bookmark of an earlier pass; takes the place of ``from_sequence``.
        follow: Whether to wait for records that do not exist yet.
        proxy: ``socks5://host:port`` all links go through; needs ``tls``.
        trust: What is asked of every record beyond the descriptor.
        cross_check: Records after which another server is asked for the same one; 0: never.
        servers_at: Host and port of each committee server, where the descriptor's do not apply.
        capability: Token shown to servers, where they ask readers for one; it makes every pass of
            its holder linkable by them.
        on_trouble: Told about failing servers while reading goes on.
    """

    def __init__(  # noqa: PLR0913 - options, each with a default
        self,
        descriptor: TrustedDescriptor,
        *,
        transport: Literal["quic", "tls"] | Transport = "quic",
        from_sequence: int | None = 0,
        resume: Bookmark | None = None,
        follow: bool = True,
        proxy: str | None = None,
        trust: TrustPolicy = TrustPolicy(),  # noqa: B008 - frozen
        cross_check: int = 32,
        servers_at: Sequence[tuple[str, int]] | None = None,
        capability: bytes | None = None,
        on_trouble: Trouble | None = None,
    ) -> None:
        if from_sequence is None and resume is None and not follow:
            raise LocalProtocolError("reading from now on needs `follow`")
        adapter = client_transport(transport, descriptor, proxy)
        self._dialer = Dialer(
            descriptor,
            adapter,
            None,
            secrets.token_bytes(16),
            servers_at,
            capability=capability,
        )
        self._turns = Turns(descriptor.descriptor.servers, on_trouble=on_trouble)
        self._machine = ReaderMachine(from_sequence, resume=resume)
        self._bookmark = resume
        self._trust_policy = trust
        self._trust = trust.bind(descriptor)
        self._follow = follow
        self._silence_s = silence_s(descriptor)
        self._verifier = RecordVerifier(descriptor)
        self._on_trouble = on_trouble
        self._cross_check = CrossCheck(
            descriptor, self._dialer, self._verifier, every=cross_check, on_trouble=on_trouble
        )
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

    @property
    def bookmark(self) -> Bookmark | None:
        """Where a later reader can go on: everything before it has been taken by the caller."""
        return self._bookmark

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

    @property
    def descriptor(self) -> TrustedDescriptor:
        """The newest version of the descriptor this reader has met, with those before it."""
        return self._verifier.descriptor

    async def checkpoints(self) -> dict[ServerIndex, VerifiedCheckpoint]:
        """Return the newest checkpoint of the record log that each server signs, verified.

        A server that does not answer is missing. What the checkpoints are of is for those to hold
        against who keep the whole log: see ``zipnet.sdk.archive``.
        """
        return await fetch_checkpoints(self._dialer, on_trouble=self._on_trouble)

    async def with_earlier(self) -> TrustedDescriptor:
        """Return the descriptor with all versions before it, of any server that has them.

        Where no server gives them, what is known already.
        """
        known = self._verifier.descriptor
        if known.descriptor.previous is None or known.earlier:
            return known
        for node in known.descriptor.servers:
            try:
                session = await self._dialer.open(node, expected_role=Role.SERVER)
                async with serving(session):
                    known = await fetch_earlier(session, known)
            except LINK_ERRORS as error:
                if self._on_trouble is not None:
                    self._on_trouble(error)
            else:
                self._verifier.use_descriptor(known)
                break
        return known

    def events(self) -> AsyncGenerator[ReaderEffect, None]:
        """Yield messages, void slots, rounds without a record, lost messages and records in order.

        Raises:
            LocalProtocolError: When this reader is being read already.
            EquivocationError: While reading, when the committee signed two stories; with the proof.
            TrustPolicyError: While reading, at a record that is not what the trust policy asks for.
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
                        for effect in await self._step(session, record):
                            if isinstance(effect, Advanced):  # the caller has all before it
                                self._bookmark = self._machine.bookmark
                            yield effect
                        self._turns.succeeded()
            except _Final as final:
                raise final.error from None
            except LINK_ERRORS as error:
                if not self._follow and self._turns.passes >= _PASSES_WITHOUT_FOLLOW:
                    raise
                await self._turns.failed(error)
            else:
                return

    async def _step(self, session: Session, record: VerifiedRecord) -> list[ReaderEffect]:
        try:
            self._trust.require_roster(record.record.content.header)
            effects = self._machine.step(RecordArrived(record))
            for effect in effects:
                if isinstance(effect, RefuseRecord):
                    await self._cross_check.same_session(session, self._machine.last)
                    if effect.reason == "bookmark":  # no server has the log that was read before
                        raise _Final(VerificationError(effect.text, hint="read from the beginning"))
                    raise VerificationError(effect.text)
                if isinstance(effect, FetchFrom):
                    raise RemoteProtocolError("the server skipped a record")
            await self._cross_check.now_and_then(self._turns.current(), record)
        except (TrustPolicyError, EquivocationError) as error:
            raise _Final(error) from error
        return effects

    async def _caught_up(self) -> None:
        """Hold the newest record against another server and against the clock."""
        last = self._machine.last
        if last is None:
            return
        try:
            await self._cross_check.another(self._turns.current(), last)
        except EquivocationError as error:
            raise _Final(error) from error
        # Too old a record is a server's fault first: another one may have newer ones.
        self._trust.require_recent(last.record.content.header, time.time_ns() // 1_000_000)

    async def _from_server(self, session: Session) -> AsyncGenerator[VerifiedRecord, None]:
        """Yield what one server has, and what it pushes; ends only when nothing is to follow."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUED_RECORDS)
        opened = RoundNumber(0)

        async def on_frame(frame: Frame) -> None:
            if frame.kind == Kind.RECORD_SEALED:
                await queue.put(decode(frame.payload, RecordSealed).record)
            elif frame.kind == Kind.ROUND_OPENED:
                nonlocal opened
                signed = SignedHeader.decode(decode(frame.payload, RoundOpened).header)
                await self._know_version(session, signed.header.descriptor_version)
                header = self._verified_header(signed)
                if header.round > opened:
                    opened = header.round
                    await queue.put(_SIGN_OF_LIFE)
            elif frame.kind in {Kind.ROUND_ABORTED, Kind.VERSION_ADOPTED}:
                pass  # nobody signs it, so it is no sign of the committee
            else:
                raise RemoteProtocolError(f"frame kind {frame.kind} is no push for a reader")

        async with serving(session, on_frame) as served:
            async for record in self._pages(session):
                yield record
            await self._caught_up()
            if not self._follow:
                return
            subscribe = Subscribe(from_sequence=self._machine.next_sequence)
            answer = await session.request(Kind.SUBSCRIBE, encode(subscribe))
            decode(answer.payload, Subscribed)
            while (data := await _next(queue, served, self._silence_s)) is not None:
                if data != _SIGN_OF_LIFE:
                    yield await self._verified(session, data)
        raise session.ended_by or RemoteProtocolError("the server ended the link")

    async def _verified(self, session: Session, data: bytes) -> VerifiedRecord:
        await self._know_version(session, self._verifier.version_of(data))
        return await self._verifier.verify(data)

    async def _know_version(self, session: Session, version: int) -> None:
        """Rule 5."""
        known = self._verifier.descriptor
        new = await know_version(session, known, version)
        if new is known:
            return
        try:
            self._trust = self._trust_policy.bind(new)
        except ConfigError as error:
            raise _Final(error) from error
        self._verifier.use_descriptor(new)
        self._dialer = self._dialer.under(new)
        self._turns = Turns(new.descriptor.servers, on_trouble=self._on_trouble)
        self._cross_check.use_descriptor(new, self._dialer)

    def _verified_header(self, signed: SignedHeader) -> RoundHeader:
        descriptor = self._verifier.descriptor.at(signed.header.descriptor_version)
        header = verify_header(signed, descriptor.committee_keys)
        if header.group != descriptor.group:
            raise VerificationError("round header belongs to another group")
        return header

    async def _pages(self, session: Session) -> AsyncGenerator[VerifiedRecord, None]:
        while (at := self._machine.next_sequence) is not None:
            request = GetRecords(from_sequence=at, limit=MAX_RECORDS_PER_PAGE)
            answer = await session.request(Kind.GET_RECORDS, encode(request))
            page = decode(answer.payload, Records)
            for data in page.records:
                yield await self._verified(session, data)
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

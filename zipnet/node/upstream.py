"""An aggregator's view of the committee: links to all servers, one of them followed.

protocol.md §6. Everything a server says is verified before it is used or relayed, so any server
will do; a server that goes away or says something wrong is replaced by the next one.

Rules:

1. Links to all servers are kept up; headers, records and aborts are taken from one, the source.
2. Pushes of a source are looked at in order, and not before its answer to ``SUBSCRIBE`` was.
3. Records are verified and must extend the last one before the sink hears of them.
4. A source that is distrusted is left; it may be taken again when its turn comes.
5. What names a later version of the descriptor than is known waits until the source has shown it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from zipnet.access.principal import PrincipalKind, local_principal
from zipnet.errors import (
    AdmissionError,
    RemoteProtocolError,
    TransportError,
    VerificationError,
    ZipnetError,
)
from zipnet.observe.log import get_logger
from zipnet.protocol.header import SignedHeader
from zipnet.protocol.ids import RoundNumber, ServerIndex
from zipnet.transport.dial import PersistentLink, refusal_code
from zipnet.transport.versions import know_version
from zipnet.wire.messages import (
    GetRecords,
    Kind,
    Records,
    RecordSealed,
    Revoked,
    RoundAborted,
    RoundOpened,
    Subscribe,
    Subscribed,
    VersionAdopted,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.node.record_tail import RecordTail
    from zipnet.node.wall import Wall
    from zipnet.ports import Transport
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.settings.values import Endpoint
    from zipnet.transport.session import Session, SessionTerms
    from zipnet.wire.frames import Frame

__all__ = ["Upstream", "UpstreamSink"]

_PAUSE_S = 0.05
_MAX_PAUSE_S = 2.0
_SETTLED_S = 5.0
_TAKEN = (
    Kind.ROUND_OPENED,
    Kind.RECORD_SEALED,
    Kind.ROUND_ABORTED,
    Kind.VERSION_ADOPTED,
    Kind.REVOKED,
)
_log = get_logger(__name__)


class UpstreamSink(Protocol):
    """Who is told what the source says."""

    def on_source_changed(self) -> None:
        """Another server is followed from now on."""
        ...

    def on_source_lost(self) -> None:
        """No server is followed at the moment."""
        ...

    def on_header(self, signed: SignedHeader) -> None:
        """A header arrived; it is not verified."""
        ...

    def on_record(self, record: VerifiedRecord, data: bytes) -> None:
        """The next record of the chain arrived and verifies."""
        ...

    def on_aborted(self, round_number: RoundNumber, why: int) -> None:
        """The source says that a round was given up."""
        ...

    async def on_revoked(self, statements: Sequence[bytes]) -> None:
        """A server says what was revoked; nothing of it is verified."""
        ...

    async def on_descriptor(self, descriptor: TrustedDescriptor) -> None:
        """The operator published a later version; it has been checked."""
        ...

    async def on_link_up(self, session: Session) -> None:
        """A link to a server stands, and serves nothing yet."""
        ...

    def on_distrust(self, reason: str) -> None:
        """The source said something wrong."""
        ...

    def on_link_refused(self, server: ServerIndex, error: ZipnetError) -> bool:
        """A server refused the link for good; True goes on trying, slowly."""
        ...

    def on_link_down(self, server: ServerIndex, error: ZipnetError) -> None:
        """A link to a server ended, or could not be made."""
        ...


class Upstream:
    """Links to the committee, and the source among them.

    Args:
        descriptor: Who the servers are.
        endpoints: Where to dial each, by index.
        terms: What this node says in handshakes.
        transport: Engine to dial with.
        tail: The verified records.
        sink: Who is told.
        wall: What stands before what servers push.
        first: Server to try first; spreads aggregators over servers.
    """

    def __init__(
        self,
        *,
        descriptor: TrustedDescriptor,
        endpoints: Sequence[Endpoint],
        terms: SessionTerms,
        transport: Transport,
        tail: RecordTail,
        sink: UpstreamSink,
        wall: Wall,
        first: int = 0,
    ) -> None:
        self._tail = tail
        self._sink = sink
        wall.require(_TAKEN)
        self._wall = wall
        self._turn = first % len(endpoints)
        self._source: ServerIndex | None = None
        self._lost = asyncio.Event()
        self._subscribed = False
        self._settled = asyncio.Event()  # the answer to SUBSCRIBE was looked at, or never will be
        self._some_up = asyncio.Event()
        self._transport = transport
        self._terms = terms
        self._descriptor = descriptor
        self._endpoints = tuple(endpoints)
        self._group: asyncio.TaskGroup | None = None
        self._running: dict[ServerIndex, asyncio.Task[None]] = {}
        self.links: tuple[PersistentLink, ...] = tuple(
            self._link_to(ServerIndex(position)) for position in range(len(endpoints))
        )

    def _link_to(self, server: ServerIndex) -> PersistentLink:
        endpoint, identity = self._endpoints[server], self._descriptor.committee[server]
        return PersistentLink(
            self._transport,
            endpoint.host,
            endpoint.port,
            identity.ed25519,
            self._terms,
            expected_peer=identity.peer_id,
            on_frame=self._handler_of(server),
            on_up=self._on_up,
            on_down=self._down_callback(server),
            on_refused=self._refused_callback(server),
        )

    def use_descriptor(self, descriptor: TrustedDescriptor, endpoints: Sequence[Endpoint]) -> None:
        """Go by a later version: whoever moved or was replaced is reached over another link."""
        old, self._descriptor = self._descriptor, descriptor
        before, self._endpoints = self._endpoints, tuple(endpoints)
        nodes = zip(old.descriptor.servers, descriptor.descriptor.servers, strict=True)
        for position, (was, now) in enumerate(nodes):
            same = (was.identity, was.certificate) == (now.identity, now.certificate)
            if not same or before[position] != self._endpoints[position]:
                self._replace(ServerIndex(position))

    def _replace(self, server: ServerIndex) -> None:
        running = self._running.pop(server, None)
        if running is not None:
            running.cancel()
        link = self._link_to(server)
        self.links = (*self.links[:server], link, *self.links[server + 1 :])
        if self._source == server:
            self._lose()
        if self._group is not None:
            self._running[server] = self._group.create_task(link.run())

    @property
    def source(self) -> ServerIndex | None:
        """The server that is followed, None while none is."""
        return self._source if self._subscribed else None

    async def run(self) -> None:
        """Keep the links up and follow one server until cancelled.

        Raises:
            ExceptionGroup: Holding a refusal that the sink did not want to live with.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for position, link in enumerate(self.links):
                    self._running[ServerIndex(position)] = group.create_task(link.run())
                group.create_task(self._follow())
        finally:
            self._group = None

    def distrust(self, reason: str) -> None:
        """Leave the source for the next server."""
        if self._source is not None and not self._lost.is_set():
            self._sink.on_distrust(reason)
            self._lose()

    def _lose(self) -> None:
        self._lost.set()
        self._settled.set()

    async def request(self, kind: int, payload: bytes, timeout_s: float | None = None) -> Frame:
        """Ask the source.

        Raises:
            TransportError: When no server is followed, or it does not answer.
            AdmissionError: When it refused.
        """
        if self._source is None:
            raise TransportError("no committee server is followed at the moment")
        return await self.links[self._source].request(kind, payload, timeout_s)

    async def read_records(self, from_sequence: int, limit: int) -> list[bytes]:
        """Fetch older records from the source and verify each by itself.

        Raises:
            TransportError: When the source does not answer.
            AdmissionError: When it refused.
            RemoteProtocolError: When its answer is malformed.
            VerificationError: When a record does not verify or is not the one asked for.
        """
        payload = encode(GetRecords(from_sequence=from_sequence, limit=limit))
        answer = await self.request(Kind.GET_RECORDS, payload)
        records = decode(answer.payload, Records).records[:limit]
        for position, data in enumerate(records):
            verified = await asyncio.to_thread(self._tail.verify, data)
            if verified.sequence != from_sequence + position:
                raise VerificationError("a server gave another record than the one asked for")
        return records

    # -- links -----------------------------------------------------------------------------

    async def _on_up(self, session: Session) -> None:
        await self._sink.on_link_up(session)
        self._some_up.set()

    def _down_callback(self, server: ServerIndex) -> Callable[[ZipnetError], None]:
        def on_down(error: ZipnetError) -> None:
            _log.debug("link_down", server=int(server), reason=refusal_code(error))
            if self._source == server:
                self._lose()
            self._sink.on_link_down(server, error)

        return on_down

    def _refused_callback(self, server: ServerIndex) -> Callable[[ZipnetError], bool]:
        return lambda error: self._sink.on_link_refused(server, error)

    # -- the source ------------------------------------------------------------------------

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = _PAUSE_S
        while True:
            server = await self._next_up()
            began = loop.time()
            await self._follow_one(server)
            self._turn = (server + 1) % len(self.links)
            self._sink.on_source_lost()
            settled = loop.time() - began >= _SETTLED_S
            pause_s = _PAUSE_S if settled else min(pause_s * 2, _MAX_PAUSE_S)
            await asyncio.sleep(pause_s)

    async def _follow_one(self, server: ServerIndex) -> None:
        self._source = server
        self._lost.clear()
        self._settled.clear()
        try:
            await self._subscribe(server)
            _log.info("source_followed", server=int(server))
            await self._lost.wait()
        except ZipnetError as error:
            _log.warning("source_refused", server=int(server), reason=refusal_code(error))
        finally:
            self._subscribed = False
            self._source = None
            self._settled.set()

    async def _next_up(self) -> ServerIndex:
        count = len(self.links)
        while True:
            self._some_up.clear()
            for step in range(count):
                position = (self._turn + step) % count
                if self.links[position].session is not None:
                    return ServerIndex(position)
            await self._some_up.wait()

    async def _subscribe(self, server: ServerIndex) -> None:
        payload = encode(Subscribe(from_sequence=self._tail.next_sequence))
        answer = await self.links[server].request(Kind.SUBSCRIBE, payload)
        stands = decode(answer.payload, Subscribed)
        self._sink.on_source_changed()
        if self._tail.next_sequence is None:
            await self._begin(stands)
        if stands.open_round is not None:
            await self._take_header(stands.open_round)
        self._subscribed = True
        self._settled.set()

    async def _begin(self, stands: Subscribed) -> None:
        if stands.last_record is None:
            self._tail.begin(stands.next_sequence)
        else:
            await self._take_record(stands.last_record)

    def _handler_of(self, server: ServerIndex) -> Callable[[Frame], Awaitable[Frame | None]]:
        principal = local_principal(PrincipalKind.SERVER, str(server))

        async def take(frame: Frame) -> None:
            if frame.kind == Kind.REVOKED:  # whichever server says it first
                await self._sink.on_revoked(decode(frame.payload, Revoked).statements)
            elif self._source == server:
                await self._on_push(frame, server)

        async def handle(frame: Frame) -> Frame | None:
            size, push = len(frame.payload), frame.request_id == 0
            try:
                await self._wall.pass_through(
                    principal, frame.kind, size, lambda: take(frame), push=push
                )
            except AdmissionError as error:
                if not push:
                    raise
                if self._source == server:
                    self.distrust(error.code)
            return None

        return handle

    async def _on_push(self, frame: Frame, server: ServerIndex) -> None:
        await self._settled.wait()
        if self._source != server or self._lost.is_set():
            return
        try:
            await self._take(frame)
        except (AdmissionError, RemoteProtocolError, VerificationError) as error:
            self.distrust(error.reason)
        except TransportError:  # the link broke while a later version was asked for
            self._lose()

    async def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.ROUND_OPENED:
                await self._take_header(decode(frame.payload, RoundOpened).header)
            case Kind.RECORD_SEALED:
                await self._take_record(decode(frame.payload, RecordSealed).record)
            case Kind.ROUND_ABORTED:
                aborted = decode(frame.payload, RoundAborted)
                self._sink.on_aborted(RoundNumber(aborted.round), aborted.why)
            case Kind.VERSION_ADOPTED:
                await self._know_version(decode(frame.payload, VersionAdopted).version)
            case _:
                raise RemoteProtocolError("a server pushed something nobody subscribed to")

    async def _take_header(self, data: bytes) -> None:
        signed = SignedHeader.decode(data)
        await self._know_version(signed.header.descriptor_version)
        self._sink.on_header(signed)

    async def _know_version(self, version: int) -> None:
        """Rule 5."""
        if self._source is not None:
            known = await know_version(self.links[self._source], self._tail.descriptor, version)
            if known is not self._tail.descriptor:
                await self._sink.on_descriptor(known)

    async def _take_record(self, data: bytes) -> None:
        await self._know_version(self._tail.version_of(data))
        record = await asyncio.to_thread(self._tail.verify, data)
        if self._tail.append(record, data):
            self._sink.on_record(record, data)

"""Following a committee whose servers are gone, back, slow, refusing or talking nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tests.harness.committee import HarnessCommittee
from tests.harness.fake_server import FakeServers, new_metrics, terms_of, tls_of
from zipnet.access.policy import Service
from zipnet.errors import AdmissionError, PeerClosedError, TransportError, ZipnetError
from zipnet.host.loopback import free_ports
from zipnet.node.record_tail import RecordTail
from zipnet.node.upstream import Upstream
from zipnet.node.wall import Wall, WallParts
from zipnet.settings.values import Endpoint
from zipnet.transport.session import Role
from zipnet.wire.frames import CloseCode, Frame
from zipnet.wire.limits import DEFAULT_LIMITS
from zipnet.wire.messages import Kind, VersionAdopted, encode

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.header import SignedHeader
    from zipnet.protocol.ids import RoundNumber, ServerIndex
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.transport.session import Session

PATIENCE_S: Final = 20.0
Answer = Callable[[Frame], Awaitable[Frame | None]]


class Sink:
    """Keeps what the source said."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.down: list[tuple[ServerIndex, str]] = []
        self.changed = asyncio.Event()

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self.changed.set()

    def on_source_changed(self) -> None:
        self._tell("followed")

    def on_source_lost(self) -> None:
        self._tell("lost")

    def on_header(self, signed: SignedHeader) -> None:
        self._tell(f"header {signed.header.round}")

    def on_record(self, record: VerifiedRecord, data: bytes) -> None:
        del data
        self._tell(f"record {record.sequence}")

    def on_aborted(self, round_number: RoundNumber, why: int) -> None:
        del why
        self._tell(f"aborted {round_number}")

    async def on_revoked(self, statements: Sequence[bytes]) -> None:
        self._tell(f"revoked {len(statements)}")

    async def on_descriptor(self, descriptor: TrustedDescriptor) -> None:
        self._tell(f"version {descriptor.version}")

    async def on_link_up(self, session: Session) -> None:
        del session

    def on_distrust(self, reason: str) -> None:
        self._tell(f"distrust {reason}")

    def on_link_down(self, server: ServerIndex, error: ZipnetError) -> None:
        if isinstance(error, PeerClosedError):
            self.down.append((server, error.said))

    def on_link_refused(self, server: ServerIndex, error: ZipnetError) -> bool:
        del server, error
        return True

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self.changed.clear()
                try:  # a source is followed a moment after the sink heard of it
                    await asyncio.wait_for(self.changed.wait(), 0.02)
                except TimeoutError:
                    continue


class Following:
    """Three servers and one upstream that follows them, server 0 first."""

    def __init__(self, found: FakeServers) -> None:
        self.found = found
        self.sink = Sink()
        self.asked = 0
        committee = found.committee
        root = committee.aggregators["root"]
        limits = replace(DEFAULT_LIMITS, request_deadline_s=0.5)
        self.upstream = Upstream(
            descriptor=committee.descriptor,
            endpoints=[Endpoint(n.host, n.port) for n in committee.descriptor.descriptor.servers],
            terms=replace(terms_of(committee, root, Role.AGGREGATOR), limits=limits),
            transport=tls_of(committee, root),
            tail=RecordTail(committee.descriptor),
            sink=self.sink,
            wall=Wall(Service.UPSTREAM, WallParts(new_metrics())),
        )

    def script(self, index: int, answer: Answer) -> None:
        """Let a server answer everything so, from its next session on."""

        async def counted(frame: Frame) -> Frame | None:
            self.asked += 1
            return await answer(frame)

        async def serve(session: Session, _handle: object) -> None:
            await session.serve(counted)

        self.found.servers[index].feed.serve = serve  # type: ignore[assignment,method-assign]

    async def until_source(self, *wanted: int | None) -> None:
        await self.sink.until(lambda: self.upstream.source in wanted)


@asynccontextmanager
async def following(
    *, without: tuple[int, ...] = (), first: Answer | None = None
) -> AsyncIterator[Following]:
    ports = dict(zip(("s0", "s1", "s2", "root"), free_ports(4), strict=True))
    async with FakeServers(HarnessCommittee(ports=ports)) as found:
        at = Following(found)
        if first is not None:
            at.script(0, first)
        for index in without:
            await found.servers[index].stop()
        running = asyncio.create_task(at.upstream.run())
        try:
            yield at
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _never(_frame: Frame) -> Frame | None:
    await asyncio.Event().wait()
    return None


async def _garbage(frame: Frame) -> Frame | None:
    return frame.answer(frame.kind, b"\xff\x00garbage")


async def _refuses(_frame: Frame) -> Frame | None:
    raise AdmissionError("no", code="overloaded")


async def _require_left_for_another(at: Following) -> None:
    """Whatever is wrong with server 0, which was asked first, another one is followed."""
    await at.sink.until(lambda: at.asked > 0)
    for index in (1, 2):
        await at.found.servers[index].start()
    await _require_another(at)


async def _require_another(at: Following) -> None:
    await at.until_source(1, 2)
    at.found.open_round()
    await at.sink.until(lambda: "header 1" in at.sink.told)


async def test_a_server_that_never_answers_is_left() -> None:
    async with following(without=(1, 2), first=_never) as at:
        await _require_left_for_another(at)


async def test_a_server_that_answers_garbage_is_left() -> None:
    async with following(without=(1, 2), first=_garbage) as at:
        await _require_left_for_another(at)


async def test_a_server_that_refuses_is_left() -> None:
    async with following(without=(1, 2), first=_refuses) as at:
        await _require_left_for_another(at)


async def test_with_every_server_gone_it_waits_and_follows_the_first_that_is_back() -> None:
    async with following() as at:
        await at.until_source(0, 1, 2)
        for server in at.found.servers:
            await server.stop()
        await at.until_source(None)
        await at.sink.until(lambda: "lost" in at.sink.told)
        await at.found.servers[2].start()
        await at.until_source(2)
        at.found.open_round()
        await at.sink.until(lambda: "header 1" in at.sink.told)


async def test_a_source_that_pushes_garbage_is_distrusted_and_its_pushes_are_dropped() -> None:
    async with following(without=(1, 2)) as at:
        await at.until_source(0)
        for index in (1, 2):
            await at.found.servers[index].start()
        root = at.found.committee.aggregators["root"].peer_id
        listener = at.found.servers[0].listener
        assert listener is not None
        session = listener.session_of(root, Role.AGGREGATOR)
        assert session is not None
        await session.push(Kind.ROUND_OPENED, b"\xff\x00garbage")
        await session.push(Kind.RECORD_SEALED, b"\xff\x00garbage")
        await at.sink.until(lambda: any(told.startswith("distrust") for told in at.sink.told))
        await _require_another(at)
        distrusted = [told for told in at.sink.told if told.startswith("distrust")]
        assert len(distrusted) == 1


async def test_a_link_that_breaks_while_a_later_version_is_asked_for_ends_nothing_else() -> None:
    async with following() as at:
        await at.until_source(0, 1, 2)
        source = at.upstream.source
        assert source is not None
        root = at.found.committee.aggregators["root"].peer_id
        listener = at.found.servers[source].listener
        assert listener is not None
        session = listener.session_of(root, Role.AGGREGATOR)
        assert session is not None
        link = at.upstream.links[source]

        async def broken(_kind: int, _payload: bytes, _timeout_s: float | None = None) -> Frame:
            await session.close(code=CloseCode.REFUSED, reason="not_registered")
            raise TransportError("the link broke")

        link.request = broken  # type: ignore[method-assign,assignment]
        await session.push(Kind.VERSION_ADOPTED, encode(VersionAdopted(version=2)))
        await at.sink.until(lambda: "lost" in at.sink.told)
        await at.until_source(*({0, 1, 2} - {source}))
        assert not any(told.startswith("distrust") for told in at.sink.told), "nobody lied"
        assert at.sink.down == [(source, "not_registered")]

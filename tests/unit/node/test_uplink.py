"""Delivering an aggregate to a parent that is gone, back, slow, unsure or out of its mind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest

from tests.harness.committee import HarnessCommittee
from tests.harness.fake_server import FakeServers, terms_of, tls_of
from zipnet.errors import AdmissionError, RemoteProtocolError
from zipnet.host.loopback import free_ports
from zipnet.node.uplink import deliver_aggregate
from zipnet.observe.metrics import NodeMetrics
from zipnet.transport.dial import Backoff, PersistentLink
from zipnet.transport.session import Role
from zipnet.wire.frames import Frame, SessionKind
from zipnet.wire.messages import Accepted, encode

if TYPE_CHECKING:
    from zipnet.transport.session import Session

PATIENCE_S: Final = 20.0
QUICK: Final = Backoff(first_s=0.02, most_s=0.05, settled_s=5.0)
Answer = Callable[[Frame], Awaitable[Frame | None]]


class Parents:
    """Servers as parents, each answering aggregates by a script, and the links to them."""

    def __init__(self, found: FakeServers) -> None:
        self.found = found
        self.registry = CollectorRegistry()
        self.metrics = NodeMetrics(self.registry, instance="harness.test", role="aggregator")
        self.asked: list[list[bytes]] = [[] for _ in found.servers]
        self.links: list[PersistentLink] = []

    def script(self, index: int, *answers: Answer) -> None:
        """Answer the first requests so, and all later ones like the last of them."""

        async def answer(frame: Frame) -> Frame | None:
            turn = len(self.asked[index])
            self.asked[index].append(frame.payload)
            return await answers[min(turn, len(answers) - 1)](frame)

        async def serve(session: Session) -> None:
            await session.serve(answer)

        # Looked up anew for each session, so it holds for servers that listen already.
        self.found.servers[index].feed.serve = lambda session, _handle: serve(session)  # type: ignore[assignment,method-assign]

    def link(self, index: int) -> PersistentLink:
        committee = self.found.committee
        node = committee.descriptor.descriptor.servers[index]
        root = committee.aggregators["root"]
        return PersistentLink(
            tls_of(committee, root),
            node.host,
            node.port,
            node.identity.ed25519,
            terms_of(committee, root, Role.AGGREGATOR),
            expected_peer=node.peer_id,
            backoff=QUICK,
        )

    async def deliver(self, blob: bytes = b"aggregate", deadline_s: float = PATIENCE_S) -> int:
        return await deliver_aggregate(
            blob, self.links, round_number=1, deadline_s=deadline_s, metrics=self.metrics
        )

    def rejected(self) -> str:
        return "\n".join(
            line
            for line in generate_latest(self.registry).decode().splitlines()
            if line.startswith("zipnet_") and "reject" in line and not line.endswith(" 0.0")
        )


@asynccontextmanager
async def parents(count: int) -> AsyncIterator[Parents]:
    ports = dict(zip(("s0", "s1", "s2", "root"), free_ports(4), strict=True))
    async with FakeServers(HarnessCommittee(ports=ports)) as found:
        at = Parents(found)
        at.links = [at.link(index) for index in range(count)]
        tasks = [asyncio.create_task(link.run()) for link in at.links]
        try:
            yield at
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def accept(frame: Frame) -> Frame | None:
    return frame.answer(frame.kind, encode(Accepted()))


def refuse(code: str) -> Answer:
    async def answer(_frame: Frame) -> Frame | None:
        raise AdmissionError("no", code=code)

    return answer


async def hang_up(_frame: Frame) -> Frame | None:
    raise RemoteProtocolError("enough of you")


async def never(_frame: Frame) -> Frame | None:
    await asyncio.Event().wait()
    return None


async def garbage(frame: Frame) -> Frame | None:
    return frame.answer(SessionKind.REFUSAL, b"\xff\x00garbage")


async def test_a_parent_that_is_gone_gets_the_same_bytes_once_it_is_back() -> None:
    async with parents(1) as at:
        at.script(0, accept)
        await asyncio.wait_for(at.links[0].wait_up(), PATIENCE_S)
        await at.found.servers[0].stop()
        await asyncio.wait_for(at.links[0].wait_down(), PATIENCE_S)
        delivering = asyncio.create_task(at.deliver())
        await asyncio.sleep(0)
        assert not delivering.done()
        await at.found.servers[0].start()
        assert await delivering == 1
        assert len(at.asked[0]) == 1


async def test_a_parent_that_hangs_up_on_the_aggregate_gets_it_again_unchanged() -> None:
    async with parents(1) as at:
        at.script(0, hang_up, hang_up, accept)
        assert await at.deliver() == 1
        assert len(at.asked[0]) == 3
        assert len(set(at.asked[0])) == 1


async def test_what_passes_by_itself_is_tried_again() -> None:
    async with parents(1) as at:
        at.script(0, refuse("round_not_open"), refuse("overloaded"), refuse("not_ready"), accept)
        assert await at.deliver() == 1
        assert len(at.asked[0]) == 4
        assert not at.rejected()


async def test_a_refusal_for_good_is_counted_and_not_argued_with() -> None:
    async with parents(1) as at:
        at.script(0, refuse("participants_overlap"), accept)
        assert await at.deliver() == 0
        assert len(at.asked[0]) == 1
        assert "participants_overlap" in at.rejected()


async def test_a_parent_that_answers_garbage_is_counted_and_not_asked_again() -> None:
    async with parents(1) as at:
        at.script(0, garbage, accept)
        assert await at.deliver() == 0
        assert len(at.asked[0]) == 1
        assert RemoteProtocolError.reason in at.rejected()


async def test_a_silent_parent_costs_its_deadline_and_holds_up_no_other() -> None:
    async with parents(3) as at:
        at.script(0, never)
        at.script(1, accept)
        at.script(2, refuse("round_not_open"))
        loop = asyncio.get_running_loop()
        began = loop.time()
        delivering = asyncio.create_task(at.deliver(deadline_s=1.5))
        async with asyncio.timeout(PATIENCE_S):
            while not at.asked[1]:  # noqa: ASYNC110 - what happens on the far side rings no bell
                await asyncio.sleep(0.01)
        assert not delivering.done()
        assert await delivering == 1
        assert loop.time() - began < PATIENCE_S / 2
        assert len(at.asked[0]) == 1
        assert len(at.asked[2]) > 1
        assert "transport" in at.rejected()
        assert "round_not_open" in at.rejected()

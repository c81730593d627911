"""The committee's links among its own members: consensus traffic, blobs and requests.

Each server dials every other one and uses that link for what *it* sends; what others send arrives
on the links they dialled (zipnet.node.listen). Implements :class:`zipnet.ports.ConsensusMesh`.

Rules:

1. ``send`` never waits: each link has one bounded queue; when it is full or the link is down the
   message is dropped, and the engine sends again.
2. Messages of one link leave in order.
3. A member that keeps leaving requests unanswered is not asked for a while
   (``zipnet.node.breakers``); what is pushed to it, consensus above all, goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from zipnet.errors import AdmissionError, LocalProtocolError, TransportError
from zipnet.protocol.ids import ServerIndex
from zipnet.wire.messages import Kind, Message, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zipnet.node.breakers import Breakers
    from zipnet.transport.dial import PersistentLink

__all__ = ["CommitteeMesh"]

_MAX_QUEUED = 4096


class CommitteeMesh:
    """This server's outgoing links, by server index.

    Args:
        links: One link for each other member.
        breakers: Who is left alone for a while; None asks whatever happens.
    """

    def __init__(
        self, links: Mapping[ServerIndex, PersistentLink], breakers: Breakers | None = None
    ) -> None:
        self._breakers = breakers
        self._lanes = {server: _Lane(link) for server, link in links.items()}
        self._on_change: Callable[[ServerIndex, bool], None] = lambda _server, _up: None
        self._group: asyncio.TaskGroup | None = None
        self._running: dict[ServerIndex, list[asyncio.Task[None]]] = {}

    def send(self, server: int, message: bytes) -> None:
        """Queue one consensus message; drop it where the link is down or its queue full."""
        lane = self._lanes.get(ServerIndex(server))
        if lane is not None:
            lane.put(Kind.CONSENSUS, message)

    def push(self, server: ServerIndex, kind: Kind, message: Message) -> None:
        """Queue a message that nobody answers, under the same rule."""
        self._lanes[server].put(kind, encode(message))

    def push_all(self, kind: Kind, message: Message) -> None:
        """Queue a message for every other member."""
        payload = encode(message)
        for lane in self._lanes.values():
            lane.put(kind, payload)

    @property
    def members(self) -> tuple[ServerIndex, ...]:
        """The other members, in order."""
        return tuple(self._lanes)

    @property
    def links(self) -> Mapping[ServerIndex, PersistentLink]:
        """The link to each other member."""
        return {server: lane.link for server, lane in self._lanes.items()}

    def connected(self) -> frozenset[int]:
        """Return the members whose link is up now."""
        return frozenset(s for s, lane in self._lanes.items() if lane.link.session is not None)

    def expect(self, server: ServerIndex) -> None:
        """Dial a member now, where its link is down: it was just heard, so it is there again."""
        lane = self._lanes.get(server)
        if lane is not None and lane.link.session is None:
            lane.link.retry_now()

    async def request(
        self, server: ServerIndex, kind: Kind, message: Message, *, timeout_s: float
    ) -> bytes:
        """Ask another member and return its answer's payload.

        Raises:
            TransportError: When there is no link, no answer in time, or there was none lately.
            AdmissionError: When the member refused.
            LocalProtocolError: When asked to ask itself.
        """
        lane = self._lanes.get(server)
        if lane is None:
            raise LocalProtocolError("a server does not ask itself")
        breakers, target = self._breakers, f"server_{server}"
        if breakers is None or lane.link.session is None:
            return (await lane.link.request(kind, encode(message), timeout_s)).payload
        if not breakers.allows(target):
            raise TransportError(f"server {server} is left alone for a while: it did not answer")
        try:
            answer = await lane.link.request(kind, encode(message), timeout_s)
        except TransportError:
            breakers.failed(target)
            raise
        except AdmissionError:  # a refusal is an answer
            breakers.succeeded(target)
            raise
        breakers.succeeded(target)
        return answer.payload

    async def run(self, on_change: Callable[[ServerIndex, bool], None]) -> None:
        """Keep all links up and their queues moving until cancelled.

        Args:
            on_change: Told the server and whether its link is up now.

        Raises:
            ZipnetError: When a member refuses this server for good.
        """
        self._on_change = on_change
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for server in self._lanes:
                    self._start(server)
                group.create_task(_for_ever())
        finally:
            self._group = None

    def _start(self, server: ServerIndex) -> None:
        if self._group is None:
            return
        lane = self._lanes[server]
        works = (lane.link.run(), lane.drain(), lane.watch(server, self._on_change))
        self._running[server] = [self._group.create_task(work) for work in works]

    def replace(self, server: ServerIndex, link: PersistentLink) -> None:
        """Reach a member over another link from now on: it moved, or it is another server."""
        was_up = self._lanes[server].link.session is not None
        for task in self._running.pop(server, []):
            task.cancel()
        if was_up:
            self._on_change(server, False)  # noqa: FBT003 - a callback's plain pair
        self._lanes[server] = _Lane(link)
        self._start(server)


async def _for_ever() -> None:
    """Hold the group open while a link is replaced."""
    await asyncio.Event().wait()


class _Lane:
    """One link and the queue of what leaves over it."""

    def __init__(self, link: PersistentLink) -> None:
        self.link = link
        self._queue: deque[tuple[Kind, bytes]] = deque()
        self._filled = asyncio.Event()

    def put(self, kind: Kind, payload: bytes) -> None:
        if self.link.session is None or len(self._queue) >= _MAX_QUEUED:
            return
        self._queue.append((kind, payload))
        self._filled.set()

    async def drain(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                kind, payload = self._queue.popleft()
                try:
                    await self.link.push(kind, payload)
                except TransportError:
                    # What was queued for the old link is stale on the next one.
                    self._queue.clear()

    async def watch(
        self, server: ServerIndex, on_change: Callable[[ServerIndex, bool], None]
    ) -> None:
        while True:
            await self.link.wait_up()
            on_change(server, True)  # noqa: FBT003 - a callback's plain pair
            await self.link.wait_down()
            on_change(server, False)  # noqa: FBT003

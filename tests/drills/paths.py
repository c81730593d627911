"""Paths between a client and a network that somebody else holds: lossy ones, and tapped ones."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, Self, cast

from zipnet.errors import TransportError
from zipnet.transport.quic import QuicTransport
from zipnet.wire.frames import MAX_REQUEST_ID, Frame, SessionKind
from zipnet.wire.handshake import Refusal, decode_handshake

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from zipnet.ports import Connection, Listener, PeerCertificate, Transport

__all__ = ["LossyPath", "Rerouted", "Wiretap"]

SEED = 20261121
PATIENCE_S = 20.0


class _Front(asyncio.DatagramProtocol):
    """What clients send to; each client gets a socket of its own towards the node."""

    def __init__(self, path: LossyPath, port: int) -> None:
        self._path, self._port = path, port
        self._backs: dict[tuple[str, int], asyncio.DatagramTransport] = {}
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # One by its methods only in some versions of Python.
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._path.start(self._to_node(data, addr))

    async def _to_node(self, data: bytes, addr: tuple[str, int]) -> None:
        back = self._backs.get(addr)
        if back is None:
            loop = asyncio.get_running_loop()
            back, _ = await loop.create_datagram_endpoint(
                lambda: _Back(self, addr), remote_addr=("127.0.0.1", self._port)
            )
            self._backs[addr] = back
        self._path.pass_on(lambda: back.sendto(data))

    def to_client(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        transport = self.transport
        self._path.pass_on(lambda: transport.sendto(data, addr))

    def close(self) -> None:
        for transport in (self.transport, *self._backs.values()):
            if transport is not None:
                transport.close()


class _Back(asyncio.DatagramProtocol):
    def __init__(self, front: _Front, client: tuple[str, int]) -> None:
        self._front, self._client = front, client

    def datagram_received(self, data: bytes, _addr: tuple[str, int]) -> None:
        self._front.to_client(data, self._client)


class LossyPath:
    """UDP relays in front of all ports of a network that lose, delay, double and reorder.

    Args:
        ports: The nodes' ports by name.
        loss: Share of datagrams lost, in each direction.
        delay_s: Longest delay; it is drawn for each datagram, so they overtake each other.

    Attributes:
        ports: Where each node's port is reached through the path.
    """

    def __init__(self, ports: Mapping[str, int], *, loss: float, delay_s: float) -> None:
        self.ports: dict[int, int] = {}
        self.seen = self.lost = self.doubled = 0
        self._targets = list(ports.values())
        self._loss, self._delay_s = loss, delay_s
        self._drawn = random.Random(SEED)
        self._fronts: list[_Front] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for port in self._targets:
            transport, front = await loop.create_datagram_endpoint(
                lambda port=port: _Front(self, port),  # type: ignore[misc]
                local_addr=("127.0.0.1", 0),
            )
            self.ports[port] = transport.get_extra_info("sockname")[1]
            self._fronts.append(front)
        return self

    async def __aexit__(self, *_: object) -> None:
        for front in self._fronts:
            front.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, work: Awaitable[None]) -> None:
        """Run something beside."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def pass_on(self, send: Callable[[], None]) -> None:
        """Send a datagram later, twice, or not at all."""
        self.seen += 1
        if self._drawn.random() < self._loss:
            self.lost += 1
            return
        loop = asyncio.get_running_loop()
        loop.call_later(self._drawn.random() * self._delay_s, send)
        if self._drawn.random() < self._loss / 4:
            self.doubled += 1
            loop.call_later(self._drawn.random() * self._delay_s, send)


class Rerouted:
    """QUIC to other ports than the descriptor's.

    Args:
        ports: Port that is meant → port that is dialled.
    """

    name = "quic"

    def __init__(self, ports: Mapping[int, int]) -> None:
        self._ports = ports
        self._transport = QuicTransport(None, registered={})

    async def connect(
        self, host: str, port: int, *, expected_key: bytes, timeout_s: float
    ) -> Connection:
        """Dial the port that stands for this one."""
        return await self._transport.connect(
            host, self._ports[port], expected_key=expected_key, timeout_s=timeout_s
        )

    async def listen(
        self, host: str, port: int, handler: Callable[[Connection], Awaitable[None]]
    ) -> Listener:
        """Not for clients."""
        return await self._transport.listen(host, port, handler)


class _Tapped:
    """A connection whose frames are noted, and may be sent again."""

    def __init__(self, connection: Connection, tap: Wiretap) -> None:
        self._connection, self._tap = connection, tap
        self._again = MAX_REQUEST_ID
        self._answers: dict[int, asyncio.Future[Frame]] = {}

    @property
    def peer_certificate(self) -> PeerCertificate:
        return self._connection.peer_certificate

    @property
    def local_certificate(self) -> PeerCertificate:
        return self._connection.local_certificate

    @property
    def remote_address(self) -> str:
        return self._connection.remote_address

    async def send(self, frame: Frame) -> None:
        self._tap.note(self, frame)
        await self._connection.send(frame)

    async def receive(self) -> Frame:
        while True:
            frame = await self._connection.receive()
            waiting = self._answers.pop(frame.request_id, None) if frame.response else None
            if waiting is None:
                return frame
            waiting.set_result(frame)

    async def close(self, *, code: int = 0, reason: str = "") -> None:
        for waiting in self._answers.values():
            waiting.cancel()
        await self._connection.close(code=code, reason=reason)

    async def inject(self, frame: Frame) -> Frame:
        self._again -= 1
        number = self._again
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._connection.send(Frame(frame.kind, number, frame.payload))
        return await self._answers[number]


class Wiretap:
    """A transport that notes what a client sends, and sends it again when told.

    Args:
        transport: What really dials.

    Attributes:
        last: The last frame of each kind.
        proofs: Payloads of the proofs of handshakes, in order.
    """

    def __init__(self, transport: Transport) -> None:
        self.name = transport.name
        self.last: dict[int, Frame] = {}
        self.proofs: list[bytes] = []
        self._transport = transport
        self._links: dict[int, _Tapped] = {}
        self._noted: dict[int, asyncio.Event] = {}
        self._before: deque[Frame] = deque(maxlen=8)

    async def connect(
        self, host: str, port: int, *, expected_key: bytes, timeout_s: float
    ) -> Connection:
        """Dial, and listen in."""
        connection = await self._transport.connect(
            host, port, expected_key=expected_key, timeout_s=timeout_s
        )
        return _Tapped(connection, self)

    async def listen(
        self, host: str, port: int, handler: Callable[[Connection], Awaitable[None]]
    ) -> Listener:
        """Not for clients."""
        return await self._transport.listen(host, port, handler)

    def note(self, link: _Tapped, frame: Frame) -> None:
        """Keep a frame."""
        if frame.kind == SessionKind.PROOF:
            self.proofs.append(frame.payload)
        self.last[frame.kind] = frame
        self._links[frame.kind] = link
        self._noted.setdefault(frame.kind, asyncio.Event()).set()

    async def heard(self, kind: int) -> None:
        """Wait for the next frame of a kind."""
        noted = self._noted.setdefault(kind, asyncio.Event())
        noted.clear()
        async with asyncio.timeout(PATIENCE_S):
            await noted.wait()

    async def again(self, kind: int) -> str:
        """Send the last frame of a kind again; returns what it is answered with, in a word."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self._links[kind].inject(self.last[kind])
        except (TransportError, asyncio.CancelledError):
            return "cut"
        if answer.kind == SessionKind.REFUSAL:
            return decode_handshake(answer.payload, Refusal).code
        return "answered"

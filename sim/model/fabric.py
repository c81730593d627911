"""The modelled network and processors: when bytes arrive and when work is done.

Rules:

1. A node sends through one upstream and receives through one downstream; both serve messages one
   after the other. Propagation takes the latency shares of both ends plus jitter.
2. Messages of one pair arrive in order, as on a stream. A lost packet costs time, never the bytes,
   as with QUIC and TCP.
3. Draws of a pair come from a generator of its own, so that what one pair does changes no other.
4. Both ends spend time of their core on every message before it leaves and when it is there.
5. What was sent to or by a node that is down or cut off is lost.
6. A processor does one thing after another; its time is virtual.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Fabric", "Packet", "Port", "Processor"]

_FRAME_BYTES = 12
_RECORD_BYTES = 22
_PACKET_PAYLOAD = 1200
_PACKET_OVERHEAD = 60
_BITS = 8


@dataclass(slots=True)
class Port:
    """Where one node is attached: bandwidths in bytes per second, latency share in seconds."""

    name: str
    up: float
    down: float
    latency: float
    up_free: float = 0.0
    down_free: float = 0.0
    sent: int = 0
    received: int = 0
    core_free: float = 0.0
    online: bool = True
    cut: bool = False
    life: int = 0

    @property
    def reachable(self) -> bool:
        """Whether messages pass."""
        return self.online and not self.cut


@dataclass(frozen=True, slots=True)
class Packet:
    """What somebody who watches all links sees of one message: times in seconds, size in bytes."""

    sent: float
    arrived: float
    source: str
    target: str
    kind: str
    size: int


@dataclass(slots=True)
class _Pair:
    rng: random.Random
    last: float = 0.0


@dataclass(slots=True)
class Fabric:
    """All links.

    Args:
        seed: Where every draw comes from.
        jitter: Bound of the jitter, in seconds.
        loss: Probability that a message needs a retransmission.
        retransmit: What that costs, in seconds.
        message_fixed: What one message costs either end's core, in seconds.
        message_byte: What one byte of it costs.
    """

    seed: int
    jitter: float = 0.0
    loss: float = 0.0
    retransmit: float = 0.2
    message_fixed: float = 0.0
    message_byte: float = 0.0
    watchers: list[Callable[[Packet], None]] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _pairs: dict[tuple[str, str], _Pair] = field(default_factory=dict)

    def send(
        self, source: Port, target: Port, kind: str, size: int, deliver: Callable[[], None]
    ) -> None:
        """Put a message of ``size`` payload bytes on its way; ``deliver`` runs when it is there."""
        if not (source.reachable and target.reachable):
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        wire = wire_bytes(size)
        source.sent += wire
        self.kinds[kind] += wire
        pair = self._pair(source, target)
        begin = max(self._handle(source, now, size), source.up_free)
        source.up_free = begin + wire / source.up
        delay = source.latency + target.latency + pair.rng.random() * self.jitter
        if self.loss and pair.rng.random() < self.loss:
            delay += self.retransmit
        lives = source.life, target.life
        first = begin + delay

        def arrive() -> None:
            if not target.reachable or lives != (source.life, target.life):
                return
            target.received += wire
            start = max(loop.time(), target.down_free)
            done = max(start + wire / target.down, source_done)
            done = max(done, pair.last)
            target.down_free = start + wire / target.down
            pair.last = done
            loop.call_at(self._handle(target, done, size), land)

        def land() -> None:
            if target.reachable and lives == (source.life, target.life):
                for watch in self.watchers:
                    watch(Packet(now, loop.time(), source.name, target.name, kind, wire))
                deliver()

        source_done = source.up_free + delay
        loop.call_at(first, arrive)

    def _handle(self, port: Port, at: float, size: int) -> float:
        """Take a node's core for one message and return when that is done."""
        port.core_free = max(at, port.core_free) + self.message_fixed + size * self.message_byte
        return port.core_free

    def _pair(self, source: Port, target: Port) -> _Pair:
        key = source.name, target.name
        pair = self._pairs.get(key)
        if pair is None:
            pair = _Pair(random.Random(f"{self.seed}/{source.name}/{target.name}"))
            self._pairs[key] = pair
        return pair


def wire_bytes(size: int) -> int:
    """Return the bytes on the wire of a message: frame, TLS record, packet headers."""
    payload = size + _FRAME_BYTES + _RECORD_BYTES
    return payload + -(-payload // _PACKET_PAYLOAD) * _PACKET_OVERHEAD


def per_second(mbit: float) -> float:
    """Convert Mbit/s to bytes per second."""
    return mbit * 1e6 / _BITS


class Processor:
    """One core that works off what it is given in turn."""

    __slots__ = ("_free", "busy")

    def __init__(self) -> None:
        self._free = 0.0
        self.busy = 0.0

    def reserve(self, seconds: float) -> float:
        """Take the core for so long and return the virtual time at which it is done."""
        now = asyncio.get_running_loop().time()
        self._free = max(now, self._free) + seconds
        self.busy += seconds
        return self._free

    def run(self, seconds: float, then: Callable[[], None]) -> None:
        """Call ``then`` when work of so many seconds is done."""
        asyncio.get_running_loop().call_at(self.reserve(seconds), then)

    async def work(self, seconds: float) -> None:
        """Return when work of so many seconds is done."""
        done = self.reserve(seconds)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        loop.call_at(done, _finish, future)
        await future


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

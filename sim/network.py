"""A network of FIFO links between numbered machines, with everything that goes wrong on one.

Messages of one link arrive in order; links have delays of their own, so order across links is
arbitrary. A reset loses a random tail of what is under way and, with ``repeats``, delivers the last
messages that did arrive once more after the reconnect. A blocked direction swallows messages, with
the ends being told (``visible``) or not. Single messages are lost as from an overfull queue.

Times are virtual seconds of the running loop.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Endpoint", "Life", "Network", "Weather"]

_REMEMBERED = 4


class Endpoint(Protocol):
    """What a machine does with its links."""

    def receive(self, server: int, message: bytes) -> None:
        """Take one message."""
        ...

    def link_changed(self, server: int, *, up: bool) -> None:
        """Note that a link came up or went down."""
        ...


@dataclass(frozen=True, slots=True)
class Weather:
    """How links behave.

    Attributes:
        delay_s: Least and greatest delay of a message.
        loss: Probability that one message is swallowed.
        repeats: Whether the last delivered messages come again after a reconnect.
        reconnect_s: Least and greatest time from a reset until the link is up again.
    """

    delay_s: tuple[float, float] = (0.001, 0.005)
    loss: float = 0.0
    repeats: bool = True
    reconnect_s: tuple[float, float] = (0.02, 0.5)


@dataclass(slots=True)
class _Lane:
    """One direction of a link."""

    under_way: deque[tuple[asyncio.TimerHandle, bytes]] = field(default_factory=deque)
    delivered: deque[bytes] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    free_at: float = 0.0
    swallowing: bool = False


class Life:
    """One machine's place in the network between a start and a crash: its mesh."""

    def __init__(self, network: Network, server: int) -> None:
        self._network = network
        self.server = server
        self.endpoint: Endpoint | None = None

    def send(self, server: int, message: bytes) -> None:
        """Send; silently nothing when there is no link."""
        self._network.send(self, server, message)

    def connected(self) -> frozenset[int]:
        """Machines to which a link is up."""
        return self._network.links_of(self.server)


class Network:
    """All links among ``size`` machines."""

    def __init__(self, size: int, rng: random.Random) -> None:
        self._size = size
        self._rng = rng
        self._lanes = {(a, b): _Lane() for a in range(size) for b in range(size) if a != b}
        self._up: set[frozenset[int]] = set()
        self._severed: set[frozenset[int]] = set()
        self._lives: dict[int, Life] = {}
        self.weather = Weather()

    def join(self, server: int) -> Life:
        """Give machine ``server`` a new life; set its ``endpoint``, then :meth:`connect` it."""
        life = Life(self, server)
        self._lives[server] = life
        return life

    def connect(self, server: int) -> None:
        """Bring up the links of a machine whose endpoint is ready."""
        for other in self._lives:
            if other != server:
                self._reconnect(frozenset((server, other)))

    def leave(self, server: int) -> None:
        """Take a machine away: part of what it sent still arrives, nothing reaches it."""
        del self._lives[server]
        for other in range(self._size):
            if other != server:
                self._take_down(frozenset((server, other)))
                self._lanes[server, other].delivered.clear()

    def links_of(self, server: int) -> frozenset[int]:
        """Machines to which ``server`` has a link that is up."""
        return frozenset(next(iter(pair - {server})) for pair in self._up if server in pair)

    def send(self, life: Life, to: int, message: bytes) -> None:
        """Put a message on its way."""
        pair = frozenset((life.server, to))
        lane = self._lanes[life.server, to]
        gone = self._lives.get(life.server) is not life or pair not in self._up
        if gone or lane.swallowing or self._rng.random() < self.weather.loss:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + self._rng.uniform(*self.weather.delay_s)
        lane.free_at = max(due, lane.free_at + 1e-6)
        handle = loop.call_at(lane.free_at, self._arrive, life.server, to)
        lane.under_way.append((handle, message))

    def reset(self, one: int, other: int) -> None:
        """Break a link; it comes back by itself unless it is severed."""
        pair = frozenset((one, other))
        self._take_down(pair)
        delay = self._rng.uniform(*self.weather.reconnect_s)
        asyncio.get_running_loop().call_later(delay, self._reconnect, pair)

    def sever(self, one: int, other: int) -> None:
        """Break a link until :meth:`heal`; both ends learn of it."""
        pair = frozenset((one, other))
        self._severed.add(pair)
        self._take_down(pair)

    def swallow(self, source: int, target: int) -> None:
        """Lose everything in one direction until :meth:`heal`; nobody learns of it."""
        self._lanes[source, target].swallowing = True

    def heal(self) -> None:
        """End all blocks and bring every link up."""
        self._severed.clear()
        for lane in self._lanes.values():
            lane.swallowing = False
        for server in self._lives:
            self.connect(server)

    def _arrive(self, source: int, target: int) -> None:
        lane = self._lanes[source, target]
        _, message = lane.under_way.popleft()
        if not lane.swallowing:
            self._deliver(source, target, message)

    def _deliver(self, source: int, target: int, message: bytes) -> None:
        life = self._lives.get(target)
        if life is not None and life.endpoint is not None:
            self._lanes[source, target].delivered.append(message)
            life.endpoint.receive(source, message)

    def _take_down(self, pair: frozenset[int]) -> None:
        if pair not in self._up:
            return
        self._up.discard(pair)
        one, other = sorted(pair)
        for source, target in ((one, other), (other, one)):
            lane = self._lanes[source, target]
            waiting = [message for _, message in lane.under_way]
            for handle, _ in lane.under_way:
                handle.cancel()
            lane.under_way.clear()
            for message in waiting[: self._rng.randint(0, len(waiting))]:
                if not lane.swallowing:
                    self._deliver(source, target, message)
        self._tell(pair, up=False)

    def _reconnect(self, pair: frozenset[int]) -> None:
        ready = all(s in self._lives and self._lives[s].endpoint is not None for s in pair)
        if pair in self._up or pair in self._severed or not ready:
            return
        self._up.add(pair)
        self._tell(pair, up=True)
        one, other = sorted(pair)
        for source, target in ((one, other), (other, one)):
            lane = self._lanes[source, target]
            repeated = list(lane.delivered) if self.weather.repeats and not lane.swallowing else []
            lane.delivered.clear()
            for message in repeated:
                self._deliver(source, target, message)

    def _tell(self, pair: frozenset[int], *, up: bool) -> None:
        for server in sorted(pair):
            life = self._lives.get(server)
            if life is not None and life.endpoint is not None:
                (other,) = pair - {server}
                life.endpoint.link_changed(other, up=up)

"""A live network with a relay of ours on every way into a node."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

from tests.chaos.relay import Relay
from tests.harness.network import LiveNetwork, free_ports

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.schedule import Fault

__all__ = ["World"]

TREE: dict[str, str | None] = {"root": None, "leaf-a": "root", "leaf-b": "root"}
DELAY_S = 0.25


class World:
    """Nodes listen behind relays; servers dial each other through one relay for each direction.

    Attributes:
        restarts_s: Seconds from starting a killed node to its word that it listens.
        applied: How many faults were brought about.
    """

    def __init__(self, folder: Path, *, servers: int, max_absent: int) -> None:
        self.network = LiveNetwork(folder, servers=servers, max_absent=max_absent, tree=TREE)
        names = list(self.network.nodes)
        self._real = dict(zip(names, free_ports(len(names)), strict=True))
        self._front = {n: Relay(self.network.ports[n], self._real[n]) for n in names}
        servers_by_name = [node.name for node in self.network.server_nodes]
        self._pairs = {
            (a, b): Relay(0, self._real[b]) for a in servers_by_name for b in servers_by_name
        }
        self._busy = {name: asyncio.Lock() for name in names}
        self.restarts_s: list[float] = []
        self.applied = 0

    async def start(self) -> None:
        """Start relays, then nodes; returns when all listen."""
        for relay in (*self._front.values(), *self._pairs.values()):
            await relay.start()
        for name, node in self.network.nodes.items():
            node.arguments += ["--listen", f"127.0.0.1:{self._real[name]}"]
            ways = [f"127.0.0.1:{r.port}" for (a, _), r in self._pairs.items() if a == name]
            if ways:
                node.arguments += ["--bootstrap", ",".join(ways)]
        await asyncio.to_thread(self.network.start)

    async def close(self) -> None:
        """Wake, stop and wait for everything."""
        for node in self.network.nodes.values():
            if node.is_running():
                os.kill(node.pid, signal.SIGCONT)
        try:
            await asyncio.to_thread(self.network.close)
        finally:
            for relay in (*self._front.values(), *self._pairs.values()):
                await relay.close()

    async def bring(self, fault: Fault, began: float) -> None:
        """Wait for a fault's time, bring it about, and mend it; one at a time for each node."""
        await asyncio.sleep(max(0.0, began + fault.at_s - time.monotonic()))
        async with self._busy[fault.node]:
            self.applied += 1
            if fault.kind == "kill":
                await self._kill(fault)
            elif fault.kind == "pause":
                await self._pause(fault)
            else:
                await self._disturb(fault)

    async def _kill(self, fault: Fault) -> None:
        node = self.network.nodes[fault.node]
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(fault.lasts_s)
        began = time.monotonic()
        node.start()
        await asyncio.to_thread(node.wait_ready)
        self.restarts_s.append(time.monotonic() - began)

    async def _pause(self, fault: Fault) -> None:
        pid = self.network.nodes[fault.node].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            os.kill(pid, signal.SIGCONT)

    async def _disturb(self, fault: Fault) -> None:
        pairs = [r for ends, r in self._pairs.items() if fault.node in ends]
        relays = [self._front[fault.node], *pairs]
        for relay in relays:
            if fault.kind == "delay":
                relay.delay_s = DELAY_S
            elif fault.kind == "stall":
                relay.flowing.clear()
            else:
                relay.reachable = fault.kind == "cut"
                relay.cut()
        await asyncio.sleep(fault.lasts_s)
        for relay in relays:
            relay.heal()

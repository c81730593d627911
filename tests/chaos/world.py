"""A live network with a relay of ours on every way into a node."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import time
from typing import TYPE_CHECKING

import psutil

from sim.cluster.datagrams import DatagramRelay
from sim.cluster.relay import Relay
from tests.chaos.schedule import ON_DISKS
from tests.harness.network import LiveNetwork, run_zipnet
from zipnet.host.loopback import free_ports

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from tests.chaos.schedule import Fault

__all__ = ["World"]

TREE: dict[str, str | None] = {"root": None, "leaf-a": "root", "leaf-b": "root"}
DELAY_S = 0.25
LOSS = 0.2
SKEW_S = (-45.0, 45.0)
SLOW_S = 0.15
#: What a node may take beyond what it has: little enough to run out of.
ROOM_BYTES = 2 * 2**20


class World:
    """Nodes listen behind relays; servers dial each other through one relay for each direction.

    Args:
        folder: Everything is in here.
        servers: Size of the committee.
        max_absent: Servers a round may do without.
        seed: Decides what a fault's kind leaves open.

    Attributes:
        restarts_s: Seconds from starting a killed node to its word that it listens.
        applied: How many faults were brought about.
        safe_modes: How often a full disk put a server into safe mode.
        starved: How often a node died for want of memory.
    """

    def __init__(self, folder: Path, *, servers: int, max_absent: int, seed: int) -> None:
        self._draw = random.Random(seed)
        self.network = LiveNetwork(folder, servers=servers, max_absent=max_absent, tree=TREE)
        names = list(self.network.nodes)
        self._real = dict(zip(names, free_ports(len(names)), strict=True))
        self._front = {n: Relay(self.network.ports[n], self._real[n]) for n in names}
        self._datagrams = {
            n: DatagramRelay(self.network.ports[n], self._real[n], random.Random(seed))
            for n in names
        }
        servers_by_name = [node.name for node in self.network.server_nodes]
        self._pairs = {
            (a, b): Relay(0, self._real[b]) for a in servers_by_name for b in servers_by_name
        }
        self._busy = {name: asyncio.Lock() for name in names}
        self._acts: Mapping[str, Callable[[Fault], Awaitable[None]]] = {
            "kill": self._kill,
            "pause": self._pause,
            "skew": self._skew,
            "slow-disk": self._slow_disk,
            "full-disk": self._full_disk,
            "memory": self._memory,
            **dict.fromkeys(("delay", "stall", "cut", "partition", "loss"), self._disturb),
        }
        self.restarts_s: list[float] = []
        self.applied = 0
        self.safe_modes = 0
        self.starved = 0

    async def start(self) -> None:
        """Start relays, then nodes; returns when all listen."""
        for relay in self._relays():
            await relay.start()
        for name, node in self.network.nodes.items():
            node.arguments += ["--listen", f"127.0.0.1:{self._real[name]}"]
            self._control(name).mkdir()
            node.program = ("tests.chaos.node", str(self._control(name)))
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
            for relay in self._relays():
                await relay.close()

    def _relays(self) -> list[Relay | DatagramRelay]:
        return [*self._front.values(), *self._pairs.values(), *self._datagrams.values()]

    def _control(self, name: str) -> Path:
        return self.network.folder / f"{name}.control"

    async def bring(self, fault: Fault, began: float) -> None:
        """Wait for a fault's time, bring it about, and mend it; one at a time for each node."""
        await asyncio.sleep(max(0.0, began + fault.at_s - time.monotonic()))
        async with self._busy[fault.node]:
            self.applied += 1
            kind = fault.kind
            if kind in ON_DISKS and fault.node in TREE:
                kind = "kill"
            await self._acts[kind](fault)

    async def _kill(self, fault: Fault) -> None:
        node = self.network.nodes[fault.node]
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(fault.lasts_s)
        await self._start(fault.node)

    async def _start(self, name: str) -> None:
        node = self.network.nodes[name]
        began = time.monotonic()
        node.start()
        await asyncio.to_thread(node.wait_ready)
        self.restarts_s.append(time.monotonic() - began)

    async def _say(self, name: str, file: str, text: str, lasts_s: float) -> None:
        """Have a node's clock or disk misbehave for a while."""
        control = self._control(name) / file
        control.write_text(text)
        try:
            await asyncio.sleep(lasts_s)
        finally:
            control.unlink()

    async def _skew(self, fault: Fault) -> None:
        await self._say(fault.node, "skew", str(self._draw.uniform(*SKEW_S)), fault.lasts_s)

    async def _slow_disk(self, fault: Fault) -> None:
        await self._say(fault.node, "slow", str(SLOW_S), fault.lasts_s)

    async def _full_disk(self, fault: Fault) -> None:
        """Where a server ran into it, an operator makes room and takes it out of safe mode."""
        node = self.network.nodes[fault.node]
        await self._say(fault.node, "full", "", fault.lasts_s)
        if not node.events("safe_mode_entered"):
            return
        await asyncio.to_thread(node.stop)
        left = await asyncio.to_thread(
            run_zipnet, "safe-mode", "leave", "--state", f"{node.name}.state", cwd=node.folder
        )
        assert left.returncode == 0, left.stderr
        self.safe_modes += 1
        await self._start(fault.node)

    async def _memory(self, fault: Fault) -> None:
        """Leave a node no room to grow; one that dies of it is started again."""
        node = self.network.nodes[fault.node]
        limit = psutil.Process(node.pid).memory_info().vms + ROOM_BYTES
        resource.prlimit(node.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        await asyncio.sleep(fault.lasts_s)
        if node.is_running():
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(node.pid, resource.RLIMIT_AS, unlimited)
            await asyncio.sleep(0.2)
        if not node.is_running():
            self.starved += 1
            await self._start(fault.node)

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
        datagrams = self._datagrams[fault.node]
        if fault.kind == "delay":
            datagrams.delay_s = DELAY_S
        elif fault.kind == "loss":
            datagrams.loss = LOSS
        else:
            datagrams.passing = False
        for relay in relays:
            if fault.kind == "delay":
                relay.delay_s = DELAY_S
            elif fault.kind == "stall":
                relay.flowing.clear()
            elif fault.kind != "loss":
                relay.reachable = fault.kind == "cut"
                relay.cut()
        await asyncio.sleep(fault.lasts_s)
        for relay in relays:
            relay.heal()
        datagrams.heal()

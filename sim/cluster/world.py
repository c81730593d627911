"""The cluster itself: keys, descriptor, relays and processes, and what happens to them.

Every way into a node leads through a relay of this process, which counts its bytes and can be slow,
silent or cut; servers reach each other through one relay for each direction.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from sim.cluster.datagrams import DatagramRelay
from sim.cluster.emulation import Emulation
from sim.cluster.nodes import ClusterError, Process
from sim.cluster.plan import LEADER
from sim.cluster.relay import Relay
from zipnet.host.loopback import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sim.cluster.plan import ClusterFault, ClusterPlan

__all__ = ["INSTANCE", "ClusterWorld"]

INSTANCE: Final = "sim.loopback"
_CLIENTS_PER_PROCESS: Final = 8
_SLOW_BYTES_S: Final = 200_000.0
_SLOW_DELAY_S: Final = 0.1
_SKEW_S: Final = 30.0


class ClusterWorld:
    """Processes and relays of one run.

    Args:
        plan: What it is made of.
        folder: Where keys, logs and state go.
        note: Told what happens: event, node, value, word.

    Attributes:
        leader: Name of the server that leads, as far as is known.
        processes: By name.
    """

    def __init__(
        self, plan: ClusterPlan, folder: Path, note: Callable[[str, str, float, str], None]
    ) -> None:
        self.plan, self.folder, self._note = plan, folder, note
        self.leader = ""
        self.descriptor = folder / "d.toml"
        self.processes: dict[str, Process] = {}
        self._stack = AsyncExitStack()
        self._nodes = (*plan.server_names, *plan.aggregator_names)
        shown = free_ports(2 * len(self._nodes))
        self._front = dict(zip(self._nodes, shown[: len(self._nodes)], strict=True))
        self._real = dict(zip(self._nodes, shown[len(self._nodes) :], strict=True))
        draw = random.Random(plan.seed)
        self._streams = {n: Relay(self._front[n], self._real[n]) for n in self._nodes}
        self._datagrams = {
            n: DatagramRelay(self._front[n], self._real[n], draw) for n in self._nodes
        }
        servers = plan.server_names
        self._pairs = {(a, b): Relay(0, self._real[b]) for a in servers for b in servers if a != b}
        self._emulation = Emulation(folder) if plan.tdx == "emulated" else None

    # -- life ----------------------------------------------------------------------------------

    async def start(self, on_client: Callable[[dict[str, Any]], None]) -> None:
        """Start everything; returns when nodes listen and every client is registered.

        Raises:
            ClusterError: When something does not start.
        """
        if self._emulation is not None:
            await self._emulation.start()
            self._stack.push_async_callback(self._emulation.stop)
        await self._make_instance()
        relays: list[Relay | DatagramRelay] = [*self._streams.values(), *self._pairs.values()]
        for relay in (*relays, *self._datagrams.values()):
            await relay.start()
            self._stack.push_async_callback(relay.close)
        for name in self._nodes:
            self._add_node(name)
        nodes = [self.processes[name] for name in self._nodes]
        await asyncio.gather(*(process.start() for process in nodes))
        await asyncio.gather(*(process.wait_ready() for process in nodes))
        clients = self._add_clients(on_client)
        for process, plan in clients:
            await process.start()
            await process.tell(json.dumps(plan))
        await asyncio.gather(*(process.wait_ready() for process, _ in clients))

    async def start_readers(self, on_message: Callable[[dict[str, Any]], None]) -> None:
        """Start the readers, the first of which is heard, and the gateway where there is one."""
        way = ("--descriptor", "d.toml", "--transport", self.plan.transport)
        for index in range(self.plan.readers):
            name = f"reader-{index}"
            words = ["read", *way, "--from", "0", "--follow", "--json"]
            await self._add(name, words, on_line=on_message if index == 0 else None).start()
        if self.plan.gateway:
            words = ["gateway", *way, "--listen", "127.0.0.1:0", "--read-only"]
            await self._add("gateway", words).start()

    async def talk(self) -> None:
        """Let the clients say what they have to say."""
        for name, process in self.processes.items():
            if name.startswith(("clients-", "jammer-")):
                await process.tell("talk")

    async def close(self) -> None:
        """Stop every process and relay."""
        running = [process for process in self.processes.values() if process.running]
        await asyncio.gather(*(process.stop() for process in running))
        await self._stack.aclose()

    def require_alive(self) -> None:
        """Complain about a process that ended without being asked to.

        Raises:
            ClusterError: Naming it and its last words.
        """
        for name, process in self.processes.items():
            if not process.running and name not in self._down:
                raise ClusterError(f"{name} ended: {process.complaint()}")

    # -- what it is made of --------------------------------------------------------------------

    _down: set[str]

    async def _make_instance(self) -> None:
        plan, params, cadence = self.plan, self.plan.scenario.params, self.plan.scenario.cadence
        self._down = set()
        for kind, names in (
            ("operator", ("operator",)),
            ("committee", ("committee",)),
            ("node", self._nodes),
        ):
            for name in names:
                await self._command("keygen", kind, "--out", f"{name}.secret")
        words = ["descriptor", "create", "--name", INSTANCE, "--days", "1", "--out", "d.toml"]
        words += ["--committee-secret-file", "committee.secret"]
        words += ["--operator", "operator.secret.pub"]
        words += ["--max-absent", str(plan.scenario.max_absent)]
        words += ["--kem-epoch", f"{params.kem_epoch_s}s"]
        for option in ("num_slots", "slot_bytes", "min_participants", "max_skip_rounds"):
            words += [f"--{option.replace('_', '-')}", str(asdict(params)[option])]
        for option in ("round_period", "fold_deadline", "round_deadline"):
            words += [f"--{option.replace('_', '-')}", f"{asdict(cadence)[f'{option}_ms']}ms"]
        for name in self._nodes:
            where = f"{name}=127.0.0.1:{self._front[name]}={name}.secret.pub"
            if name in plan.server_names:
                words += ["--server", where]
            else:
                words += ["--aggregator", where + ("" if name == "root" else ",parent=root")]
        if self._emulation is not None:
            words += self._emulation.descriptor_arguments()
        await self._command(*words)
        await self._command("descriptor", "sign", "d.toml", "--key", "operator.secret")

    async def _command(self, *words: str) -> None:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "zipnet", *words],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"`zipnet {words[0]}` failed: {done.stderr.strip()}")

    def _add(
        self,
        name: str,
        words: list[str],
        *,
        on_line: Callable[[dict[str, Any]], None] | None = None,
        skewed: bool = False,
    ) -> Process:
        emulated = {} if self._emulation is None else self._emulation.environment(words[0])
        module = "sim.cluster.node" if skewed else "zipnet"
        arguments = [f"{name}.skew", *words] if skewed else words
        made = Process(name, module, arguments, self.folder, environment=emulated, on_line=on_line)
        self.processes[name] = made
        return made

    def _add_node(self, name: str) -> None:
        is_server = name in self.plan.server_names
        words = ["server" if is_server else "aggregator", "--descriptor", "d.toml"]
        words += ["--instance", INSTANCE, "--secret-file", f"{name}.secret"]
        words += ["--listen", f"127.0.0.1:{self._real[name]}"]
        if is_server:
            words += ["--committee-secret-file", "committee.secret", "--state", f"{name}.state"]
            ways = [
                self._pairs.get((name, other), self._streams[other]).port
                for other in self.plan.server_names
            ]
            words += ["--bootstrap", ",".join(f"127.0.0.1:{port}" for port in ways)]
        self._add(name, words, on_line=lambda said: self._on_node(name, said), skewed=True)

    def _add_clients(
        self, on_client: Callable[[dict[str, Any]], None]
    ) -> list[tuple[Process, dict[str, Any]]]:
        plan, load = self.plan, self.plan.scenario.load
        emulated = {} if self._emulation is None else self._emulation.environment("publish")
        first_moving = len(plan.client_names) - plan.moving
        moving = set(plan.client_names[first_moving:])
        talkers = plan.client_names[: load.talkers]
        common = {
            "transport": plan.transport,
            "interval_s": load.interval_s,
            "churn": asdict(plan.scenario.churn),
        }
        made: list[tuple[Process, dict[str, Any]]] = []
        for module, everybody in (("clients", plan.client_names), ("jammer", plan.jammer_names)):
            for start in range(0, len(everybody), _CLIENTS_PER_PROCESS):
                names = everybody[start : start + _CLIENTS_PER_PROCESS]
                words = {
                    name: [
                        f"{name} says {count} ".ljust(load.message_bytes, ".")
                        for count in range(load.messages if name in talkers else 0)
                    ]
                    for name in names
                }
                process = Process(
                    f"{module}-{start // _CLIENTS_PER_PROCESS}",
                    f"sim.cluster.{module}",
                    ["d.toml"],
                    self.folder,
                    environment=emulated,
                    on_line=on_client,
                )
                self.processes[process.name] = process
                here = [name for name in names if name in moving]
                made.append((process, {**common, "clients": words, "moving": here}))
        return made

    def _on_node(self, name: str, said: dict[str, Any]) -> None:
        if said.get("event") == "standing_changed" and said.get("leader"):
            self.leader = name
            self._note("leader_elected", name, 0.0, "")
        elif said.get("event") == "descriptor_adopted":
            self._note("descriptor_adopted", name, float(said["version"]), "")

    # -- trouble -------------------------------------------------------------------------------

    async def bring(self, fault: ClusterFault) -> None:
        """Bring a fault about and mend it; whoever leads is decided now."""
        name = (self.leader or self.plan.server_names[0]) if fault.node == LEADER else fault.node
        if name in self._down:
            return
        self._down.add(name)
        self._note("fault_began", name, fault.for_s, fault.kind)
        try:
            if fault.kind == "crash":
                await self._crash(name, fault.for_s)
            elif fault.kind == "stop":
                self.processes[name].signal(signal.SIGSTOP)
                await asyncio.sleep(fault.for_s)
                self.processes[name].signal(signal.SIGCONT)
            elif fault.kind == "skew":
                await self._skew(name, fault.for_s)
            elif fault.kind == "rotate":
                await self._rotate(name, fault.for_s)
            else:
                await self._disturb(name, fault)
        finally:
            self._down.discard(name)
            self._note("fault_ended", name, 0.0, fault.kind)

    async def _crash(self, name: str, for_s: float) -> None:
        process = self.processes[name]
        await process.kill()
        await asyncio.sleep(for_s)
        await process.start()
        await process.wait_ready()

    async def _skew(self, name: str, for_s: float) -> None:
        file = self.folder / f"{name}.skew"
        # Renamed into place: a clock that reads half a number would be right for a moment.
        fresh = file.with_suffix(".new")
        fresh.write_text(f"{_SKEW_S}")
        fresh.replace(file)
        await asyncio.sleep(for_s)
        file.unlink()

    async def _rotate(self, name: str, for_s: float) -> None:
        """Publish the next version of the descriptor, with another certificate for a node."""
        draft = "next.toml"
        await self._command(
            *("rotate", "tls", "d.toml", "--node", name, "--secret-file", f"{name}.secret"),
            *("--key", "operator.secret", "--out", draft),
        )
        (self.folder / draft).replace(self.descriptor)
        await asyncio.sleep(for_s)

    async def _disturb(self, name: str, fault: ClusterFault) -> None:
        relays = [r for ends, r in self._pairs.items() if name in ends]
        relays.append(self._streams[name])
        datagrams = self._datagrams[name]
        for relay in relays:
            if fault.kind == "partition":
                relay.reachable = False
                relay.cut()
            else:
                relay.rate, relay.delay_s = _SLOW_BYTES_S, _SLOW_DELAY_S
        if fault.kind == "partition":
            datagrams.passing = False
        else:
            datagrams.delay_s = _SLOW_DELAY_S
        await asyncio.sleep(fault.for_s)
        for relay in relays:
            relay.heal()
        datagrams.heal()

    def traffic(self) -> dict[str, float]:
        """Return bytes sent and received so far, by kind of node."""
        totals: dict[str, float] = {}
        for name in self._nodes:
            kind = "server" if name in self.plan.server_names else "aggregator"
            for relay in (self._streams[name], self._datagrams[name]):
                totals[f"received/{kind}"] = totals.get(f"received/{kind}", 0.0) + relay.inward
                totals[f"sent/{kind}"] = totals.get(f"sent/{kind}", 0.0) + relay.outward
        for relay in self._pairs.values():
            totals["sent/server"] += relay.inward + relay.outward
            totals["received/server"] += relay.inward + relay.outward
        return totals

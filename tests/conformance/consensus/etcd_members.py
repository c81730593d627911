"""A committee of real etcd processes on loopback, each with its own data folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from zipnet.consensus.etcd_http import EtcdHttp
from zipnet.errors import ConsensusError
from zipnet.host.loopback import free_ports

SIZE = 3
START_S = 60.0


def find_etcd() -> str | None:
    """Where `make etcd` unpacked it, or on the PATH."""
    unpacked = Path(__file__).parents[3] / ".venv/etcd/usr/bin/etcd"
    return str(unpacked) if os.access(unpacked, os.X_OK) else shutil.which("etcd")


def require_etcd() -> str:
    """Return the program, or skip and say why."""
    found = find_etcd()
    if found is None:
        pytest.skip("no etcd here: `make etcd` unpacks Debian's etcd-server")
    return found


class EtcdMembers:
    """Three members; ``clients`` are their client ports."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self.program = program
        ports = free_ports(2 * SIZE)
        self.clients, self.peers = ports[:SIZE], ports[SIZE:]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, member: int) -> None:
        """Start one member on what its folder holds."""
        peers = [f"m{i}=http://127.0.0.1:{port}" for i, port in enumerate(self.peers)]
        client = f"http://127.0.0.1:{self.clients[member]}"
        peer = f"http://127.0.0.1:{self.peers[member]}"
        with (self.folder / f"etcd-{member}.log").open("ab") as log:
            self.processes[member] = subprocess.Popen(
                [
                    *(self.program, "--name", f"m{member}"),
                    *("--data-dir", str(self.folder / f"m{member}")),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", ",".join(peers), "--initial-cluster-state", "new"),
                    *("--heartbeat-interval", "50", "--election-timeout", "500"),
                    *("--logger", "zap", "--log-level", "error"),
                ],
                stdout=log,
                stderr=log,
            )

    def kill(self, member: int) -> None:
        """SIGKILL one member."""
        process = self.processes.pop(member)
        process.kill()
        process.wait()

    def freeze(self, member: int) -> None:
        """Let one member hang, as behind a dead switch."""
        self.processes[member].send_signal(signal.SIGSTOP)

    def thaw(self, member: int) -> None:
        """Let it go on."""
        self.processes[member].send_signal(signal.SIGCONT)

    async def ready(self) -> None:
        """Return once the committee answers a transaction."""
        async with asyncio.timeout(START_S):
            for port in self.clients:
                while True:
                    try:
                        await EtcdHttp("127.0.0.1", port).txn([], [])
                        break
                    except ConsensusError:
                        await asyncio.sleep(0.1)

    def stop(self) -> None:
        """End every member."""
        for member in list(self.processes):
            self.kill(member)

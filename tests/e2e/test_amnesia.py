"""Servers that keep nothing: no trace on disk, and a restart that makes them newcomers."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tests.harness.long_runs import long_fault
from tests.harness.network import LiveNetwork, Node, run_zipnet, wait_for
from zipnet.sdk import Publisher

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path)
    for node in made.server_nodes:
        at = node.arguments.index("--state")
        del node.arguments[at : at + 2]
    try:
        made.start()
        yield made
    finally:
        made.close()


@asynccontextmanager
async def publishers(network: LiveNetwork) -> AsyncIterator[list[Publisher]]:
    async with AsyncExitStack() as stack:
        made = [Publisher(network.descriptor, transport="tls") for _ in range(3)]
        for publisher in made:
            await stack.enter_async_context(publisher)
        for publisher in made:
            await publisher.when.registered()
        yield made


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder but the logs of the harness, with size and time of change."""
    found: dict[str, tuple[int, int]] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        if path.suffix not in {".out", ".err"} and stat.S_ISREG(status.st_mode):
            found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def everything(network: LiveNetwork) -> dict[str, tuple[int, int]]:
    """Files of the places a node could write to."""
    root = Path(__file__).parents[2]
    places = [network.folder, root / "zipnet", Path("/dev/shm"), Path("/var/tmp")]
    found: dict[str, tuple[int, int]] = {}
    for place in places:
        found |= files_below(place)
    return found


def open_files(node: Node) -> set[str]:
    """What a process has open, or mapped, for writing, that has a name on a disk."""
    logs = {str(node.out), str(node.err)}
    found: set[str] = set()
    for entry in Path(f"/proc/{node.pid}/fd").iterdir():
        target = os.readlink(entry)  # noqa: PTH115 - the link's text is wanted, also of sockets
        flags = (entry.parent.parent / "fdinfo" / entry.name).read_text().split("flags:\t")[1]
        writable = int(flags.split()[0], 8) & os.O_ACCMODE != os.O_RDONLY
        if writable and target.startswith("/") and not target.startswith(("/dev/", "/memfd:")):
            found.add(target)
    for line in Path(f"/proc/{node.pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/") and fields[1][1] + fields[1][3] == "ws":
            found.add(fields[5])
    return found - logs


def require_sealed(node: Node) -> None:
    """No core file, no swap, no reading by others; what is not granted is said."""
    text = Path(f"/proc/{node.pid}/status").read_text()
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert int(status["VmSwap"].split()[0]) == 0
    assert psutil.Process(node.pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)
    locked = int(status["VmLck"].split()[0])
    assert bool(node.events("memory_not_locked")) == (locked == 0)
    # Not dumpable: its files in /proc belong to root, whoever runs it.
    assert Path(f"/proc/{node.pid}/environ").stat().st_uid == 0
    assert node.events("memory_only")
    print(f"{node.name}: {locked} kB locked, 0 kB in swap, no core file")


def rounds(node: Node) -> float:
    return node.metric("zipnet_rounds_finalized_total")


def wait_ready(node: Node) -> None:
    wait_for(lambda: node.http("/readyz")[0] == 200, f"{node.name} to be ready")


def wait_round(node: Node) -> None:
    wait_for(lambda: rounds(node) >= 1, f"{node.name} to finalise a round")


@pytest.mark.requirement("M1")
async def test_a_run_leaves_nothing_on_any_disk(network: LiveNetwork) -> None:
    before = everything(network)
    async with publishers(network) as clients:
        receipt = await clients[0].publish(b"nobody keeps this", timeout=60)
        assert receipt.placements
        for node in network.server_nodes:
            assert open_files(node) == set()
            require_sealed(node)
    for node in network.server_nodes:
        node.stop()
    after = everything(network)
    assert {path for path in after if after[path] != before.get(path)} == set()
    assert not list(network.folder.glob("*.state"))
    assert not list(network.folder.glob("core*"))


@long_fault
@pytest.mark.requirement("M1")
async def test_a_restarted_server_is_a_newcomer_and_rounds_go_on_with_it(
    network: LiveNetwork,
) -> None:
    async with publishers(network) as clients:
        await clients[0].publish(b"before", timeout=60)
        for name in ("s1", "s2"):
            victim = network.nodes[name]
            victim.kill()
            began = time.monotonic()
            victim.start()
            await asyncio.to_thread(victim.wait_ready)
            await asyncio.to_thread(wait_ready, victim)
            entered = time.monotonic() - began
            assert victim.events("memory_begun")[0]["state"] == "joining"
            # Clients notice that it forgot them, and register anew; then it signs again.
            receipt = await clients[0].publish(f"after {name}".encode(), timeout=90)
            assert receipt.placements
            await asyncio.to_thread(wait_round, victim)
            spent = time.monotonic() - began
            print(f"{name}: ready {entered:.2f} s, a message through {spent:.2f} s after its start")
            assert victim.metric("zipnet_partials_submitted_total") >= 1
    done = await asyncio.to_thread(
        run_zipnet, "read", "--descriptor", "d.toml", "--transport", "tls", cwd=network.folder
    )
    assert done.returncode == 0, done.stderr
    told = [line.split(": ", 1)[1] for line in done.stdout.splitlines()]
    assert told == ["before", "after s1", "after s2"]

"""A real server whose disk fails: it stops at once, stays stopped, and readers are served."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.harness.long_runs import LONG_FAULTS, long_fault
from tests.harness.network import LiveNetwork, Node, run_zipnet, wait_for
from zipnet.sdk import Publisher

pytestmark = pytest.mark.timeout(300)
#: A word in the path of each file that something durable goes to.
STEPS = {
    "release guard": "releases.journal",
    "key custody": "custody-",
    "record log": "records-",
    "consensus journal": "consensus",
    "kept blobs": "/blobs/",
}
SHORT = ("release guard",)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path_factory.mktemp("safe"), max_absent=1)
    try:
        yield made
    finally:
        made.close()


@asynccontextmanager
async def cover(network: LiveNetwork) -> AsyncIterator[None]:
    """Three publishers that take part in every round."""
    async with AsyncExitStack() as stack:
        made = [Publisher(network.descriptor, transport="tls") for _ in range(3)]
        for publisher in made:
            await stack.enter_async_context(publisher)
        for publisher in made:
            await publisher.when.registered()
        yield


def rounds(node: Node) -> float:
    return node.metric("zipnet_rounds_finalized_total")


def wait_for_rounds(node: Node, more: int = 2) -> None:
    before = rounds(node)
    wait_for(lambda: rounds(node) >= before + more, f"{node.name} to finalise rounds")


def read_from(network: LiveNetwork, name: str) -> int:
    """How many records a reader gets that reaches this server only."""
    here = f"127.0.0.1:{network.ports[name]}"
    everywhere = ",".join([here] * network.servers)  # the others' keys are not at this address
    done = run_zipnet(
        *("read", "--descriptor", "d.toml", "--records", "--json", "--transport", "tls"),
        cwd=network.folder,
        environment={"ZIPNET_BOOTSTRAP": everywhere},
        timeout_s=60,
    )
    assert done.returncode == 0, done.stderr
    return len(done.stdout.splitlines())


def require_safe(node: Node, cause: str) -> None:
    wait_for(lambda: node.events("safe_mode_entered"), f"{node.name} to enter safe mode")
    (entered,) = node.events("safe_mode_entered")
    assert entered["reason"] == cause
    assert node.is_running()
    status, body = node.http("/readyz")
    assert status == 503
    assert cause in body
    _, text = node.http("/metrics")
    (line,) = (line for line in text.splitlines() if line.startswith("zipnet_safe_mode{"))
    assert f'reason="{cause}"' in line
    assert line.endswith(" 1.0")


def leave(network: LiveNetwork, node: Node) -> None:
    folder = f"{node.name}.state"
    done = run_zipnet("safe-mode", "leave", "--state", folder, cwd=network.folder)
    assert done.returncode == 0, done.stderr
    assert "in safe mode since" in done.stderr


async def play(network: LiveNetwork, victim: Node, cause: str, fail: object) -> None:
    """Fail the disk of one server under load and see it through to its return."""
    others = [node for node in network.server_nodes if node is not victim]
    assert callable(fail)
    async with cover(network):
        await asyncio.to_thread(wait_for_rounds, victim)
        await asyncio.to_thread(fail)
        await asyncio.to_thread(require_safe, victim, cause)
        # The others go on without it: the descriptor allows one absence.
        await asyncio.to_thread(wait_for_rounds, others[0])
        # A start is no way out.
        await asyncio.to_thread(victim.stop)
        victim.start()
        await asyncio.to_thread(require_safe, victim, cause)
        busy = await asyncio.to_thread(
            run_zipnet, "safe-mode", "leave", "--state", f"{victim.name}.state", cwd=network.folder
        )
        assert busy.returncode == 2
        assert "in use" in busy.stderr


@pytest.mark.requirement("L1")
@pytest.mark.parametrize("step", STEPS if LONG_FAULTS else SHORT)
async def test_a_failed_fsync_ends_signing_until_an_operator_acts(
    network: LiveNetwork, step: str
) -> None:
    victim = network.nodes["s2"]
    trigger = network.folder / "fail-now"
    victim.program = ("tests.harness.failing_disk", STEPS[step], str(trigger))
    for node in network.nodes.values():
        if not node.is_running():
            node.start()
    for node in network.nodes.values():
        await asyncio.to_thread(node.wait_ready)
    await play(network, victim, "io_error", trigger.touch)
    served = await asyncio.to_thread(read_from, network, "s2")
    print(f"{step}: in safe mode, {served} records served")
    assert served > 0
    await asyncio.to_thread(victim.stop)
    trigger.unlink()
    await asyncio.to_thread(leave, network, victim)
    victim.start()
    async with cover(network):
        await asyncio.to_thread(wait_for_rounds, victim)
        assert victim.metric("zipnet_safe_mode") == 0
    await asyncio.to_thread(victim.stop)


@pytest.fixture
def small_disk(network: LiveNetwork) -> Iterator[Path]:
    """Four megabytes for the state of ``s1``."""
    folder = network.folder / "s1.state"
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("mount is not installed")
    if done.returncode:
        pytest.skip("mounting needs privileges this process does not have")
    try:
        yield folder
    finally:
        network.close()
        subprocess.run(["umount", str(folder)], check=True)


@long_fault
async def test_a_full_disk_ends_signing_until_an_operator_acts(
    network: LiveNetwork, small_disk: Path
) -> None:
    victim = network.nodes["s1"]
    await asyncio.to_thread(network.close)
    for name in ("s0", "s2"):
        for path in sorted((network.folder / f"{name}.state").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    network.nodes["s2"].program = ("zipnet",)
    await asyncio.to_thread(network.start)
    filler = small_disk / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    await play(network, victim, "disk_full", fill)
    await asyncio.to_thread(victim.stop)
    refused = run_zipnet("safe-mode", "leave", "--state", "s1.state", cwd=network.folder)
    assert refused.returncode == 1
    assert "still refuses writes" in refused.stderr
    filler.unlink()
    await asyncio.to_thread(leave, network, victim)
    victim.start()
    async with cover(network):
        await asyncio.to_thread(wait_for_rounds, victim)

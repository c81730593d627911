"""Row A1: nodes of two instances in one process share nothing but the process."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork, Node, run_zipnet, wait_for
from zipnet.protocol.params import Cadence
from zipnet.sdk import Publisher, Reader

if TYPE_CHECKING:
    from pathlib import Path

    from zipnet.protocol.descriptor import TrustedDescriptor

pytestmark = pytest.mark.timeout(300)
CADENCE = Cadence(round_period_ms=300, fold_deadline_ms=2000, round_deadline_ms=8000)


class TwoInstances:
    """Two instances on four hosts: server ``i`` of both on host ``i``, their roots on the last.

    The disk below the left instance's server on host 0 fails once the file ``fail`` is there.
    """

    def __init__(self, folder: Path) -> None:
        self.fail = folder / "fail"
        self.instances: dict[str, LiveNetwork] = {}
        for name in ("left", "right"):
            (folder / name).mkdir()
            self.instances[name] = LiveNetwork(
                folder / name, cadence=CADENCE, instance=f"{name}.test"
            )
        self.hosts = [self._host(folder, i, "--server", f"s{i}") for i in range(3)]
        self.hosts.append(self._host(folder, 3, "--aggregator", "root"))
        self.hosts[0].program = (
            *("tests.harness.failing_disk", "/left/s0.state"),
            str(self.fail),
        )

    def _host(self, folder: Path, number: int, flag: str, node: str) -> Node:
        arguments = ["host"]
        for network in self.instances.values():
            arguments += [flag, str(network.settings_file(node))]
        return Node(f"host{number}", arguments, folder)

    def start(self) -> None:
        for host in self.hosts:
            host.start()

    def close(self) -> None:
        for host in self.hosts:
            if host.is_running():
                host.stop()

    def ready(self, host: int) -> dict[str, int]:
        """Return the HTTP port of each guest of a host by instance, once all listen."""
        node = self.hosts[host]
        wait_for(lambda: len(node.events("node_ready")) >= 2, f"guests of {node.name}")
        return {
            str(line["zipnet_instance"]): int(str(line["metrics_port"]))
            for line in node.events("node_ready")
        }


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def publish(descriptor: TrustedDescriptor, text: bytes) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Publisher(descriptor, transport="tls"))
            for _ in range(3)
        ]
        await clients[0].publish(text, timeout=120)


async def read(descriptor: TrustedDescriptor) -> list[bytes]:
    async with Reader(descriptor, transport="tls", from_sequence=0, follow=False) as reader:
        return [message.payload async for message in reader]


@pytest.mark.requirement("A1")
async def test_instances_share_a_process_and_nothing_else(tmp_path: Path) -> None:
    two = TwoInstances(tmp_path)
    left, right = (network.descriptor for network in two.instances.values())
    try:
        two.start()
        for number in range(4):
            ports = await asyncio.to_thread(two.ready, number)
            assert set(ports) == {"left.test", "right.test"}
        ports = two.ready(0)
        async with asyncio.TaskGroup() as group:
            group.create_task(publish(left, b"to the left"))
            group.create_task(publish(right, b"to the right"))
        assert await read(left) == [b"to the left"]
        assert await read(right) == [b"to the right"]
        require_metrics_apart(ports)
        # One instance's disk fails below one host: its guest goes into safe mode, alone.
        two.fail.touch()
        host = two.hosts[0]
        async with asyncio.TaskGroup() as group:
            failing = group.create_task(publish(left, b"finds its server gone"))
            await asyncio.to_thread(
                wait_for, lambda: host.events("safe_mode_entered"), "safe mode of the left"
            )
            failing.cancel()
        (entered,) = host.events("safe_mode_entered")
        assert entered["zipnet_instance"] == "left.test"
        await publish(right, b"after a disk of the left")
        assert await read(right) == [b"to the right", b"after a disk of the left"]
        status, _ = await asyncio.to_thread(get, ports["right.test"], "/readyz")
        assert status == 200
        status, body = await asyncio.to_thread(get, int(str(entered["metrics_port"])), "/readyz")
        assert status == 503
        assert "right.test" not in body
    finally:
        two.close()
    assert not host.events("guest_failed")


def require_metrics_apart(ports: dict[str, int]) -> None:
    """Each guest has metrics of its own, and they name its instance only."""
    for instance, port in ports.items():
        (other,) = set(ports) - {instance}
        _, text = get(port, "/metrics")
        assert f'"{instance}"' in text
        assert other not in text


@pytest.mark.requirement("A1")
@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (("left", "s0"), ("left", "s1"), "are servers of one committee"),
        (("left", "s0"), ("left", "root"), "are a server and an aggregator of one instance"),
        (("left", "s0"), ("left", "s0"), "named twice"),
    ],
)
def test_a_host_refuses_guests_that_must_be_apart(
    tmp_path: Path, first: tuple[str, str], second: tuple[str, str], said: str
) -> None:
    two = TwoInstances(tmp_path)
    words: list[str] = []
    for instance, node in (first, second):
        flag = "--aggregator" if node == "root" else "--server"
        words += [flag, str(two.instances[instance].folder / f"{node}.toml")]
    done = run_zipnet("host", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr

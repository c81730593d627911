"""Versions of a descriptor and everything else that goes wrong: kills, old files, no memory at all.

Minutes long: `make faults`.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_succession import hand_to, make_newcomer, start_newcomer
from tests.harness.long_runs import long_fault
from tests.harness.network import LiveNetwork, Node, run_zipnet, wait_for
from zipnet.host.loopback import free_ports
from zipnet.sdk import Publisher, load_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(400), long_fault]


def with_own_files(network: LiveNetwork) -> LiveNetwork:
    """Every server finds its descriptor in a file of its own."""
    for node in network.server_nodes:
        shutil.copy(network.descriptor_file, network.folder / f"{node.name}.toml")
        node.arguments[node.arguments.index("d.toml")] = f"{node.name}.toml"
    return network


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = with_own_files(LiveNetwork(tmp_path, tree={"root": None, "leaf": "root"}))
    try:
        made.start()
        yield made
    finally:
        made.close()


def replace(network: LiveNetwork, old: str, seat: str, newcomer: str, out: str) -> Path:
    """Write and sign the version in which a newcomer has a seat."""
    public = make_newcomer(network, newcomer)
    port = free_ports(1)[0]
    for line in (
        ("replace", old, "--seat", seat, "--server", f"{newcomer}=127.0.0.1:{port}={public.name}",
         "--out", out),
        ("sign", out, "--key", "operator.secret"),
    ):  # fmt: skip
        done = run_zipnet("descriptor", *line, cwd=network.folder)
        assert done.returncode == 0, done.stderr
    return network.folder / out


def newcomer_of(network: LiveNetwork, name: str, descriptor: str) -> Node:
    shutil.copy(network.folder / descriptor, network.folder / f"{name}.toml")
    template = network.nodes["s2"].arguments
    template[template.index("s2.toml")] = "d.toml"  # as the helper expects it
    try:
        return start_newcomer(network, name, f"{name}.toml")
    finally:
        template[template.index("d.toml")] = "s2.toml"


def wait_version(network: LiveNetwork, version: int, *names: str) -> None:
    def reached(name: str) -> bool:
        told = network.nodes[name].events("descriptor_adopted")
        return any(event["version"] == version for event in told)

    wait_for(lambda: all(map(reached, names)), f"version {version}")


async def test_kills_old_files_and_a_second_replacement(network: LiveNetwork) -> None:
    first = load_descriptor(network.descriptor_file)
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Publisher(first, transport="tls")) for _ in range(3)
        ]
        await clients[0].publish(b"first", timeout=90)

        # The server that leads is the one to go, while it lives: it finds itself replaced.
        leader = await asyncio.to_thread(_leader, network)
        second = await asyncio.to_thread(replace, network, "d.toml", leader.name, "n1", "v2.toml")
        n1 = newcomer_of(network, "n1", "v2.toml")
        stays = [node.name for node in network.server_nodes if node is not leader]
        hand_to(network, stays[0], second)
        await asyncio.to_thread(wait_version, network, 2, *stays)
        await asyncio.to_thread(wait_for, lambda: not leader.is_running(), "the old one to stop")
        await clients[1].publish(b"second", timeout=120)

        # The newcomer is killed, comes back as who it was, with the file it came with.
        n1.kill()
        n1.start()
        await clients[2].publish(b"third", timeout=120)

        # All servers lose power; two of them have nothing but the first version's file.
        survivors = [network.nodes[name] for name in stays] + [n1]
        for node in survivors:
            node.kill()
        shutil.copy(network.descriptor_file, network.folder / f"{stays[0]}.toml")
        for node in survivors:
            node.start()
        await clients[0].publish(b"fourth", timeout=120)

        # An aggregator that starts anew with the first file finds its way.
        leaf = network.nodes["leaf"]
        leaf.kill()
        leaf.start()
        await clients[1].publish(b"fifth", timeout=120)

        # A second server goes, its disk lost; a publisher that only has the first file comes in.
        gone = network.nodes[stays[1]]
        gone.kill()
        shutil.rmtree(network.folder / f"{gone.name}.state")
        third = await asyncio.to_thread(replace, network, "v2.toml", gone.name, "n2", "v3.toml")
        newcomer_of(network, "n2", "v3.toml")
        hand_to(network, stays[0], third)
        await asyncio.to_thread(wait_version, network, 3, stays[0], "n1", "root", "leaf")
        await clients[2].publish(b"sixth", timeout=120)
        late = await stack.enter_async_context(Publisher(first, transport="tls"))
        receipt = await late.publish(b"seventh", timeout=120)
        assert receipt.placements


def rotate(network: LiveNetwork, kind: str, old: str, *words: str, out: str) -> None:
    """Write a version with another key, and have the log adopt it."""
    line = ("rotate", kind, old, *words, "--key", "operator.secret", "--out", out)
    done = run_zipnet(*line, cwd=network.folder)
    assert done.returncode == 0, done.stderr
    hand_to(network, "s0", network.folder / out)
    wait_version(network, int(out[1]), "s0", "s1")


@pytest.mark.parametrize("has", ["both secrets", "the present secret and file"])
async def test_nodes_come_back_after_every_key_around_them_was_rotated(
    network: LiveNetwork, has: str
) -> None:
    """They were down for so many versions that nothing they go by is good any more."""
    folder, away = network.folder, [network.nodes[name] for name in ("s2", "root")]

    def rotate_all() -> None:
        for node in away:
            node.kill()
        made = run_zipnet("keygen", "committee", "--out", "committee.secret.next", cwd=folder)
        assert made.returncode == 0, made.stderr
        new = ("--new-secret-file", "committee.secret.next")
        rotate(network, "committee-secret", "d.toml", *new, out="v2.toml")
        for name, old, out in (("s0", "v2.toml", "v3.toml"), ("s1", "v3.toml", "v4.toml")):
            words = ("--node", name, "--secret-file", f"{name}.secret")
            rotate(network, "tls", old, *words, out=out)
        # The last one closes the windows of those before it.
        for name, old, out in (("s2", "v4.toml", "v5.toml"), ("root", "v5.toml", "v6.toml")):
            words = ("--node", name, "--secret-file", f"{name}.secret")
            rotate(network, "tls", old, *words, out=out)
        if has != "both secrets":
            (folder / "committee.secret.next").replace(folder / "committee.secret")
            shutil.copy(folder / "v6.toml", folder / "s2.toml")
        for node in away:  # one after the other: together they would know each other
            node.start()
            wait_version(network, 6, node.name)

    await asyncio.to_thread(rotate_all)
    async with AsyncExitStack() as stack:
        first = load_descriptor(network.descriptor_file)
        clients = [
            await stack.enter_async_context(Publisher(first, transport="tls")) for _ in range(3)
        ]
        receipt = await clients[0].publish(b"all three are needed", timeout=90)
        assert receipt.placements


def _leader(network: LiveNetwork) -> Node:
    found: list[Node] = []

    def look() -> bool:
        leader = network.leader()
        if leader is not None:
            found.append(leader)
        return bool(found)

    wait_for(look, "a leader")
    return found[-1]


async def test_servers_without_memory_are_replaced_the_same_way(tmp_path: Path) -> None:
    network = with_own_files(LiveNetwork(tmp_path))
    for node in network.server_nodes:
        at = node.arguments.index("--state")
        del node.arguments[at : at + 2]
    try:
        await asyncio.to_thread(network.start)
        first = load_descriptor(network.descriptor_file)
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(Publisher(first, transport="tls")) for _ in range(3)
            ]
            await clients[0].publish(b"first", timeout=90)
            network.nodes["s1"].kill()
            second = await asyncio.to_thread(replace, network, "d.toml", "s1", "n1", "v2.toml")
            shutil.copy(second, network.folder / "n1.toml")
            arguments = list(network.nodes["s2"].arguments)
            arguments[arguments.index("s2.toml")] = "n1.toml"
            arguments[arguments.index("s2.secret")] = "n1.secret"
            n1 = network.nodes["n1"] = Node("n1", arguments, network.folder)
            n1.start()
            hand_to(network, "s0", second)
            await clients[1].publish(b"second", timeout=120)
            # One of the others restarts with the first file and nothing else.
            network.nodes["s2"].kill()
            network.nodes["s2"].start()
            await clients[2].publish(b"third", timeout=120)
            assert n1.events("seat_taken")
    finally:
        await asyncio.to_thread(network.close)

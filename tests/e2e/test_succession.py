"""A server's disk is lost for good, another one takes its seat, and nobody is restarted."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork, Node, run_zipnet, wait_for
from zipnet.host.loopback import free_ports
from zipnet.protocol.identity import Identity
from zipnet.protocol.secret import Secret, format_secret_text
from zipnet.sdk import Publisher, Reader, load_descriptor
from zipnet.settings.publicfile import PublicFile, format_public_file
from zipnet.transport.certificate import node_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zipnet.protocol.descriptor import TrustedDescriptor

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path, tree={"root": None, "leaf": "root"})
    # One server has a file of its own: what comes next is handed to it alone.
    shutil.copy(made.descriptor_file, tmp_path / "s0.toml")
    arguments = made.nodes["s0"].arguments
    arguments[arguments.index("d.toml")] = "s0.toml"
    try:
        made.start()
        yield made
    finally:
        made.close()


def make_newcomer(network: LiveNetwork, name: str = "n1") -> Path:
    """Draw a node secret; returns the public file."""
    secret = Secret(os.urandom(32))
    path = network.folder / f"{name}.secret"
    path.touch(mode=0o600)
    path.write_text(format_secret_text(secret) + "\n")
    identity = Identity.from_secret(secret)
    certificate = node_certificate(identity.ed25519_private_key()).der
    public = network.folder / f"{name}.pub"
    public.write_text(format_public_file(PublicFile("node", identity.public, certificate)))
    return public


def next_version(network: LiveNetwork, *words: str, out: str = "d2.toml") -> Path:
    """Write and sign the version that follows ``d.toml``, on the command line."""
    verb, *rest = words
    for line in (
        ("descriptor", verb, "d.toml", *rest, "--out", out),
        ("descriptor", "sign", out, "--key", "operator.secret"),
    ):
        done = run_zipnet(*line, cwd=network.folder)
        assert done.returncode == 0, done.stderr
    return network.folder / out


def hand_to(network: LiveNetwork, server: str, file: Path) -> None:
    """Put a version where a server finds its descriptor, as an operator does."""
    draft = network.folder / "draft.toml"
    shutil.copy(file, draft)
    draft.replace(network.folder / f"{server}.toml")


def start_newcomer(network: LiveNetwork, name: str = "n1", descriptor: str = "d2.toml") -> Node:
    arguments = list(network.nodes["s2"].arguments)
    arguments[arguments.index("d.toml")] = descriptor
    arguments[arguments.index("s2.secret")] = f"{name}.secret"
    arguments[arguments.index("s2.state")] = f"{name}.state"
    node = network.nodes[name] = Node(name, arguments, network.folder)
    node.start()
    return node


async def read_all(descriptor: TrustedDescriptor) -> dict[bytes, int]:
    """Read the whole log anew: messages, and the version each one's round was held under."""
    found: dict[bytes, int] = {}
    versions: dict[int, int] = {}
    async with Reader(descriptor, from_sequence=0, follow=False, transport="tls") as reader:
        async for message in reader:
            found[message.payload] = int(message.round)
    async with Reader(descriptor, from_sequence=0, follow=False, transport="tls") as reader:
        async for record in reader.records():
            header = record.record.content.header
            versions[int(header.round)] = int(header.descriptor_version)
    return {payload: versions[number] for payload, number in found.items()}


def keep_and_prove(network: LiveNetwork) -> None:
    """Archive a log of two committees; whoever has either descriptor alone verifies all of it."""
    (network.folder / "client.toml").write_text('transport = "tls"\n')
    for words in (
        ("pull", "kept", "-d", "d.toml"),
        ("verify", "kept", "-d", "d2.toml"),
        ("verify", "kept", "-d", "d.toml"),
        ("export", "kept", "-d", "d2.toml", "--out", "range"),
        ("verify", "range", "-d", "d.toml"),
        ("verify", "range", "-d", "d2.toml"),
        ("restore", "again", "range", "-d", "d.toml"),
        ("verify", "again", "-d", "d2.toml"),
    ):
        done = run_zipnet("archive", *words, "--config", "client.toml", cwd=network.folder)
        assert done.returncode == 0, (words, done.stderr)


async def test_a_lost_server_is_replaced_while_everybody_else_goes_on(network: LiveNetwork) -> None:
    first = load_descriptor(network.descriptor_file)
    followed: list[bytes] = []

    async def follow(reader: Reader) -> None:
        async for message in reader:
            followed.append(message.payload)
            if message.payload == b"again":
                return

    async with AsyncExitStack() as stack:
        publishers = [
            await stack.enter_async_context(Publisher(first, transport="tls")) for _ in range(3)
        ]
        reader = await stack.enter_async_context(Reader(first, transport="tls"))
        following = asyncio.create_task(follow(reader))
        before = await publishers[0].publish(b"before", timeout=90)

        # The disk of s1 is gone for good.
        network.nodes["s1"].kill()
        shutil.rmtree(network.folder / "s1.state")
        port = free_ports(1)[0]
        public = make_newcomer(network)
        file = await asyncio.to_thread(
            next_version,
            network,
            "replace",
            "--seat",
            "s1",
            "--server",
            f"n1=127.0.0.1:{port}={public.name}",
        )
        newcomer = start_newcomer(network)
        began = time.monotonic()
        hand_to(network, "s0", file)
        after = await publishers[1].publish(b"after", timeout=120)
        print(f"replaced, and a message broadcast, in {time.monotonic() - began:.1f} s")
        assert after.round > before.round

        # Another server is lost for a while and comes back with the old file, in the new committee.
        s2 = network.nodes["s2"]
        s2.kill()
        s2.start()
        again = await publishers[2].publish(b"again", timeout=120)
        assert again.round > after.round
        await asyncio.wait_for(following, 60)

    expected = {b"before": 1, b"after": 2, b"again": 2}
    assert followed == list(expected)
    # From the old file and from the new one alone: all records, each under its own version.
    assert await read_all(first) == expected
    assert await read_all(load_descriptor(file)) == expected
    await asyncio.to_thread(keep_and_prove, network)
    await asyncio.to_thread(wait_for, lambda: newcomer.events("seat_taken"), "the seat")
    for name in ("s0", "s2", "n1"):
        assert network.nodes[name].is_running()
    assert network.nodes["root"].starts == network.nodes["leaf"].starts == 1


def test_a_newcomer_whom_nobody_answers_heeds_its_operator(tmp_path: Path) -> None:
    """It asks for the versions before its own until somebody gives them: here nobody ever does."""
    made = LiveNetwork(tmp_path)
    public = make_newcomer(made)
    where = f"n1=127.0.0.1:{free_ports(1)[0]}={public.name}"
    next_version(made, "replace", "--seat", "s1", "--server", where)
    newcomer = start_newcomer(made)
    try:
        wait_for(lambda: newcomer.events("versions_not_fetched"), "it to ask")
        assert newcomer.stop() == 0
    finally:
        made.close()

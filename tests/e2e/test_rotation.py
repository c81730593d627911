"""Every kind of key is rotated while traffic flows, and no round is lost (rows Z6, H3)."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.test_revocation import ISSUER, Guarded
from tests.e2e.test_succession import hand_to, make_newcomer, start_newcomer
from tests.harness.network import Node, run_zipnet, wait_for
from zipnet.access.capability import CapabilityRole
from zipnet.access.minting import issuer_key
from zipnet.host.loopback import free_ports
from zipnet.protocol.params import Cadence
from zipnet.protocol.revocation import RevokedKind, sign_revocation
from zipnet.protocol.secret import Secret
from zipnet.sdk import Publisher, load_descriptor
from zipnet.settings.keycustody import signer
from zipnet.wire.admin import AdminReply, AdminRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)
SERVERS = ("s0", "s1", "s2")


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Guarded]:
    with Secret(bytearray(ISSUER)) as secret:
        key = "issuer1" + issuer_key(secret).hex()
    network = Guarded(
        tmp_path,
        tree={"root": None, "leaf": "root"},
        # On a machine that is busy a slow client is not to be taken for a lost round.
        cadence=Cadence(round_period_ms=300, fold_deadline_ms=10_000, round_deadline_ms=30_000),
        platform={"server": {"ZIPNET_TOKEN_ISSUERS": key}},
    )
    for number in (1, 2):
        network.mint(f"op{number}", CapabilityRole.ADMIN_WRITE)
    (tmp_path / "s0.toml").write_bytes(network.descriptor_file.read_bytes())
    arguments = network.nodes["s0"].arguments
    arguments[arguments.index("d.toml")] = "s0.toml"
    try:
        network.start()
        yield network
    finally:
        network.close()


def rotate(network: Guarded, *words: str) -> str:
    done = run_zipnet("rotate", *words, cwd=network.folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_adopted(network: Guarded, version: int, *names: str) -> None:
    def adopted(name: str) -> bool:
        return any(
            event["version"] == version
            for event in network.nodes[name].events("descriptor_adopted")
        )

    wait_for(lambda: all(map(adopted, names)), f"version {version}")


def by_old_operator(network: Guarded, at: str) -> AdminReply:
    with signer(network.folder / "operator.secret", what="operator") as operator:
        statement = sign_revocation(
            network.descriptor.group,
            RevokedKind.PEER,
            bytes(range(32)),
            time.time_ns() // 10**6,
            operator,
        )
    request = AdminRequest(verb="revoke", statement=statement, tokens=network.operators())
    return network.call(at, request)


EVERYBODY = ("s0", "s2", "root", "leaf")


def rotate_keys(network: Guarded) -> None:
    """All that leave every server in its seat, each adopted before the next."""
    ops = ("--token", "op1.token", "--token", "op2.token")
    # Key agreement.
    said = rotate(network, "dh", "--socket", "s1.state/admin", *ops)
    assert "announcing" in said
    # The operator's key.
    made = run_zipnet("keygen", "operator", "--out", "new.secret", cwd=network.folder)
    assert made.returncode == 0, made.stderr
    rotate(network, "descriptor-key", "d.toml", "--key", "operator.secret", "--new-key",
           "new.secret", "--out", "d2.toml")  # fmt: skip
    hand_to(network, "s0", network.folder / "d2.toml")
    wait_adopted(network, 2, "s1", *EVERYBODY)
    # The key before may still revoke.
    assert by_old_operator(network, "s2").ok
    # A TLS certificate.
    rotate(network, "tls", "d2.toml", "--node", "s2", "--secret-file", "s2.secret",
           "--key", "new.secret", "--out", "d3.toml")  # fmt: skip
    hand_to(network, "s0", network.folder / "d3.toml")
    wait_adopted(network, 3, "s1", *EVERYBODY)
    refused = by_old_operator(network, "s2")
    assert (refused.ok, refused.code) == (False, "bad_revocation")
    # The committee's secret, which every server finds beside the one in force.
    upcoming = "committee.secret.next"
    made = run_zipnet("keygen", "committee", "--out", upcoming, cwd=network.folder)
    assert made.returncode == 0, made.stderr
    rotate(network, "committee-secret", "d3.toml", "--new-secret-file", upcoming,
           "--key", "new.secret", "--out", "d4.toml")  # fmt: skip
    hand_to(network, "s0", network.folder / "d4.toml")
    wait_adopted(network, 4, "s1", *EVERYBODY)


def rotate_identity(network: Guarded) -> None:
    public = make_newcomer(network)
    port = free_ports(1)[0]
    rotate(network, "identity", "d4.toml", "--seat", "s1", "--public", public.name, "--endpoint",
           f"127.0.0.1:{port}", "--key", "new.secret", "--out", "d5.toml")  # fmt: skip
    newcomer = start_newcomer(network, descriptor="d5.toml")
    hand_to(network, "s0", network.folder / "d5.toml")
    wait_adopted(network, 5, *EVERYBODY)
    wait_for(lambda: newcomer.events("seat_taken"), "the seat")


def rotate_aggregator(network: Guarded) -> None:
    """The leaf that publishers send to: a process with another identity takes its name."""
    public = make_newcomer(network, "l1")
    old = network.nodes["leaf"]
    arguments = list(old.arguments)
    arguments[arguments.index("d.toml")] = "d6.toml"
    arguments[arguments.index("leaf.secret")] = "l1.secret"
    rotate(network, "identity", "d5.toml", "--seat", "leaf", "--public", public.name, "--endpoint",
           f"127.0.0.1:{free_ports(1)[0]}", "--key", "new.secret", "--out", "d6.toml")  # fmt: skip
    newcomer = network.nodes["l1"] = Node("l1", arguments, network.folder)
    newcomer.start()
    hand_to(network, "s0", network.folder / "d6.toml")
    wait_adopted(network, 6, "s0", "s2", "root")
    wait_for(lambda: not old.is_running(), "the old leaf to stop")
    assert "aggregator no more" in old.err.read_text()
    wait_for(lambda: newcomer.events("node_ready"), "the new leaf")


def put_old_secret_aside(network: Guarded) -> None:
    """With the secret before alone a server starts no more; with the new one it is back."""
    server, folder = network.nodes["s2"], network.folder
    server.kill()
    (folder / "committee.secret.next").rename(folder / "new.committee")
    server.start()
    wait_for(lambda: not server.is_running(), "the old secret to be refused")
    assert "not the committee secret in force" in server.err.read_text()
    (folder / "new.committee").replace(folder / "committee.secret")
    server.arguments[server.arguments.index("d.toml")] = "d6.toml"
    ready = len(server.events("node_ready"))
    server.start()
    wait_for(lambda: len(server.events("node_ready")) > ready, "it to be back among the others")


def trail(network: Guarded, name: str) -> list[dict[str, Any]]:
    """A server's audit trail."""
    done = run_zipnet("audit", "export", f"{name}.state/audit.log", cwd=network.folder)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


def rotated(network: Guarded, name: str) -> list[str]:
    """The kinds of keys a server's audit trail says were rotated."""
    entries = trail(network, name)
    return [one["fields"]["mode"] for one in entries if one["event"] == "key_rotated"]


@pytest.mark.requirement("Z6")
async def test_every_rotation_runs_under_traffic_without_a_lost_round(network: Guarded) -> None:
    descriptor = load_descriptor(network.descriptor_file)
    sent: list[int] = []
    stop = asyncio.Event()

    async def talk(publisher: Publisher, label: str) -> None:
        while not stop.is_set():
            receipt = await publisher.publish(f"{label} {len(sent)}".encode(), timeout=120)
            sent.append(receipt.round)

    async with AsyncExitStack() as stack:
        publishers = [
            await stack.enter_async_context(Publisher(descriptor, transport="tls"))
            for _ in range(4)
        ]
        await publishers[0].publish(b"first", timeout=90)
        began = len(network.nodes["s0"].events("round_aborted"))
        async with asyncio.TaskGroup() as group:
            for number, publisher in enumerate(publishers):
                group.create_task(talk(publisher, str(number)))
            await asyncio.to_thread(rotate_keys, network)
            await publishers[0].publish(b"under the new keys", timeout=90)
            strict = network.nodes["s0"].events("round_aborted")[began:]
            await asyncio.to_thread(rotate_identity, network)
            await publishers[0].publish(b"under the new identity", timeout=90)
            lost = network.nodes["s0"].events("round_aborted")[began:]
            await asyncio.to_thread(rotate_aggregator, network)
            await publishers[0].publish(b"through the new leaf", timeout=90)
            stop.set()
        all_lost = network.nodes["s0"].events("round_aborted")[began:]
    assert not strict, "not one round was lost to those that leave the servers in their seats"
    # An identity's rotation retires every client: they hear of the version as it is adopted, and
    # the next round waits for them.
    given_up = [(gone["round"], gone["reason"]) for gone in all_lost]
    print(f"{len(sent)} messages; given up, with the leaf's: {given_up}")
    assert not lost

    # What was replaced is over: the server with the old identity has stopped, and starts no more.
    old = network.nodes["s1"]
    await asyncio.to_thread(wait_for, lambda: not old.is_running(), "the old identity to stop")
    assert old.events("server_replaced")
    old.start()
    await asyncio.to_thread(wait_for, lambda: not old.is_running(), "it to be refused")
    assert "another server in this one's place" in old.err.read_text()

    await asyncio.to_thread(put_old_secret_aside, network)
    network.close()
    kinds = {"descriptor_key", "tls", "committee_secret", "identity"}
    assert set(rotated(network, "s0")) == kinds
    assert rotated(network, "s0").count("identity") == 2, "a server's and an aggregator's"
    read = [one["fields"] for one in trail(network, "s0") if one["event"] == "secret_read"]
    assert "NEXT_COMMITTEE_SECRET" in {one["setting"] for one in read}
    assert "dh" in rotated(network, "s1")

"""Capabilities, revocation and the admin socket on real processes, and the time it took."""

from __future__ import annotations

import os
import stat
import time
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork, Node, run_zipnet, wait_for
from zipnet.access.capability import CapabilityRole, inspect_capability
from zipnet.access.minting import issuer_key, mint_capability
from zipnet.node.admin_client import call_admin
from zipnet.protocol.identity import Identity
from zipnet.protocol.params import RoundParams
from zipnet.protocol.revocation import RevokedKind, sign_revocation
from zipnet.protocol.secret import Secret, format_secret_text
from zipnet.settings.secretfiles import read_secret_file
from zipnet.settings.tokenfile import read_token_file, write_token_file
from zipnet.wire.admin import AdminReply, AdminRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from zipnet.protocol.ids import PeerId

pytestmark = pytest.mark.timeout(240)
ISSUER = bytes(range(1, 33))
LIMIT_S = 1.0


class Guarded(LiveNetwork):
    """A network whose nodes ask publishers for a capability, and its operators."""

    def mint(self, name: str, *roles: CapabilityRole, peer: PeerId | None = None) -> Path:
        path = self.folder / f"{name}.token"
        with Secret(bytearray(ISSUER)) as secret:
            token = mint_capability(
                secret,
                group=self.descriptor.group,
                roles=roles,
                now_s=int(time.time()),
                lifetime_s=3600,
                peer=peer,
            )
            write_token_file(path, token, issuer_key(secret))
        return path

    def operators(self) -> list[bytes]:
        return [read_token_file(self.folder / f"op{i}.token")[0] for i in (1, 2)]

    def call(self, name: str, request: AdminRequest) -> AdminReply:
        return call_admin(self.folder / f"{name}.state" / "admin", request)

    def publisher(self, name: str) -> Node:
        words = ("publish", "--cover", "--descriptor", "d.toml", "--secret-file", f"{name}.secret")
        return self.spawn(name, *words, "--token", f"{name}.token")

    def identity(self, name: str) -> PeerId:
        secret = Secret(bytearray(os.urandom(32)))
        path = self.folder / f"{name}.secret"
        path.write_text(format_secret_text(secret) + "\n")
        path.chmod(0o600)
        return Identity.from_secret(secret).peer_id

    def revoke(self, at: str, kind: RevokedKind, target: bytes) -> float:
        """Revoke, and return when the call began, seconds since 1970."""
        secret, _ = read_secret_file(self.folder / "operator.secret", what="operator")
        operator = Identity.from_secret(secret)
        group = self.descriptor.group
        statement = sign_revocation(group, kind, target, time.time_ns() // 10**6, operator)
        request = AdminRequest(verb="revoke", statement=statement, tokens=self.operators())
        began = time.time()
        reply = self.call(at, request)
        assert reply.ok, reply.text
        return began

    def time_to_reach(self, names: list[str], since: float, count: int) -> float:
        """Wait until these nodes enforced ``count`` revocations; returns how long the last took."""
        slowest = 0.0
        for name in names:
            node = self.nodes[name]
            wait_for(partial(_told, node, count), f"{name} to hear")
            at = str(node.events("principal_revoked")[count - 1]["timestamp"])
            slowest = max(slowest, datetime.fromisoformat(at).timestamp() - since)
        return slowest

    def participants(self) -> float:
        return self.nodes["s0"].metric("zipnet_round_participants")


def _later(now: Callable[[], float], ends: float) -> bool:
    return now() > ends


def _told(node: Node, count: int) -> bool:
    return len(node.events("principal_revoked")) >= count


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Guarded]:
    with Secret(bytearray(ISSUER)) as secret:
        key = "issuer1" + issuer_key(secret).hex()
    asked = {"ZIPNET_TOKEN_ISSUERS": key, "ZIPNET_TOKEN_ROLES": "publish,aggregate,read"}
    network = Guarded(
        tmp_path,
        tree={"root": None, "leaf": "root"},
        params=RoundParams(num_slots=16, slot_bytes=256, min_participants=2),
        max_absent=1,
        platform={"server": asked, "aggregator": {**asked, "ZIPNET_TOKEN": "tree.token"}},
    )
    for number in (1, 2):
        network.mint(f"op{number}", CapabilityRole.ADMIN_WRITE)
    network.mint("tree", CapabilityRole.AGGREGATE)
    network.mint("reader", CapabilityRole.READ)
    try:
        network.start()
        yield network
    finally:
        network.close()


def refused_publish(network: Guarded, *words: str) -> str:
    done = run_zipnet(
        "publish", "--descriptor", "d.toml", "--message", "hi", "--timeout", "30s", *words,
        cwd=network.folder,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stderr


@pytest.mark.requirement("Z26")
@pytest.mark.requirement("M13")
@pytest.mark.requirement("L2")
@pytest.mark.requirement("L16")
@pytest.mark.requirement("M5")
def test_a_revoked_publisher_and_a_revoked_server_are_cut_off_everywhere_within_a_second(
    network: Guarded,
) -> None:
    peers = {}
    for name in ("p0", "p1", "p2"):
        peers[name] = network.identity(name)
        network.mint(name, CapabilityRole.PUBLISH, peer=peers[name])
    publishers = {name: network.publisher(name) for name in peers}
    wait_for(lambda: network.participants() == 3, "three publishers in a round")

    # Without a capability, or with one that is somebody else's, nobody publishes (row L2).
    assert "needs a capability" in refused_publish(network)
    assert "another peer" in refused_publish(network, "--token", "p0.token")

    read = ("read", "--descriptor", "d.toml", "--limit", "1", "--records")
    assert run_zipnet(*read, "--token", "reader.token", cwd=network.folder).returncode == 0
    unread = run_zipnet(*read, cwd=network.folder)
    assert unread.returncode == 1
    assert "needs a capability" in unread.stderr

    # The socket and its folder are the node's own; one operator alone revokes nobody (L16, M5).
    folder = network.folder / "s0.state" / "admin"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "admin.sock").stat().st_mode) == 0o600
    request = AdminRequest(verb="revoke", statement=b"x", tokens=network.operators()[:1])
    assert network.call("s0", request).code == "second_operator_missing"

    # A publisher.
    everywhere = ["s0", "s1", "s2", "root", "leaf"]
    began = network.revoke("s0", RevokedKind.PEER, peers["p2"])
    took = network.time_to_reach(everywhere, began, 1)
    print(f"revoked publisher cut off on {len(everywhere)} nodes in {took * 1000:.0f} ms")
    assert took <= LIMIT_S
    wait_for(lambda: not publishers["p2"].is_running(), "the revoked publisher to give up")
    assert "revoked" in publishers["p2"].err.read_text()
    wait_for(lambda: network.participants() == 2, "rounds without it")

    # A server; it counts as absent, and rounds go on without it.
    began = network.revoke("s1", RevokedKind.PEER, network.descriptor.committee[2].peer_id)
    rest = ["s0", "s1", "root", "leaf"]
    took = network.time_to_reach(rest, began, 2)
    print(f"revoked server cut off on the other {len(rest)} nodes in {took * 1000:.0f} ms")
    assert took <= LIMIT_S
    done = network.nodes["s0"].metric("zipnet_rounds_finalized_total")
    wait_for(
        lambda: network.nodes["s0"].metric("zipnet_rounds_finalized_total") >= done + 3,
        "rounds without the revoked server",
    )

    # Through restarts, of those who cut off and of those who were.
    for name in ("s0", "root", "s2"):
        network.nodes[name].stop()
    for name in ("s0", "root", "s2"):
        network.nodes[name].start()
    outcast = network.nodes["s2"]
    wait_for(
        lambda: {e["reason"] for e in outcast.events("link_refused")} >= {"revoked"}, "a refusal"
    )
    done = network.nodes["s1"].metric("zipnet_rounds_finalized_total")
    wait_for(
        lambda: network.nodes["s1"].metric("zipnet_rounds_finalized_total") >= done + 2,
        "rounds after restarts",
    )
    assert outcast.metric("zipnet_bonds") == 0
    assert outcast.events("server_revoked")
    assert outcast.http("/readyz")[0] == 503
    words = ("--secret-file", "p2.secret", "--token", "p2.token")
    assert "revoked" in refused_publish(network, *words)
    network.close()
    last = network.records("s0")[-1]
    assert last.record.content.header.roster == (0, 1)


@pytest.mark.requirement("Z26")
@pytest.mark.requirement("L16")
@pytest.mark.requirement("M13")
def test_a_revoked_token_ends_its_sessions_and_each_call_is_in_the_audit_trail(
    network: Guarded,
) -> None:
    for name in ("p0", "p1", "p2"):
        network.mint(name, CapabilityRole.PUBLISH, peer=network.identity(name))
    publishers = {name: network.publisher(name) for name in ("p0", "p1", "p2")}
    wait_for(lambda: network.participants() == 3, "three publishers in a round")

    # The aggregators' own token is replaced while they run (row M13); the old one then goes.
    old = network.folder / "tree.token"
    ends = network.nodes["root"].metric("zipnet_capability_expiry_timestamp_seconds")
    replaced = inspect_capability(read_token_file(old)[0]).ids[-1]
    network.mint("tree2", CapabilityRole.AGGREGATE).replace(old)
    for name in ("root", "leaf"):
        expiry = partial(network.nodes[name].metric, "zipnet_capability_expiry_timestamp_seconds")
        wait_for(partial(_later, expiry, ends), f"{name} to show the new one")
    network.revoke("s2", RevokedKind.TOKEN, replaced)
    network.time_to_reach(["s0", "s1", "s2", "root", "leaf"], time.time(), 1)
    done_before = network.nodes["s0"].metric("zipnet_rounds_finalized_total")
    wait_for(
        lambda: network.nodes["s0"].metric("zipnet_rounds_finalized_total") >= done_before + 2,
        "rounds under the new one",
    )
    assert network.participants() == 3
    ops = ("--socket", "s1.state/admin", "--token", "op1.token", "--token", "op2.token")
    written = run_zipnet(
        "token", "revoke", "--descriptor", "d.toml", "--key", "operator.secret",
        "--token", "p2.token", "--out", "statement", cwd=network.folder,
    )  # fmt: skip
    assert written.returncode == 0, written.stderr
    done = run_zipnet("admin", "revoke", "statement", *ops, cwd=network.folder)
    assert done.returncode == 0, done.stderr
    assert "revoked" in done.stdout
    wait_for(lambda: not publishers["p2"].is_running(), "the publisher to give up")
    assert "revoked" in publishers["p2"].err.read_text()
    wait_for(lambda: network.participants() == 2, "rounds without it")

    refused = run_zipnet("admin", "rotate", "tea", *ops, cwd=network.folder)
    assert refused.returncode == 1
    assert "not_rotatable" in refused.stderr
    status = run_zipnet("admin", "status", *ops[:4], cwd=network.folder)
    assert status.returncode == 0, status.stderr
    assert "registered" in status.stdout
    ended = run_zipnet("admin", "shutdown", *ops, cwd=network.folder)
    assert ended.returncode == 0, ended.stderr
    node = network.nodes["s1"]
    wait_for(lambda: not node.is_running(), "the server to stop")
    assert node.process is not None
    assert node.process.returncode == 0
    trail = run_zipnet("audit", "export", "s1.state/audit.log", cwd=network.folder).stdout
    for verb, reason in (("revoke", "done"), ("rotate", "not_rotatable"), ("shutdown", "done")):
        assert f'"reason":"{reason}"' in trail
        assert f'"verb":"{verb}"' in trail
    assert "principal_revoked" in trail
    token = (network.folder / "op1.token").read_text().strip().split(".")[-1]
    assert token[:40] not in trail + node.out.read_text() + node.err.read_text()

"""Live nodes: what they listen on, what they say of themselves, whom they refuse, how they stop."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.harness.network import (
    INSTANCE,
    LiveNetwork,
    Node,
    run_zipnet,
    wait_for,
)
from zipnet.host.loopback import free_ports
from zipnet.protocol.secret import Secret, format_secret_text

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    made = LiveNetwork(tmp_path_factory.mktemp("nodes"), tree={"root": None, "leaf": "root"})
    try:
        made.start()
        yield made
    finally:
        made.close()


def sockets_of(node: Node) -> set[tuple[str, str, int]]:
    """Every bound socket of a process: (protocol, address, port); also of its threads' children."""
    process = psutil.Process(node.pid)
    assert process.children(recursive=True) == []
    found: set[tuple[str, str, int]] = set()
    for connection in process.net_connections(kind="inet"):
        is_udp = connection.type == 2
        if is_udp or connection.status == psutil.CONN_LISTEN:
            found.add(("udp" if is_udp else "tcp", connection.laddr.ip, connection.laddr.port))
    return found


@pytest.mark.requirement("Z11")
@pytest.mark.parametrize("name", ["s0", "root", "leaf"])
def test_a_node_listens_on_its_transport_and_metrics_ports_and_on_nothing_else(
    network: LiveNetwork, name: str
) -> None:
    node = network.nodes[name]
    ready = node.wait_ready()
    assert ready["port"] == network.ports[name]
    assert sockets_of(node) == {
        ("tcp", "127.0.0.1", network.ports[name]),
        ("udp", "127.0.0.1", network.ports[name]),
        ("tcp", "127.0.0.1", int(str(ready["metrics_port"]))),
    }
    unix = psutil.Process(node.pid).net_connections(kind="unix")
    assert [c for c in unix if c.status == psutil.CONN_LISTEN] == []


@pytest.mark.parametrize("name", ["s1", "root", "leaf"])
def test_a_node_becomes_ready_and_says_what_it_is(network: LiveNetwork, name: str) -> None:
    node = network.nodes[name]
    wait_for(lambda: node.http("/readyz")[0] == 200, f"{name} to be ready")
    assert node.http("/healthz")[0] == 200
    status, body = node.http("/version")
    assert status == 200
    said = json.loads(body)
    assert said["posture"] == "development"
    assert said["allowed"] == "nothing"
    role = {"admin_socket", "durable", "embedded_log"} if name == "s1" else set()
    assert set(said["features"].split(",")) == {"dials_tls", *role}
    assert node.metric("zipnet_ready_state") == 1
    assert node.metric("zipnet_bonds") >= 1


def test_readiness_names_the_dependency_that_is_missing(tmp_path: Path) -> None:
    made = LiveNetwork(tmp_path)
    try:
        node = made.nodes["s0"]
        node.start()
        node.wait_ready()
        status, body = node.http("/readyz")
        assert status == 503
        assert "no_leader" in body
    finally:
        made.close()


def second_copy(network: LiveNetwork, name: str, folder: Path) -> list[str]:
    """Return the arguments of a second node with the same identity, elsewhere on this machine."""
    node = network.nodes[name]
    arguments = list(node.arguments)
    if "--state" in arguments:
        arguments[arguments.index("--state") + 1] = str(folder / "second.state")
    (port,) = free_ports(1)
    return [*arguments, "--listen", f"127.0.0.1:{port}"]


@pytest.mark.requirement("Z10")
@pytest.mark.parametrize("name", ["s2", "root", "leaf"])
def test_a_second_node_with_the_same_identity_is_refused_and_writes_nothing(
    network: LiveNetwork, name: str, tmp_path: Path
) -> None:
    wait_for(lambda: network.nodes[name].http("/readyz")[0] == 200, f"{name} to be ready")
    done = run_zipnet(*second_copy(network, name, tmp_path), cwd=network.folder)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert "another live node uses the identity" in lines[0]
    assert list(tmp_path.iterdir()) == []
    assert network.nodes[name].is_running()
    assert network.nodes[name].http("/readyz")[0] == 200


def test_a_second_server_on_the_same_state_folder_is_refused(tmp_path: Path) -> None:
    made = LiveNetwork(tmp_path)
    try:
        node = made.nodes["s0"]
        node.start()
        node.wait_ready()
        (port,) = free_ports(1)
        done = run_zipnet(*node.arguments, "--listen", f"127.0.0.1:{port}", cwd=tmp_path)
        assert done.returncode == 2
        assert "in use by another process" in done.stderr
    finally:
        made.close()


def test_a_taken_port_is_one_line_and_exit_code_2(network: LiveNetwork, tmp_path: Path) -> None:
    made = LiveNetwork(tmp_path)
    taken = network.ports["s0"]
    done = run_zipnet(*made.nodes["s0"].arguments, "--listen", f"127.0.0.1:{taken}", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(taken) in done.stderr


@pytest.fixture
def lone(tmp_path: Path) -> LiveNetwork:
    return LiveNetwork(tmp_path)


def refused(
    network: LiveNetwork,
    name: str,
    *extra: str,
    replace: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
) -> str:
    """Run a node that must refuse to start; returns its one line."""
    before = set(network.folder.rglob("*"))
    arguments = list(network.nodes[name].arguments)
    for flag, value in (replace or {}).items():
        arguments[arguments.index(flag) + 1] = value
    done = run_zipnet(*arguments, *extra, cwd=network.folder, environment=environment)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert set(network.folder.rglob("*")) == before, "something was written"
    return lines[0]


@pytest.mark.requirement("Z1")
def test_a_wrong_instance_name_is_named(lone: LiveNetwork) -> None:
    line = refused(lone, "s0", replace={"--instance": "acme.other"})
    assert "acme.other" in line
    assert INSTANCE in line


@pytest.mark.requirement("Z1")
def test_a_wrong_committee_secret_is_named(lone: LiveNetwork) -> None:
    other = lone.folder / "other.secret"
    other.write_text(format_secret_text(Secret(os.urandom(32))) + "\n")
    other.chmod(0o600)
    line = refused(lone, "s0", replace={"--committee-secret-file": "other.secret"})
    assert "committee secret" in line.lower()


@pytest.mark.requirement("Z13")
def test_an_aggregator_that_is_given_a_committee_secret_refuses_to_start(
    lone: LiveNetwork,
) -> None:
    path = str(lone.folder / "committee.secret")
    line = refused(lone, "root", environment={"ZIPNET_COMMITTEE_SECRET_FILE": path})
    assert "committee secret" in line.lower()


def test_a_secret_others_can_read_is_refused_in_production(lone: LiveNetwork) -> None:
    (lone.folder / "s0.secret").chmod(0o644)
    line = refused(lone, "s0", "--profile", "production", "--min-participants", "8")
    assert "s0.secret" in line
    assert "chmod 600" in line


@pytest.mark.requirement("Z3")
def test_an_altered_descriptor_is_named(lone: LiveNetwork) -> None:
    data = lone.descriptor_file.read_bytes()
    lone.descriptor_file.write_bytes(data.replace(b"max_absent = 0", b"max_absent = 1"))
    assert "altered" in refused(lone, "s0")


@pytest.mark.requirement("Z3")
def test_an_unsigned_descriptor_is_named(lone: LiveNetwork) -> None:
    data = lone.descriptor_file.read_bytes()
    lone.descriptor_file.write_bytes(data[: data.rindex(b"# zipnet-signature")])
    assert "not signed" in refused(lone, "s0")


def test_state_is_private_and_survives_a_clean_stop(tmp_path: Path) -> None:
    made = LiveNetwork(tmp_path)
    try:
        made.start()
        for node in made.server_nodes:
            assert node.stop() == 0
        for name in ("s0.state", "s0.state/records", "s0.state/blobs"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
        for path in (tmp_path / "s0.state").rglob("*"):
            if path.is_file():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        for node in made.server_nodes:
            node.start()
        wait_for(lambda: made.leader() is not None, "a leader after the restart")
    finally:
        made.close()


def test_no_secret_shows_in_anything_a_node_prints(network: LiveNetwork) -> None:
    secrets = [path.read_text().strip().split(":")[1] for path in network.folder.glob("*.secret")]
    assert len(secrets) >= 6
    for node in network.nodes.values():
        pages = [node.http(path)[1] for path in ("/metrics", "/readyz", "/version")]
        said = node.out.read_text() + node.err.read_text() + "".join(pages)
        for secret in secrets:
            assert secret not in said

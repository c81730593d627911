"""Promises of ``zipnet health``: what it says is what the node says, and silence is not health."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork, run_zipnet, wait_for
from zipnet.host.loopback import free_ports

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.requirement("H5")
def test_a_node_is_alive_then_ready_then_names_what_fails(tmp_path: Path) -> None:
    network = LiveNetwork(tmp_path)
    try:
        network.start()
        server = network.nodes["s0"]
        where = f"127.0.0.1:{server.wait_ready()['metrics_port']}"
        wait_for(lambda: server.http("/readyz")[0] == 200, "it to be ready")
        done = run_zipnet("health", where, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
        done = run_zipnet("health", where, "--ready", cwd=tmp_path)
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, "ready"), done.stderr
        for name in ("s1", "s2"):
            network.nodes[name].kill()
        wait_for(lambda: server.http("/readyz")[0] == 503, "it to notice")
        done = run_zipnet("health", where, "--ready", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stdout.startswith("not ready\n")
        assert "failed peers" in done.stdout
        assert "no_majority" in done.stdout
        assert run_zipnet("health", where, cwd=tmp_path).returncode == 0, (
            "a restart would mend nothing"
        )
    finally:
        network.close()


def test_silence_and_strange_addresses_are_one_line_each(tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    for address, code, says in (
        (f"127.0.0.1:{nobody}", 1, "nothing answers"),
        ("192.0.2.1:80", 2, "not on this machine"),
        ("nonsense", 2, "nonsense"),
    ):
        done = run_zipnet("health", address, cwd=tmp_path)
        assert done.returncode == code
        assert says in done.stderr
        assert done.stderr.count("\n") == 1

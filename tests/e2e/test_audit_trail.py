"""A running server's audit trail: it tells what happened, and one flipped byte is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork, run_zipnet

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)
TRAIL = "s0.state/audit.log"


@pytest.mark.requirement("A8")
@pytest.mark.requirement("M9")
@pytest.mark.requirement("Z7")
def test_a_servers_trail_verifies_and_a_flipped_byte_in_it_is_named(tmp_path: Path) -> None:
    network = LiveNetwork(tmp_path)
    node = network.nodes["s0"]
    for _ in range(2):
        node.start()
        node.wait_ready()
        assert node.stop() == 0
    network.close()
    done = run_zipnet("audit", "verify", TRAIL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("audit ok: entries=")
    assert "checkpoints=2 after_checkpoint=0" in done.stdout
    exported = run_zipnet("audit", "export", TRAIL, cwd=tmp_path)
    entries = [json.loads(line) for line in exported.stdout.splitlines()]
    told = [entry["event"] for entry in entries]
    run = ["node_started", "secret_read", "secret_read", "node_stopped", "checkpoint"]
    assert told == run * 2
    read = [entry["fields"] for entry in entries if entry["event"] == "secret_read"]
    assert {fields["setting"] for fields in read} == {"SECRET", "COMMITTEE_SECRET"}
    for secret in ("s0.secret", "committee.secret"):
        text = (tmp_path / secret).read_text().split("-")[-1].strip()
        assert text not in exported.stdout

    path = tmp_path / TRAIL
    data = bytearray(path.read_bytes())
    place = data.index(b"secret_read")
    data[place] ^= 1
    path.write_bytes(data)
    done = run_zipnet("audit", "verify", TRAIL, cwd=tmp_path)
    assert done.returncode == 1
    assert "line 2 of the audit trail" in done.stderr
    refused = run_zipnet(*node.arguments, cwd=tmp_path)
    assert refused.returncode != 0
    assert "line 2 of the audit trail" in refused.stderr

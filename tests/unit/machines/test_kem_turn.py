"""A key-agreement key is turned before its epoch is over, when the operator says so (row Z6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.servers import ServerCluster
from zipnet.machines.server_effects import AnnounceKemKey, KemTurnDue
from zipnet.protocol.ids import ServerIndex

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.requirement("Z6")
def test_a_turn_announces_one_later_key_and_rounds_go_on_with_the_chains_there_are(
    tmp_path: Path,
) -> None:
    cluster = ServerCluster(tmp_path)
    try:
        clients = [cluster.register("a"), cluster.register("b")]
        server = cluster.servers[1]
        assert server.machine is not None
        before = dict(server.machine.state.kem)
        asked = sum(isinstance(effect, AnnounceKemKey) for _, effect in cluster.performed)
        cluster.post(server, KemTurnDue())
        cluster.settle(1.1)
        cluster.settle(1.1)
        after = server.machine.state.kem
        seat = ServerIndex(1)
        assert after[seat].epoch == before[seat].epoch + 1
        assert after[seat].announcement != before[seat].announcement
        assert {s: k for s, k in after.items() if s != seat} == {
            s: k for s, k in before.items() if s != seat
        }
        now = sum(isinstance(effect, AnnounceKemKey) for _, effect in cluster.performed)
        assert now == asked + 1, "one turn, not one after the other"
        # Chains that began under the key before are still there.
        assert server.custody is not None
        assert all(server.custody.holds(client.index) for client in clients)
    finally:
        cluster.close()

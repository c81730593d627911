"""A server that is handed the committee's state goes on as one that saw every command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.servers import HarnessClient, ServerCluster
from tests.interaction.test_server_rounds import finish_round, register, require_sound
from zipnet.machines.committee import Phase
from zipnet.machines.committee_snapshot import state_digest
from zipnet.protocol.command import RetireClient


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ServerCluster]:
    made = ServerCluster(tmp_path)
    yield made
    made.close()


def require_level(cluster: ServerCluster) -> None:
    machines = [server.machine for server in cluster.servers]
    assert len({state_digest(m.state) for m in machines if m is not None}) == 1
    assert len({len(server.records) for server in cluster.servers}) == 1
    require_sound(cluster)


def restart_from_snapshot(cluster: ServerCluster, index: int) -> None:
    cluster.kill(index)
    cluster.start(index)
    cluster.restore(index)
    cluster.settle()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_restart_from_a_snapshot_keeps_chains_and_goes_on(
    cluster: ServerCluster, victim: int
) -> None:
    clients = register(cluster, 3)
    for _ in range(3):
        finish_round(cluster, clients)
    restart_from_snapshot(cluster, victim)
    for _ in range(2):
        finish_round(cluster, clients)
        require_level(cluster)
    assert len(cluster.servers[victim].records) == 5
    assert not cluster.servers[victim].records[-1].void_slots


def test_a_server_that_slept_through_rounds_is_brought_up_by_a_snapshot(
    cluster: ServerCluster,
) -> None:
    clients = register(cluster, 3)
    finish_round(cluster, clients)
    sleeper = cluster.servers[2]
    log = list(cluster.log)
    finish_round(cluster, clients)
    finish_round(cluster, clients)
    # Back to what it had after the first round, and then the snapshot in place of the rest.
    whole, cluster.log = cluster.log, log
    cluster.kill(2)
    cluster.start(2)
    sleeper.events.clear()
    cluster.log = whole
    cluster.restore(2)
    cluster.settle()
    finish_round(cluster, [*clients])
    require_level(cluster)


def test_a_snapshot_within_a_round_lets_the_round_end(cluster: ServerCluster) -> None:
    clients = register(cluster, 3)
    finish_round(cluster, clients)
    header = cluster.open_round()
    restart_from_snapshot(cluster, 1)
    machine = cluster.servers[1].machine
    assert machine is not None
    assert machine.state.phase is Phase.OPEN
    cluster.offer(cluster.aggregate(header, clients))
    require_level(cluster)
    assert len(cluster.servers[0].records) == 2


def test_chains_of_clients_retired_meanwhile_are_erased(cluster: ServerCluster) -> None:
    clients: list[HarnessClient] = register(cluster, 4)
    finish_round(cluster, clients)
    gone = clients.pop()
    cluster.servers[1].frozen = True
    cluster._propose(cluster.servers[0], RetireClient(gone.index))
    cluster.settle()
    custody = cluster.servers[1].custody
    assert custody is not None
    assert custody.holds(gone.index)
    cluster.servers[1].frozen = False
    cluster.restore(1)
    cluster.settle()
    finish_round(cluster, clients)
    assert not custody.holds(gone.index)
    assert all(custody.holds(client.index) for client in clients)
    require_level(cluster)

"""Whole rounds through real server machines: what leaves, what is stored, what a crash changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import servers as harness
from tests.harness.committee import HarnessCommittee
from tests.harness.servers import CADENCE, HarnessClient, ServerCluster
from zipnet.machines.committee import Phase
from zipnet.machines.server_effects import (
    AssembleRecord,
    Effect,
    KeepAggregate,
    PersistRelease,
    Propose,
    SharePartial,
    StepChains,
    StoreRecord,
    Unblind,
)
from zipnet.protocol.command import ChooseAggregate, PostPartial, RetireClient
from zipnet.protocol.ids import Digest, RegistryIndex, ServerIndex, SlotIndex, content_digest
from zipnet.protocol.participants import Participants
from zipnet.protocol.slots import encode_slot, fragment_message


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ServerCluster]:
    made = ServerCluster(tmp_path)
    yield made
    made.close()


def register(cluster: ServerCluster, count: int) -> list[HarnessClient]:
    return [cluster.register(f"c{i}") for i in range(count)]


def finish_round(cluster: ServerCluster, clients: list[HarnessClient]) -> None:
    header = cluster.open_round()
    cluster.offer(cluster.aggregate(header, clients))


def require_sound(cluster: ServerCluster) -> None:
    """Nothing that must never happen has happened (protocol.md §8.2, records never fork)."""
    per_round = {(server, number, digest) for server, number, digest in cluster.released}
    doubled = Counter((server, number) for server, number, _ in per_round)
    assert not [key for key, count in doubled.items() if count > 1], "two partials in a round"
    longest = max((server.records for server in cluster.servers), key=len)
    for server in cluster.servers:
        ours = [record.hash for record in server.records]
        assert ours == [record.hash for record in longest[: len(ours)]], "records fork"


@pytest.mark.requirement("D3")
def test_a_round_ends_in_the_same_record_on_every_server(cluster: ServerCluster) -> None:
    clients = register(cluster, 3)
    header = cluster.open_round()
    draws = iter(range(1000))
    (fragment,) = fragment_message(
        b"hello", cluster.params, lambda size: bytes(next(draws) % 256 for _ in range(size))
    )
    slot = encode_slot(fragment, cluster.params, header.hash, SlotIndex(2))
    size = cluster.params.slot_bytes

    def clear(client: HarnessClient) -> bytes:
        body = bytearray(cluster.params.body_bytes)
        if client is clients[0]:
            body[2 * size : 3 * size] = slot
        return bytes(body)

    cluster.offer(cluster.aggregate(header, clients, clear))
    assert [len(server.records) for server in cluster.servers] == [1, 1, 1]
    assert len({server.records[0].hash for server in cluster.servers}) == 1
    record = cluster.servers[0].records[0]
    assert record.fragments[SlotIndex(2)] == fragment
    assert record.record.content.participants == 3
    require_sound(cluster)


def test_rounds_go_on_and_chains_step(cluster: ServerCluster) -> None:
    clients = register(cluster, 3)
    for expected in range(1, 6):
        finish_round(cluster, clients)
        assert [len(server.records) for server in cluster.servers] == [expected] * 3
        assert not cluster.servers[0].records[-1].void_slots
    require_sound(cluster)


def test_no_partial_leaves_before_every_server_has_committed_to_its_own(
    cluster: ServerCluster,
) -> None:
    clients = register(cluster, 3)
    finish_round(cluster, clients)
    shared = [
        i for i, (_, effect) in enumerate(cluster.performed) if isinstance(effect, SharePartial)
    ]
    posted = [
        i
        for i, (_, effect) in enumerate(cluster.performed)
        if isinstance(effect, Propose) and isinstance(effect.command, PostPartial)
    ]
    assert len(shared) == 3
    assert len(posted) == 3
    assert max(posted) < min(shared)


def test_the_release_and_the_aggregate_are_durable_before_the_pads_are_computed(
    cluster: ServerCluster,
) -> None:
    clients = register(cluster, 3)
    finish_round(cluster, clients)
    for server in range(3):
        kinds = [
            type(effect)
            for owner, effect in cluster.performed
            if owner == server and isinstance(effect, KeepAggregate | PersistRelease | Unblind)
        ]
        assert kinds == [KeepAggregate, PersistRelease, Unblind]


def test_no_round_opens_for_fewer_clients_than_the_minimum(cluster: ServerCluster) -> None:
    register(cluster, cluster.params.min_participants - 1)
    for _ in range(10):
        cluster.settle(1.0)
    assert cluster.opened == []


def test_a_round_with_too_few_envelopes_is_aborted_and_the_next_one_works(
    cluster: ServerCluster,
) -> None:
    clients = register(cluster, 3)
    header = cluster.open_round()
    cluster.offer(cluster.aggregate(header, clients[:1]))
    assert cluster.aborted.count(header.round) == 3
    assert cluster.released == []
    finish_round(cluster, clients)
    assert [len(server.records) for server in cluster.servers] == [1, 1, 1]


def test_a_round_without_an_aggregate_is_aborted_after_its_deadline(
    cluster: ServerCluster,
) -> None:
    clients = register(cluster, 3)
    header = cluster.open_round()
    for _ in range(8):
        cluster.settle(0.5)
    assert header.round in cluster.aborted
    finish_round(cluster, clients)
    assert len(cluster.servers[2].records) == 1


def test_two_participant_sets_for_one_round_get_one_partial_and_one_refusal_across_a_restart(
    cluster: ServerCluster,
) -> None:
    """The issue's own scenario: the leader shows one server two sets for the same round."""
    clients = register(cluster, 4)
    header = cluster.open_round()
    first = cluster.aggregate(header, clients[:3])
    second = cluster.aggregate(header, clients[1:])
    target = cluster.servers[1]
    target.blobs[content_digest(first)] = first
    target.blobs[content_digest(second)] = second
    for server in cluster.servers:
        if server.index != 1:
            server.alive = False  # the others stay out of it: their partials never come
    log = list(cluster.log)

    def choose(blob: bytes, members: list[HarnessClient]) -> bytes:
        participants = Participants(RegistryIndex(c.index) for c in members)
        command = ChooseAggregate(
            header.round, content_digest(blob), participants.digest, len(members)
        )
        cluster._propose(cluster.servers[0], command)
        return cluster.log.pop()

    cluster.log.append(choose(first, clients[:3]))
    cluster.settle()
    posted = [e for s, e in cluster.performed if s == 1 and isinstance(e, PersistRelease)]
    assert len(posted) == 1

    # The disk survives; the log this server is shown after its restart is another one.
    cluster.kill(1)
    cluster.log = [*log, choose(second, clients[1:])]
    cluster.start(1)
    target.blobs[content_digest(second)] = second
    cluster.settle()
    cluster.settle(2.0)
    assert (1, header.round, "second_release") in cluster.refused
    persisted = [e for s, e in cluster.performed if s == 1 and isinstance(e, PersistRelease)]
    assert persisted == posted
    for server in cluster.servers:
        server.alive = server.index == 1


@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "kind",
    [KeepAggregate, PersistRelease, Unblind, SharePartial, AssembleRecord, StepChains, StoreRecord],
)
def test_a_crash_around_any_step_of_a_round_loses_and_doubles_nothing(
    tmp_path: Path, kind: type[Effect], when: str, victim: int
) -> None:
    cluster = ServerCluster(tmp_path)
    try:
        clients = register(cluster, 3)
        finish_round(cluster, clients)
        header = cluster.open_round()
        armed = [True]

        def crash(server: int, effect: Effect, moment: str) -> bool:
            hit = armed[0] and server == victim and moment == when and isinstance(effect, kind)
            if hit:
                armed[0] = False
            return hit

        cluster.crash = crash
        cluster.offer(cluster.aggregate(header, clients))
        assert not armed[0], "the crash point was never reached"
        assert not cluster.servers[victim].alive
        cluster.leader = ServerIndex(1)
        cluster.start(victim)
        for _ in range(8):
            cluster.settle(0.5)
        if header.round in cluster.aborted:
            assert not [entry for entry in cluster.released if entry[1] == header.round]
        finish_round(cluster, clients)
        for _ in range(4):
            cluster.settle(0.5)
        assert len({len(server.records) for server in cluster.servers}) == 1
        assert cluster.servers[0].records[-1].round > header.round
        assert not cluster.servers[0].records[-1].void_slots
        require_sound(cluster)
    finally:
        cluster.close()


def test_a_new_leader_finishes_the_round_of_the_one_that_left(cluster: ServerCluster) -> None:
    clients = register(cluster, 3)
    header = cluster.open_round()
    cluster.leader = ServerIndex(2)
    cluster.offer(cluster.aggregate(header, clients))
    assert [len(server.records) for server in cluster.servers] == [1, 1, 1]


def test_a_client_that_registers_again_gets_a_new_index_and_fresh_chains(
    cluster: ServerCluster,
) -> None:
    clients = register(cluster, 3)
    finish_round(cluster, clients)
    again = cluster.register("c0", serial=2)
    assert again.index == 3
    assert again.chains != clients[0].chains
    finish_round(cluster, [again, *clients[1:]])
    assert len(cluster.servers[0].records) == 2
    assert not cluster.servers[0].records[1].void_slots


def test_an_old_registration_cannot_be_replayed(cluster: ServerCluster) -> None:
    register(cluster, 3)
    cluster.register("c0", serial=5)
    machine = cluster.servers[0].machine
    assert machine is not None
    before = machine.state.registry.version
    replayed = next(data for data in cluster.log if data[1] == 2)
    cluster.log.append(replayed)
    cluster.settle()
    assert machine.state.registry.version == before


def test_where_the_descriptor_allows_it_a_round_runs_without_an_absent_server(
    tmp_path: Path,
) -> None:
    cluster = ServerCluster(tmp_path, committee=HarnessCommittee(cadence=CADENCE, max_absent=1))
    try:
        clients = register(cluster, 3)
        cluster.kill(2)
        finish_round(cluster, clients)
        for _ in range(8):
            cluster.settle(0.5)
        assert [int(server) for server in cluster.opened[-1].roster] == [0, 1]
        assert len(cluster.servers[0].records) == 1
        cluster.start(2)
        cluster.settle()
        finish_round(cluster, clients)
        assert [int(server) for server in cluster.opened[-1].roster] == [0, 1, 2]
        assert [len(server.records) for server in cluster.servers] == [2, 2, 2]
        require_sound(cluster)
    finally:
        cluster.close()


def test_without_that_permission_rounds_wait_for_the_absent_server(cluster: ServerCluster) -> None:
    register(cluster, cluster.params.min_participants - 1)
    cluster.kill(2)
    cluster.register("the one that makes it enough")
    for _ in range(6):
        cluster.settle(1.0)
    assert cluster.opened == []
    machine = cluster.servers[0].machine
    assert machine is not None
    assert machine.state.phase is Phase.IDLE


def test_clients_that_were_retired_learn_of_it_by_a_round_that_opens_for_nobody(
    cluster: ServerCluster,
) -> None:
    """A server that forgot everything retires all clients; without a round none would notice."""
    clients = register(cluster, 3)
    finish_round(cluster, clients)
    for client in clients:
        cluster._propose(cluster.servers[1], RetireClient(client.index))
    cluster.settle()
    header = cluster.open_round()
    assert header.registry_version == 6, "three came, three went"
    cluster.offer(cluster.aggregate(header, []))
    for _ in range(8):
        cluster.settle(0.5)
    assert cluster.opened[-1] == header, "told once is enough"
    assert header.round in cluster.aborted
    assert not [entry for entry in cluster.released if entry[1] == header.round]
    again = [cluster.register(client.name, serial=2) for client in clients]
    finish_round(cluster, again)
    assert len(cluster.servers[0].records) == 2


def test_what_a_round_hangs_on_is_named_as_in_use_until_it_ends(cluster: ServerCluster) -> None:
    """The node holds it against floods of other blobs: nobody else may have a copy."""
    clients = register(cluster, 3)
    header = cluster.open_round()
    blob = cluster.aggregate(header, clients)
    seen: list[frozenset[Digest]] = []

    def look(server: int, effect: Effect, _when: str) -> bool:
        machine = cluster.servers[server].machine
        assert machine is not None
        if isinstance(effect, KeepAggregate | SharePartial):
            seen.append(machine.blobs_in_use)
            wanted = effect.aggregate if isinstance(effect, KeepAggregate) else effect.partial
            assert wanted in machine.blobs_in_use
        return False

    cluster.crash = look
    cluster.offer(blob)
    assert seen
    cluster.open_round()
    for server in cluster.servers:
        assert server.machine is not None
        assert not server.machine.blobs_in_use


def test_a_record_outlives_all_servers_stopping_before_any_has_stored_it(
    cluster: ServerCluster,
) -> None:
    """The power goes for the whole committee, right after the last signature is in the log."""
    clients = register(cluster, 3)
    cluster.crash = lambda _server, effect, when: (
        isinstance(effect, StoreRecord) and when == "before"
    )
    finish_round(cluster, clients)
    assert not cluster.alive()
    assert [len(server.records) for server in cluster.servers] == [0, 0, 0]
    cluster.crash = lambda *_: False
    for server in cluster.servers:
        cluster.start(server.index)
    cluster.settle(1.0)
    assert [len(server.records) for server in cluster.servers] == [1, 1, 1]
    finish_round(cluster, clients)
    assert [len(server.records) for server in cluster.servers] == [2, 2, 2]
    require_sound(cluster)


@pytest.mark.parametrize("jump_s", [10 * 365 * 86_400, -10 * 365 * 86_400], ids=["ahead", "back"])
def test_keys_turn_by_the_servers_own_clock_when_the_wall_clock_jumped(
    cluster: ServerCluster, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    """§4.1: a KEM key is used for one epoch, also after a wrong date named epochs far ahead."""
    register(cluster, 3)
    machine = cluster.servers[0].machine
    assert machine is not None
    genuine = harness.WALL_MS
    if jump_s > 0:
        monkeypatch.setattr(harness, "WALL_MS", genuine + jump_s * 1000)
        cluster.settle(1.0)
        monkeypatch.setattr(harness, "WALL_MS", genuine)
    else:
        monkeypatch.setattr(harness, "WALL_MS", genuine + jump_s * 1000)
    before = machine.state.kem[ServerIndex(0)]
    epoch_s = cluster.params.kem_epoch_s
    for turn in (1, 2):
        cluster.settle(epoch_s + 1.0)
        cluster.settle(1.0)
        assert machine.state.kem[ServerIndex(0)].epoch == before.epoch + turn
    custody = cluster.servers[0].custody
    assert custody is not None
    assert custody.kem_entry(before.epoch) is None, "erased one grace period later"


def test_an_unbroken_clock_turns_keys_once_an_epoch(cluster: ServerCluster) -> None:
    machine = cluster.servers[0].machine
    assert machine is not None
    before = machine.state.kem[ServerIndex(0)].epoch
    for _ in range(30):
        cluster.settle(cluster.params.kem_epoch_s / 10)
    assert machine.state.kem[ServerIndex(0)].epoch == before + 3

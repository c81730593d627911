"""A server dies between committing to its partial and giving it: what ends, what stays hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.harness.committee import HarnessCommittee
from tests.harness.servers import CADENCE, HarnessClient, ServerCluster
from zipnet.errors import GuardError
from zipnet.machines.committee import Phase
from zipnet.machines.guard import ReleaseGuard
from zipnet.machines.server_effects import Effect, SharePartial
from zipnet.protocol.aggregate import decode_aggregate, decode_partial
from zipnet.protocol.ids import ServerIndex, content_digest
from zipnet.protocol.participants import Participants

if TYPE_CHECKING:
    from zipnet.protocol.header import RoundHeader

VICTIM = 2


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[ServerCluster]:
    made = ServerCluster(tmp_path)
    yield made
    made.close()


@pytest.fixture
def lax(tmp_path: Path) -> Iterator[ServerCluster]:
    made = ServerCluster(tmp_path, committee=HarnessCommittee(cadence=CADENCE, max_absent=1))
    yield made
    made.close()


def crash_before_giving(cluster: ServerCluster) -> tuple[RoundHeader, list[HarnessClient], bytes]:
    """Run one round, then one in which the victim dies with its digest out and its partial not."""
    clients = [cluster.register(f"c{i}") for i in range(3)]
    header = cluster.open_round()
    cluster.offer(cluster.aggregate(header, clients))
    header = cluster.open_round()
    armed = [True]

    def crash(server: int, effect: Effect, moment: str) -> bool:
        hit = armed[0] and server == VICTIM and isinstance(effect, SharePartial)
        armed[0] = armed[0] and not hit
        return hit and moment == "before"

    cluster.crash = crash
    blob = cluster.aggregate(header, clients, secret_vector(cluster))
    cluster.offer(blob)
    assert not armed[0]
    assert not cluster.servers[VICTIM].alive
    machine = cluster.servers[0].machine
    assert machine is not None
    assert machine.state.phase is Phase.REVEALED
    return header, clients, blob


def secret_vector(cluster: ServerCluster) -> Callable[[HarnessClient], bytes]:
    size = cluster.params.body_bytes
    return lambda client: bytes(size) if client.index else b"told in confidence".ljust(size, b"\7")


def given_out(cluster: ServerCluster, round_number: int) -> set[int]:
    return {server for server, number, _ in cluster.released if number == round_number}


@pytest.mark.requirement("A12")
def test_where_an_absence_is_allowed_the_round_ends_and_the_next_one_has_a_record(
    lax: ServerCluster,
) -> None:
    header, clients, _ = crash_before_giving(lax)
    lax.settle(CADENCE.round_deadline_ms / 1000 + 0.1)
    lax.settle(1.1)
    assert header.round in lax.aborted
    following = lax.open_round() if lax.opened[-1] == header else lax.opened[-1]
    assert [int(server) for server in following.roster] == [0, 1]
    lax.offer(lax.aggregate(following, clients))
    for _ in range(8):
        lax.settle(0.5)
    assert lax.servers[0].records[-1].round >= following.round
    # It returns, steps past the round it died in, and is in the roster again.
    lax.start(VICTIM)
    for _ in range(4):
        lax.settle(1.0)
    assert VICTIM not in given_out(lax, header.round)
    again = lax.open_round()
    assert [int(server) for server in again.roster] == [0, 1, 2]


def test_what_was_not_unblinded_stays_hidden_from_everybody_even_with_the_victims_disk(
    lax: ServerCluster,
) -> None:
    header, clients, blob = crash_before_giving(lax)
    assert given_out(lax, header.round) == {0, 1}
    _, aggregate = decode_aggregate(blob, lax.params)
    known = np.frombuffer(aggregate.body, dtype=np.uint8).copy()
    for server, number, digest in lax.released:
        if number == header.round:
            _, partial = decode_partial(lax.servers[server].blobs[digest], lax.params)
            known ^= np.frombuffer(partial.body, dtype=np.uint8)
    assert b"told in confidence" not in known.tobytes()
    lax.settle(CADENCE.round_deadline_ms / 1000 + 0.1)
    lax.settle(1.1)
    assert header.round in lax.aborted
    lax.start(VICTIM)
    for _ in range(4):
        lax.settle(1.0)
    custody = lax.servers[VICTIM].custody
    assert custody is not None
    members = Participants(client.index for client in clients)
    with pytest.raises(GuardError):  # its chains have stepped: it could not if it were made to
        custody.unblind(header, members, lax.params, lax._engine)


def test_the_same_envelopes_are_never_unblinded_for_another_set(lax: ServerCluster) -> None:
    """The differencing attack: end the round, then ask for the same bodies with one client less."""
    header, clients, _ = crash_before_giving(lax)
    lax.settle(CADENCE.round_deadline_ms / 1000 + 0.1)
    lax.settle(1.1)
    assert header.round in lax.aborted
    following = lax.opened[-1] if lax.opened[-1] != header else lax.open_round()
    replayed = lax.aggregate(header, clients[:2])  # old bodies, old header, a smaller set
    lax.offer(replayed)
    for _ in range(8):
        lax.settle(0.5)
    machine = lax.servers[0].machine
    assert machine is not None
    assert given_out(lax, following.round) == set()
    assert content_digest(replayed) not in {e[2] for e in lax.released}
    for server in (0, 1):
        custody = lax.servers[server].custody
        assert custody is not None
        with pytest.raises(GuardError):
            custody.unblind(
                header, Participants(c.index for c in clients[:2]), lax.params, lax._engine
            )


def test_where_no_absence_is_allowed_the_round_waits_and_says_for_whom(
    strict: ServerCluster,
) -> None:
    header, _, _ = crash_before_giving(strict)
    for _ in range(20):
        strict.settle(1.0)
    assert header.round not in strict.aborted
    machine = strict.servers[0].machine
    assert machine is not None
    assert machine.state.phase is Phase.REVEALED
    assert machine.waiting_for(strict.now) == (ServerIndex(VICTIM),)


def test_a_server_that_comes_back_with_its_disk_finishes_the_round(strict: ServerCluster) -> None:
    header, _, _ = crash_before_giving(strict)
    for _ in range(20):
        strict.settle(1.0)
    strict.start(VICTIM)
    for _ in range(8):
        strict.settle(0.5)
    assert header.round not in strict.aborted
    assert strict.servers[0].records[-1].round >= header.round


def test_a_server_that_is_merely_slow_keeps_its_round(lax: ServerCluster) -> None:
    header, _, _ = crash_before_giving(lax)
    victim = lax.servers[VICTIM]
    victim.alive = victim.frozen = True  # its links stay up, and it says nothing
    for _ in range(20):
        lax.settle(1.0)
    assert header.round not in lax.aborted
    victim.alive = victim.frozen = False
    lax.settle(1.1)
    assert header.round in lax.aborted


def test_a_server_that_comes_back_without_memory_says_itself_that_its_partial_is_lost(
    strict: ServerCluster,
) -> None:
    """Where nobody may be absent, only this ends the round: its keys are gone for good."""
    header, _, _ = crash_before_giving(strict)
    for _ in range(10):
        strict.settle(1.0)
    assert header.round not in strict.aborted
    victim = strict.servers[VICTIM]
    for path in victim.folder.iterdir():
        path.unlink()
    victim.kept.clear()
    strict.start(VICTIM)
    assert victim.machine is not None
    least = strict.params.min_participants
    forgot = ReleaseGuard(server=ServerIndex(VICTIM), min_participants=least, history=None)
    victim.machine._guard = forgot
    for _ in range(8):
        strict.settle(1.0)
    assert header.round in strict.aborted
    assert VICTIM not in given_out(strict, header.round)
    # It holds nobody's chain: all clients are retired, told so by a round, and register anew.
    registry = victim.machine.state.registry
    assert registry.active_count == 0
    again = [strict.register(f"c{i}", serial=2) for i in range(3)]
    following = strict.opened[-1]
    if following.registry_version < registry.version:
        for _ in range(10):
            strict.settle(0.5)
            following = strict.opened[-1]
            if following.registry_version == registry.version:
                break
    strict.offer(strict.aggregate(following, again))
    assert strict.servers[0].records[-1].round == following.round
    assert VICTIM in given_out(strict, following.round)

"""The committee goes on under the next version of its descriptor (decision 0007)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.committee_state import register
from tests.harness.servers import ServerCluster
from tests.harness.succession import successor_of
from zipnet.errors import RemoteProtocolError
from zipnet.machines.committee import CommitteeState, Phase
from zipnet.machines.committee_outcomes import Refused, RoundOpened
from zipnet.machines.committee_snapshot import decode_state, encode_state, state_digest
from zipnet.machines.leader import Leader, LeaderView
from zipnet.machines.offers import DescriptorAdopted, DescriptorOffered, parts_of
from zipnet.machines.server_effects import DescriptorGiven, RetireChain
from zipnet.protocol.command import (
    DESCRIPTOR_PART_BYTES,
    MAX_COMMAND_BYTES,
    AbortReason,
    AbortRound,
    AdoptDescriptor,
    OfferDescriptor,
    OpenRound,
    sign_command,
)
from zipnet.protocol.descriptor import sign_descriptor
from zipnet.protocol.header import RoundHeader, sign_header
from zipnet.protocol.ids import RoundNumber, ServerIndex
from zipnet.protocol.params import Cadence
from zipnet.protocol.succession import succeed
from zipnet.settings.descriptorfile import compose_successor

if TYPE_CHECKING:
    from pathlib import Path

    from zipnet.machines.committee_outcomes import Outcome
    from zipnet.protocol.command import Command
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.identity import Identity

COMMITTEE = HarnessCommittee()
FIRST = COMMITTEE.descriptor
NEWCOMER = make_identity("newcomer")
SECOND = successor_of(FIRST, 1, NEWCOMER, COMMITTEE.operator)


def put(
    state: CommitteeState, command: Command, author: int = 0, by: Identity | None = None
) -> Outcome:
    identity = by or COMMITTEE.identities[author]
    data = sign_command(command, ServerIndex(author), FIRST.group, identity)
    assert len(data) <= MAX_COMMAND_BYTES
    return state.apply(data)


def offer(state: CommitteeState, version: TrustedDescriptor = SECOND, author: int = 0) -> None:
    for part in parts_of(version):
        assert put(state, part, author) == DescriptorOffered(ServerIndex(author), part.position)


def adopting(version: TrustedDescriptor = SECOND) -> AdoptDescriptor:
    return AdoptDescriptor(version.version, version.descriptor.digest)


def again(state: CommitteeState) -> CommitteeState:
    restored = decode_state(encode_state(state), FIRST)
    assert state_digest(restored) == state_digest(state)
    return restored


def header(state: CommitteeState, version: int) -> RoundHeader:
    return RoundHeader(
        group=FIRST.group,
        round=RoundNumber(state.last_round + 1),
        descriptor_version=version,
        previous_final=state.last_final,
        previous_record=state.last_record,
        schedule=state.schedule,
        registry_version=state.registry.version,
        registry_digest=state.registry.digest,
        roster=tuple(ServerIndex(i) for i in range(3)),
        opener=ServerIndex(0),
        opened_at_ms=5,
    )


def opening(state: CommitteeState, version: int) -> OpenRound:
    return OpenRound(sign_header(header(state, version), COMMITTEE.identities[0]))


def test_a_version_takes_effect_once_it_is_whole_and_adopted() -> None:
    state = CommitteeState(FIRST)
    assert put(state, adopting()) == Refused("not_offered")
    offer(state)
    assert state.descriptor is FIRST
    outcome = put(state, adopting(), author=2)
    assert outcome == DescriptorAdopted(SECOND, ServerIndex(1), ())
    assert state.descriptor == SECOND
    # From here on commands are opened with the keys of the new version, headers name it.
    assert put(state, adopting(), author=1) == Refused("bad_signature")
    assert put(state, opening(state, 1)) == Refused("other_group")
    assert put(state, opening(state, 2), author=1, by=NEWCOMER) == Refused("not_the_opener")
    assert isinstance(put(state, opening(state, 2)), RoundOpened)


def test_between_rounds_only() -> None:
    state = CommitteeState(FIRST)
    put(state, opening(state, 1))
    offer(state)  # while a round runs is fine
    assert state.phase is Phase.OPEN
    assert put(state, adopting()) == Refused("out_of_place")
    assert state.descriptor is FIRST


def test_parts_come_in_order_and_lead_to_what_was_said() -> None:
    state = CommitteeState(FIRST)
    parts = parts_of(SECOND)
    assert len(parts) > 2
    assert put(state, parts[1]) == Refused("other_offer")
    put(state, parts[0])
    assert put(state, parts[2]) == Refused("out_of_order")
    assert put(state, parts[0]) == DescriptorOffered(ServerIndex(0), 0)  # from the beginning
    assert put(state, parts[1], author=2) == Refused("other_offer")  # each for itself
    assert put(state, replace(parts[1], count=len(parts) + 1)) == Refused("other_offer")
    assert put(state, replace(parts[1], count=200)) == Refused("bad_offer")


def test_what_the_operator_did_not_sign_is_not_offered_in_full() -> None:
    state = CommitteeState(FIRST)
    before = encode_state(state)
    parts = parts_of(SECOND)
    for part in parts[:-1]:
        put(state, part)
    damaged = bytes([parts[-1].part[0] ^ 1]) + parts[-1].part[1:]
    assert put(state, replace(parts[-1], part=damaged)) == Refused("bad_offer")
    assert encode_state(state) == before
    lying = [replace(part, descriptor=FIRST.descriptor.digest) for part in parts]
    outcomes = [put(state, part) for part in lying]
    assert outcomes[-1] == Refused("bad_offer")
    assert state.offers.whole() is None


def test_everybody_is_retired_where_a_server_is_replaced_and_nobody_else() -> None:
    for replaces in (True, False):
        state = CommitteeState(FIRST)
        put(state, register(0))
        put(state, register(1))
        later = datetime(2099, 1, 1, tzinfo=UTC)
        text = compose_successor(FIRST.descriptor, not_after=later)
        same = succeed(FIRST, sign_descriptor(text, COMMITTEE.operator))
        version = SECOND if replaces else same
        offer(state, version)
        outcome = put(state, adopting(version))
        assert isinstance(outcome, DescriptorAdopted)
        assert len(outcome.retired) == (2 if replaces else 0)
        assert state.registry.active_count == (0 if replaces else 2)
        # Whoever was retired registers anew, under a later serial.
        assert put(state, register(0)) == Refused("stale_registration")


def test_a_snapshot_carries_the_versions_and_what_is_offered() -> None:
    state = CommitteeState(FIRST)
    put(state, parts_of(SECOND)[0])
    put(state, parts_of(SECOND)[0], author=2)
    state = again(state)
    for part in parts_of(SECOND)[1:]:
        put(state, part)
    state = again(state)
    assert state.offers.whole() == SECOND
    put(state, adopting())
    state = again(state)
    assert state.descriptor == SECOND
    third = successor_of(SECOND, 0, make_identity("third"), COMMITTEE.operator)
    for part in parts_of(third):
        put(state, part, author=2)
    put(state, adopting(third), author=2)
    assert again(state).descriptor == third


def test_a_snapshot_with_a_version_nobody_signed_is_refused() -> None:
    state = CommitteeState(FIRST)
    offer(state)
    put(state, adopting())
    data = encode_state(state)
    other = HarnessCommittee(seed=2)
    with pytest.raises(RemoteProtocolError):
        decode_state(data, other.descriptor)
    at = data.index(b'endpoint = "127')
    with pytest.raises(RemoteProtocolError):
        decode_state(data[:at] + data[at:].replace(b"127", b"128", 1), FIRST)


def test_a_part_has_its_bound() -> None:
    big = OfferDescriptor(SECOND.descriptor.digest, 0, 1, bytes(DESCRIPTOR_PART_BYTES + 1))
    assert put_raw(big) == Refused("malformed")


def put_raw(command: Command) -> Outcome:
    state = CommitteeState(FIRST)
    data = sign_command(command, ServerIndex(0), FIRST.group, COMMITTEE.identities[0])
    return state.apply(data)


def test_machines_offer_what_they_are_given_adopt_it_and_open_no_round_before(
    tmp_path: Path,
) -> None:
    cluster = ServerCluster(tmp_path)
    try:
        cluster.register("a")
        cluster.register("b")
        cluster.settle(1.1)
        opened = len(cluster.opened)
        operator = cluster.committee.operator
        version = successor_of(cluster.descriptor, 1, NEWCOMER, operator)
        # The replaced server is gone; one that does not lead is given the next version.
        cluster.kill(1)
        server = cluster.servers[2]
        cluster.post(server, DescriptorGiven(version))
        cluster.settle(0.1)
        for _ in range(6):  # the round under way is given up first
            cluster.settle(1.1)
        assert len(cluster.opened) == opened, "no round without the newcomer"
        adopted = {int(index): item for index, item in cluster.adopted}
        assert adopted == {0: version, 2: version}
        retired = {e.index for _, e in cluster.performed if isinstance(e, RetireChain)}
        assert retired, "clients have no ciphertext for the newcomer"
    finally:
        cluster.close()


def test_a_server_that_is_sent_a_snapshot_goes_by_the_version_in_it(tmp_path: Path) -> None:
    cluster = ServerCluster(tmp_path)
    try:
        cluster.register("a")
        version = successor_of(cluster.descriptor, 1, NEWCOMER, cluster.committee.operator)
        cluster.kill(2)
        cluster.post(cluster.servers[0], DescriptorGiven(version))
        for _ in range(6):
            cluster.settle(1.1)
        assert {int(index) for index, _ in cluster.adopted} == {0, 1}
        cluster.start(2)
        cluster.restore(2)
        cluster.settle(0.1)
        assert (ServerIndex(2), version) in cluster.adopted
        machine = cluster.servers[2].machine
        assert machine is not None
        assert machine.state.descriptor == version
    finally:
        cluster.close()


def test_after_everybody_was_retired_the_next_round_waits_for_them_to_return() -> None:
    state = CommitteeState(FIRST)
    for client in range(3):
        put(state, register(client))
    put(state, opening(state, 1))
    put(state, AbortRound(state.last_round, AbortReason.NO_AGGREGATE, ()))
    offer(state)
    put(state, adopting())
    cadence = Cadence(round_period_ms=100, fold_deadline_ms=400, round_deadline_ms=5000)
    leader = Leader(ServerIndex(0), cadence, 2)
    everybody = frozenset({ServerIndex(1), ServerIndex(2)})
    view = LeaderView(10.0, 5, 9.0, everybody, {}, returning=3, returning_since=9.0)
    # They hear of the version as it is adopted.
    assert leader.decide(state, view) is None
    # Where nobody is back in time, a round tells them.
    telling = leader.decide(state, replace(view, now=14.1))
    assert isinstance(telling, RoundHeader)
    assert telling.descriptor_version == 2
    put(state, OpenRound(sign_header(telling, COMMITTEE.identities[0])))
    put(state, AbortRound(state.last_round, AbortReason.NO_AGGREGATE, ()))
    for client in range(2):
        put(state, register(client, serial=9))
    assert leader.decide(state, view) is None
    assert isinstance(leader.decide(state, replace(view, now=14.1)), RoundHeader)
    put(state, register(2, serial=9))
    assert isinstance(leader.decide(state, view), RoundHeader)

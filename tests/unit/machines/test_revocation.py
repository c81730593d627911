"""What the log revokes is out for good, on every server alike (row Z26)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee_state import (
    CLIENTS,
    LAX,
    apply,
    bring,
    header_for,
    opening,
    register,
    signed,
    signing,
    state_of,
)
from zipnet.errors import RemoteProtocolError
from zipnet.machines.committee import CommitteeState, Phase
from zipnet.machines.committee_outcomes import (
    ClientRegistered,
    PrincipalRevoked,
    Refused,
    RoundOpened,
)
from zipnet.machines.committee_snapshot import decode_state, encode_state
from zipnet.machines.leader import Leader, LeaderView
from zipnet.protocol.command import Revoke, SealRecord
from zipnet.protocol.header import RoundHeader
from zipnet.protocol.ids import RegistryIndex, RoundNumber, ServerIndex
from zipnet.protocol.params import Cadence
from zipnet.protocol.revocation import RevokedKind, sign_revocation

if TYPE_CHECKING:
    from tests.harness.committee import HarnessCommittee

TOKEN = hashlib.sha256(b"token").digest()
AT = 1_800_000_000_000


def revoking(
    target: bytes, kind: RevokedKind = RevokedKind.PEER, committee: HarnessCommittee = LAX
) -> Revoke:
    group = committee.descriptor.group
    return Revoke(sign_revocation(group, kind, target, AT, committee.operator))


def server_peer(server: int) -> bytes:
    return LAX.descriptor.committee[server].peer_id


@pytest.mark.requirement("Z26")
@pytest.mark.parametrize("phase", Phase)
def test_a_revoked_client_is_retired_in_any_phase_and_never_registered_again(phase: Phase) -> None:
    state = bring(phase)
    first = apply(state, register(2))
    assert isinstance(first, ClientRegistered)
    outcome = apply(state, revoking(CLIENTS[2].peer_id))
    assert isinstance(outcome, PrincipalRevoked)
    assert outcome.index == first.change.index
    assert not state.registry.is_active(first.change.index)
    assert apply(state, register(2, serial=9)) == Refused("revoked")
    assert apply(state, revoking(CLIENTS[2].peer_id)) == Refused("known_revocation")


@pytest.mark.requirement("Z26")
def test_whom_the_operator_does_not_name_nobody_revokes() -> None:
    state = state_of()
    before = encode_state(state)
    stranger = LAX.identities[0]
    forged = sign_revocation(LAX.descriptor.group, RevokedKind.PEER, TOKEN, AT, stranger)
    assert apply(state, Revoke(forged)) == Refused("bad_revocation")
    assert apply(state, Revoke(b"")) == Refused("bad_revocation")
    assert encode_state(state) == before


@pytest.mark.requirement("Z26")
def test_a_revoked_servers_commands_change_nothing_and_no_roster_has_it() -> None:
    state = state_of()
    apply(state, register(0))
    assert isinstance(apply(state, revoking(server_peer(2))), PrincipalRevoked)
    assert apply(state, register(1), author=2) == Refused("revoked")
    whole = header_for(state)
    assert apply(state, opening(whole)) == Refused("roster_not_allowed")
    rest = header_for(state, roster=(ServerIndex(0), ServerIndex(1)))
    assert isinstance(apply(state, opening(rest)), RoundOpened)


@pytest.mark.requirement("Z26")
def test_a_record_waits_for_no_signature_of_a_revoked_server() -> None:
    state = bring(Phase.REVEALED)
    number = state.last_round
    assert set(state.signatures) == {0, 1}
    apply(state, revoking(server_peer(2)))
    assert apply(state, signing(number, 2), 2) == Refused("revoked")
    assert not isinstance(apply(state, SealRecord(number)), Refused)
    assert state.phase is Phase.IDLE


@pytest.mark.requirement("Z26")
def test_a_leader_opens_the_next_round_without_a_server_that_was_revoked() -> None:
    state = bring(Phase.IDLE)
    for client in range(2):
        apply(state, register(client, serial=50))
    cadence = Cadence(round_period_ms=1000, fold_deadline_ms=400, round_deadline_ms=900)
    leader = Leader(ServerIndex(0), cadence, 1)
    view = LeaderView(
        now=1e6,
        wall_ms=AT,
        last_open=0.0,
        connected=frozenset({ServerIndex(1), ServerIndex(2)}),
        aggregates={},
    )
    whole = leader.decide(state, view)
    assert isinstance(whole, RoundHeader)
    assert whole.roster == (0, 1, 2)
    apply(state, revoking(server_peer(2)))
    rest = leader.decide(state, view)
    assert isinstance(rest, RoundHeader)
    assert rest.roster == (0, 1)


@pytest.mark.requirement("Z26")
@pytest.mark.parametrize("phase", Phase)
def test_a_snapshot_keeps_what_was_revoked(phase: Phase) -> None:
    state = bring(phase)
    plain = encode_state(state)
    assert plain[0] == 1
    apply(state, revoking(server_peer(1)))
    apply(state, revoking(TOKEN, RevokedKind.TOKEN))
    data = encode_state(state)
    assert data[0] == 2
    restored = decode_state(data, LAX.descriptor)
    assert restored.revoked == state.revoked
    assert restored.is_revoked_server(ServerIndex(1))
    assert encode_state(restored) == data
    assert not decode_state(plain, LAX.descriptor).revoked


def tampered(data: bytes, state: CommitteeState) -> list[bytes]:
    statement = next(iter(state.revoked.values()))
    forged = sign_revocation(LAX.descriptor.group, RevokedKind.TOKEN, TOKEN, AT, LAX.identities[0])
    tail = (1).to_bytes(4, "big") + len(statement).to_bytes(2, "big") + statement
    assert data.endswith(tail)
    start = data[: -len(tail)]
    return [
        start + (1).to_bytes(4, "big") + len(forged).to_bytes(2, "big") + forged,
        start + (2).to_bytes(4, "big") + tail[4:] * 2,
        start + bytes(4),
        b"\1" + data[1:],
        b"\3" + data[1:],
        start,
    ]


@pytest.mark.requirement("Z26")
def test_a_snapshot_with_a_forged_or_doubled_revocation_is_refused() -> None:
    state = state_of()
    apply(state, revoking(TOKEN, RevokedKind.TOKEN))
    data = encode_state(state)
    for changed in tampered(data, state):
        with pytest.raises(RemoteProtocolError):
            decode_state(changed, LAX.descriptor)


def test_a_revoked_token_changes_the_registry_not_at_all() -> None:
    state = state_of()
    apply(state, register(0))
    version = state.registry.version
    outcome = state.apply(signed(revoking(TOKEN, RevokedKind.TOKEN)))
    assert isinstance(outcome, PrincipalRevoked)
    assert outcome.index is None
    assert state.registry.version == version
    assert state.registry.is_active(RegistryIndex(0))
    assert state.last_round == RoundNumber(0)

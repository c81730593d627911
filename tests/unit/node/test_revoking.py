"""A server cuts off, keeps and passes on what is revoked, whoever leads (row Z26)."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.succession import renewed
from zipnet.access.terms import NO_TERMS
from zipnet.errors import AdmissionError, ConsensusError, StorageError
from zipnet.machines.committee import CommitteeState
from zipnet.machines.committee_outcomes import PrincipalRevoked
from zipnet.machines.committee_snapshot import encode_state
from zipnet.machines.guard import ReleaseGuard
from zipnet.machines.server import ServerMachine
from zipnet.machines.server_effects import EnforceRevocation, Instant, Restored
from zipnet.node.capabilities import SessionCapabilities
from zipnet.node.revocations import NodeRevocations
from zipnet.node.server_revoking import ServerRevoking
from zipnet.protocol.command import Revoke, sign_command
from zipnet.protocol.ids import PeerId, ServerIndex
from zipnet.protocol.params import Cadence
from zipnet.protocol.revocation import RevokedKind, sign_revocation
from zipnet.protocol.succession import hand_over, succeed
from zipnet.settings.descriptorfile import compose_successor
from zipnet.storage.journal import FileJournal
from zipnet.wire.messages import Kind

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from zipnet.node.server_parts import ServerParts
    from zipnet.protocol.command import Command

COMMITTEE = HarnessCommittee(max_absent=1)
GROUP = COMMITTEE.descriptor.group
IDENTITY = bytes(32)
NOW_MS = 1_800_000_000_000
TARGET = COMMITTEE.descriptor.committee[2].peer_id


def statement(at_ms: int = NOW_MS, target: bytes = TARGET) -> bytes:
    return sign_revocation(GROUP, RevokedKind.PEER, target, at_ms, COMMITTEE.operator)


class World:
    """One server's revoking, with a log that takes nothing until it is told to."""

    def __init__(self, folder: Path) -> None:
        self.state = CommitteeState(COMMITTEE.descriptor)
        self.journal = FileJournal(folder / "revocations.journal", identity=IDENTITY)
        self.revocations = NodeRevocations(COMMITTEE.descriptor, self.journal)
        self.pushed: list[Kind] = []
        self.offered: list[bytes] = []
        self.offered_twice = asyncio.Event()
        self.leader_is_honest = False
        self.revoking = ServerRevoking(self._parts(), self._propose, self._begin, lambda: 1.8e9)

    def _parts(self) -> ServerParts:
        capabilities = SessionCapabilities(NO_TERMS, GROUP, self.revocations.book, lambda: 1.8e9)
        parts = SimpleNamespace(
            machine=SimpleNamespace(state=self.state),
            identity=COMMITTEE.identities[0],
            revocations=self.revocations,
            capabilities=capabilities,
            consensus=SimpleNamespace(caught_up=lambda: True),
            mesh=SimpleNamespace(push_all=lambda kind, _message: self.pushed.append(kind)),
        )
        return cast("ServerParts", parts)

    async def _propose(self, command: Command) -> None:
        assert isinstance(command, Revoke)
        self.offered.append(command.statement)
        if len(self.offered) > 1:
            self.offered_twice.set()
        if not self.leader_is_honest:
            raise ConsensusError("the leader sits on it")
        identity = COMMITTEE.identities[0]
        outcome = self.state.apply(sign_command(command, ServerIndex(0), GROUP, identity))
        assert isinstance(outcome, PrincipalRevoked)
        await self.revoking.on_log(EnforceRevocation(outcome.revocation, outcome.statement))

    async def _begin(self, work: Coroutine[object, object, None]) -> None:
        await work


@pytest.mark.requirement("Z26")
async def test_a_leader_that_sits_on_its_own_revocation_is_cut_off_all_the_same(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    running = asyncio.create_task(world.revoking.run())
    try:
        found = await world.revoking.take(statement())
        # Cut off, kept and passed on, with nothing in the log.
        assert world.revocations.book.has_peer(TARGET)
        assert list(world.journal.entries()) == [statement()]
        assert world.pushed == [Kind.REVOKED]
        assert not world.state.revoked
        async with asyncio.timeout(30):
            await world.offered_twice.wait()
            world.leader_is_honest = True
            await world.revoking.wait_logged(found)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert world.state.is_revoked_server(ServerIndex(2))
    # Told again, by anybody, it is passed on no further.
    await world.revoking.take(statement())
    assert world.pushed == [Kind.REVOKED]


@pytest.mark.requirement("Z26")
async def test_a_statement_nobody_entitled_signed_or_that_is_old_cuts_nobody_off(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    stranger = make_identity("stranger")
    forged = sign_revocation(GROUP, RevokedKind.PEER, TARGET, NOW_MS, stranger)
    for data, code in (
        (forged, "bad_revocation"),
        (b"", "bad_revocation"),
        (statement(NOW_MS - 25 * 3600 * 1000), "revocation_stale"),
        (statement(NOW_MS + 3600 * 1000), "revocation_stale"),
    ):
        with pytest.raises(AdmissionError) as caught:
            await world.revoking.take(data)
        assert caught.value.code == code
    assert not world.revocations.book.statements
    assert world.pushed == []
    assert not list(world.journal.entries())


@pytest.mark.requirement("Z26")
async def test_a_restarted_server_knows_before_it_listens_and_believes_no_forged_journal(
    tmp_path: Path,
) -> None:
    path = tmp_path / "revocations.journal"
    world = World(tmp_path)
    await world.revoking.take(statement())
    world.journal.close()
    again = FileJournal(path, identity=IDENTITY)
    restarted = NodeRevocations(COMMITTEE.descriptor, again)
    assert restarted.book.has_peer(TARGET)
    stranger = make_identity("stranger")
    again.append(sign_revocation(GROUP, RevokedKind.PEER, bytes(32), NOW_MS, stranger))
    again.close()
    with pytest.raises(StorageError, match="does not verify"):
        NodeRevocations(COMMITTEE.descriptor, FileJournal(path, identity=IDENTITY))


@pytest.mark.requirement("Z26")
def test_a_snapshot_in_place_of_the_log_is_enforced_too() -> None:
    state = CommitteeState(COMMITTEE.descriptor)
    command = sign_command(Revoke(statement()), ServerIndex(0), GROUP, COMMITTEE.identities[0])
    assert isinstance(state.apply(command), PrincipalRevoked)
    machine = ServerMachine(
        server=ServerIndex(1),
        descriptor=COMMITTEE.descriptor,
        guard=ReleaseGuard(server=ServerIndex(1), min_participants=2, history=()),
        cadence=Cadence(round_period_ms=1000, fold_deadline_ms=400, round_deadline_ms=900),
        min_participants=2,
        next_sequence=0,
    )
    effects = machine.step(Restored(1, encode_state(state)), Instant(0.0, NOW_MS))
    told = [effect for effect in effects if isinstance(effect, EnforceRevocation)]
    assert [effect.statement for effect in told] == [statement()]
    again = machine.step(Restored(2, encode_state(state)), Instant(1.0, NOW_MS))
    assert not [effect for effect in again if isinstance(effect, EnforceRevocation)]


@pytest.mark.requirement("Z26")
async def test_a_statement_the_log_takes_no_more_does_not_stand_in_the_way_of_the_next(
    tmp_path: Path,
) -> None:
    first, successor = COMMITTEE.descriptor, make_identity("operator-2")
    text = compose_successor(first.descriptor, operator=successor.public)
    second = succeed(first, hand_over(text, COMMITTEE.operator, successor))
    third = renewed(second, successor)
    world = World(tmp_path)
    world.leader_is_honest = True
    # The key before was good when the statement came; the version after that was faster in the log.
    world.revocations.use_descriptor(second)
    await world.revoking.take(statement(target=bytes([7]) * 32))
    world.revocations.use_descriptor(third)
    world.state.descriptor = third
    running = asyncio.create_task(world.revoking.run())
    try:
        newer = sign_revocation(GROUP, RevokedKind.PEER, TARGET, NOW_MS, successor)
        found = await world.revoking.take(newer)
        async with asyncio.timeout(10):
            await world.revoking.wait_logged(found)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, AssertionError):
            await running
    assert world.offered == [newer]
    assert world.revocations.book.has_peer(PeerId(bytes([7]) * 32)), "here it stays cut off"

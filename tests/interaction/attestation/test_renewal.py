"""Bonds live as long as their evidence: renewed in time, dropped when it lapses or is refused."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tdx.emulator.documents import make_bundle
from tdx.emulator.quotes import TdFields
from tests.harness.attested import (
    COMMITTEE,
    PATIENCE_S,
    Clock,
    Host,
    Machine,
    attestor_of,
    authority,
    enter,
    group_terms,
    image,
    listening,
)
from tests.harness.committee import make_identity
from tests.harness.fake_server import new_metrics
from zipnet.admission import EvidenceView, kem_key_view
from zipnet.errors import AdmissionError, RemoteProtocolError
from zipnet.machines.registry import RegistryView
from zipnet.node.client_evidence import ClientEvidenceKeeper
from zipnet.protocol.ids import Digest, PeerId, RegistryIndex, RoundNumber, ServerIndex
from zipnet.protocol.registration import RegistryChange
from zipnet.sdk.attestation import ClientAttestation
from zipnet.transport.session import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.harness.attested import Listening
    from zipnet.attestation import PlatformAttestor
    from zipnet.transport.session import Session
    from zipnet.wire.frames import Frame

LIFETIME_S = 3
SECOND = COMMITTEE.identities[1]
SERVER_IMAGE, CLIENT_IMAGE = image("committee"), image("client")


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def machine(mrtd: bytes) -> Machine:
    return Machine(TdFields(mrtd=mrtd))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.02)


async def _nothing(_frame: Frame) -> Frame | None:
    return None


@asynccontextmanager
async def served(at: Listening, own: PlatformAttestor, role: Role) -> AsyncIterator[Session]:
    identity = SECOND if role is Role.SERVER else make_identity("anna")
    session = await enter(at, identity, role, own)
    serving = asyncio.create_task(session.serve(_nothing))
    try:
        yield session
    finally:
        await session.close()
        await serving


@pytest.mark.parametrize(
    ("role", "runs"),
    [(Role.SERVER, SERVER_IMAGE), (Role.CLIENT, CLIENT_IMAGE)],
    ids=["challenge", "ticket"],
)
async def test_a_bond_outlives_the_evidence_it_began_with(
    host: Host, role: Role, runs: bytes
) -> None:
    terms = group_terms(lifetime_s=LIFETIME_S)
    ours, theirs = machine(SERVER_IMAGE), machine(runs)
    async with (
        listening(attestor_of(host, terms, ours)) as at,
        served(at, attestor_of(host, terms, theirs), role) as session,
    ):
        first = session.peer.evidence
        assert first is not None
        made = theirs.quotes
        await until(lambda: theirs.quotes >= made + 2)
        assert attestor_of(host, terms, None).now() > first.not_before + LIFETIME_S
        assert session.ended_by is None
        assert await session.alive(5.0)


async def test_a_bond_drops_when_evidence_lapses_and_both_sides_know_why(host: Host) -> None:
    terms = group_terms(lifetime_s=LIFETIME_S)
    theirs = machine(SERVER_IMAGE)
    async with (
        listening(attestor_of(host, terms, machine(SERVER_IMAGE))) as at,
        served(at, attestor_of(host, terms, theirs), Role.SERVER) as session,
    ):
        (accepted,) = at.node.sessions(Role.SERVER)
        theirs.broken = True
        await until(lambda: session.ended_by is not None and accepted.ended_by is not None)
        dropped = accepted.ended_by
        assert isinstance(dropped, AdmissionError)
        assert dropped.code == "evidence_lapsed"
        assert "evidence_lapsed" in str(session.ended_by)
        await at.until_rejected("evidence_lapsed")


async def test_a_bond_drops_at_once_when_the_operators_policy_turns_against_it(
    host: Host, tmp_path: Path
) -> None:
    terms = group_terms()
    policy = tmp_path / "policy.toml"
    policy.write_text("")
    judge = attestor_of(host, terms, machine(SERVER_IMAGE), policy=policy)
    async with (
        listening(judge) as at,
        served(at, attestor_of(host, terms, machine(SERVER_IMAGE)), Role.SERVER) as session,
    ):
        looking = asyncio.create_task(judge.run())
        try:
            (accepted,) = at.node.sessions(Role.SERVER)
            assert await session.alive(5.0)
            policy.write_text(f'[require]\nmrtd = ["{image("newer").hex()}"]\n')
            await until(lambda: accepted.ended_by is not None)
            dropped = accepted.ended_by
            assert isinstance(dropped, AdmissionError)
            assert dropped.code == "tdx_mrtd"
            await at.until_rejected("tdx_mrtd")
        finally:
            looking.cancel()


async def test_a_policy_file_that_does_not_parse_changes_nothing(
    host: Host, tmp_path: Path
) -> None:
    terms = group_terms()
    policy = tmp_path / "policy.toml"
    policy.write_text("")
    judge = attestor_of(host, terms, machine(SERVER_IMAGE), policy=policy)
    async with (
        listening(judge) as at,
        served(at, attestor_of(host, terms, machine(SERVER_IMAGE)), Role.SERVER) as session,
    ):
        policy.write_text("not TOML at all [")
        judge._reload(policy, judge._load_policy)
        assert await session.alive(5.0)


async def test_evidence_is_not_asked_of_who_owes_none(host: Host) -> None:
    """A question for evidence on a link that has nothing to do with it ends the link."""
    from zipnet.transport.bond import Bond
    from zipnet.wire.handshake import Attest, encode_handshake

    attestor = attestor_of(host, group_terms(), machine(SERVER_IMAGE))
    bond = Bond(attestor, os.urandom, None, None, None)
    with pytest.raises(RemoteProtocolError):
        await bond.answer(encode_handshake(Attest(nonce=None)))


async def test_a_server_is_asked_with_a_nonce_and_a_client_without(host: Host) -> None:
    from zipnet.transport.bond import Bond
    from zipnet.wire.handshake import Attest, encode_handshake

    attestor = attestor_of(host, group_terms(), machine(CLIENT_IMAGE))
    anna = make_identity("anna")
    view = EvidenceView(COMMITTEE.descriptor.group, Role.CLIENT, anna.public)
    bond = Bond(attestor, os.urandom, view, None, None)
    with pytest.raises(RemoteProtocolError):
        await bond.answer(encode_handshake(Attest(nonce=bytes(32))))
    assert await bond.answer(encode_handshake(Attest(nonce=None)))


async def test_one_question_for_evidence_is_answered_at_a_time(host: Host) -> None:
    from zipnet.transport.bond import Bond
    from zipnet.wire.handshake import Attest, encode_handshake

    attestor = attestor_of(host, group_terms(), machine(CLIENT_IMAGE))
    view = EvidenceView(COMMITTEE.descriptor.group, Role.CLIENT, make_identity("anna").public)
    bond = Bond(attestor, os.urandom, view, None, None)
    question = encode_handshake(Attest(nonce=None))
    answers = await asyncio.gather(
        *(bond.answer(question) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(answer, bytes) for answer in answers) == 1
    refused = [answer for answer in answers if isinstance(answer, AdmissionError)]
    assert {error.code for error in refused} == {"overloaded"}
    assert await bond.answer(question)


async def test_tickets_are_kept_and_challenges_are_not(host: Host) -> None:
    clock = Clock()
    quoting = machine(CLIENT_IMAGE)
    attestor = attestor_of(host, group_terms(), quoting, wall=clock)
    view = EvidenceView(COMMITTEE.descriptor.group, Role.CLIENT, make_identity("anna").public)
    first = await attestor.show(view)
    assert await attestor.show(view) == first
    assert quoting.quotes == 1
    clock.offset_s = 401
    assert await attestor.show(view) != first
    assert quoting.quotes == 2


async def test_a_peer_may_not_go_back_to_older_collateral_than_it_has_shown(host: Host) -> None:
    """Others may be a step behind: what one peer has shown says nothing about them."""
    recipe = authority().recipe()
    newer = make_bundle(
        replace(
            recipe,
            tcb_info={**recipe.tcb_info, "tcbEvaluationDataNumber": 40},
            qe_identity={**recipe.qe_identity, "tcbEvaluationDataNumber": 40},
        )
    ).to_json()
    judge = attestor_of(host, group_terms(), machine(SERVER_IMAGE))
    group, first, second = COMMITTEE.descriptor.group, *COMMITTEE.identities[:2]
    one = EvidenceView(group, Role.SERVER, first.public)
    two = EvidenceView(group, Role.SERVER, second.public)
    today = attestor_of(host, group_terms(), machine(SERVER_IMAGE))
    ahead = attestor_of(
        host, group_terms(), machine(SERVER_IMAGE), collateral=host.collateral(newer)
    )
    judge.judge(await today.show(one), one)
    judge.judge(await ahead.show(one), one)
    with pytest.raises(AdmissionError) as back:
        judge.judge(await today.show(one), one)
    assert back.value.code == "tdx_rollback"
    judge.judge(await today.show(two), two)


# --- clients in the registry -------------------------------------------------------------------


def registry_of(*peers: PeerId) -> RegistryView:
    registry = RegistryView()
    registry.apply(
        [
            RegistryChange(RegistryIndex(i), (peer, bytes(32)), Digest(bytes(32)), RoundNumber(1))
            for i, peer in enumerate(peers)
        ]
    )
    return registry


async def test_a_client_whose_evidence_lapses_is_named_once_its_time_is_over(host: Host) -> None:
    clock = Clock()
    anna = make_identity("anna")
    judge = attestor_of(host, group_terms(), machine(SERVER_IMAGE), wall=clock)
    keeper = ClientEvidenceKeeper(judge, COMMITTEE.descriptor.group, new_metrics())
    own = attestor_of(host, group_terms(), machine(CLIENT_IMAGE), wall=clock)
    view = EvidenceView(COMMITTEE.descriptor.group, Role.CLIENT, anna.public)
    assert keeper.admits(anna.public, await own.show(view))
    registry = registry_of(anna.peer_id)
    clock.offset_s = 590
    assert keeper.lapsed(registry) == []
    keeper.judge(anna.public, await own.show(view))  # it called again in time
    clock.offset_s = 700
    assert keeper.lapsed(registry) == []
    clock.offset_s = 1200
    assert keeper.lapsed(registry) == [0]


async def test_a_restarted_server_leaves_clients_alone_for_one_lifetime(host: Host) -> None:
    clock = Clock()
    judge = attestor_of(host, group_terms(), machine(SERVER_IMAGE), wall=clock)
    keeper = ClientEvidenceKeeper(judge, COMMITTEE.descriptor.group, new_metrics())
    registry = registry_of(make_identity("anna").peer_id)
    excused = [keeper.excuses_absence]
    clock.offset_s = 595
    assert keeper.lapsed(registry) == []
    clock.offset_s = 605
    excused.append(keeper.excuses_absence)
    assert excused == [True, False]
    assert keeper.lapsed(registry) == [0]


async def test_a_registration_is_judged_here_whoever_vouched_for_it(host: Host) -> None:
    anna = make_identity("anna")
    metrics = new_metrics()
    judge = attestor_of(host, group_terms(), machine(SERVER_IMAGE))
    keeper = ClientEvidenceKeeper(judge, COMMITTEE.descriptor.group, metrics)
    view = EvidenceView(COMMITTEE.descriptor.group, Role.CLIENT, anna.public)
    forged = attestor_of(host, group_terms(), machine(image("forged")))
    assert not keeper.admits(anna.public, await forged.show(view))
    assert not keeper.admits(anna.public, b"nonsense")
    honest = attestor_of(host, group_terms(), machine(CLIENT_IMAGE))
    assert not keeper.admits(make_identity("mallory").public, await honest.show(view))
    assert keeper.admits(anna.public, await honest.show(view))


# --- the committee's keys ----------------------------------------------------------------------


async def test_a_publisher_takes_only_keys_that_judged_platforms_vouch_for(host: Host) -> None:
    descriptor, anna = COMMITTEE.descriptor, make_identity("anna")
    announcements = COMMITTEE.announcements()
    honest = attestor_of(host, group_terms(), machine(SERVER_IMAGE))
    views = [
        kem_key_view(descriptor.group, identity, announcement)
        for identity, announcement in zip(descriptor.committee, announcements, strict=True)
    ]
    evidence = [await honest.show(view) for view in views]
    own = attestor_of(host, group_terms(), machine(CLIENT_IMAGE))
    publisher = ClientAttestation(descriptor, own, anna, os.urandom(16))
    publisher.require_vouched(announcements, evidence)

    with pytest.raises(RemoteProtocolError):
        publisher.require_vouched(announcements, evidence[:-1])
    with pytest.raises(AdmissionError) as swapped:
        publisher.require_vouched(announcements, [evidence[1], *evidence[1:]])
    assert swapped.value.code == "evidence_relayed"
    with pytest.raises(AdmissionError) as other_key:  # the platform vouched for another key
        publisher.require_vouched([announcements[0] + b"\0", *announcements[1:]], evidence)
    assert other_key.value.code == "evidence_unbound"
    forged = attestor_of(host, group_terms(), machine(image("forged")))
    with pytest.raises(AdmissionError) as wrong:
        publisher.require_vouched(
            announcements, [*evidence[:-1], await forged.show(views[ServerIndex(-1)])]
        )
    assert wrong.value.code == "tdx_mrtd"

"""The committee's replicated state: one table of what may happen when, and nothing beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.harness.committee_state import (
    AGGREGATE,
    FORK,
    LAX,
    OTHER,
    RECORD,
    STRICT,
    apply,
    bring,
    choosing,
    header_for,
    opening,
    posting,
    record_signature,
    refused,
    register,
    revealed,
    signed,
    signing,
    snapshot,
    state_of,
)
from zipnet.machines.committee import Phase
from zipnet.machines.committee_outcomes import (
    ClientRegistered,
    ClientRetired,
    KemAnnounced,
    PartialPosted,
    Refused,
    RoundAborted,
    RoundChosen,
    RoundOpened,
    RoundSealed,
    SignaturePosted,
)
from zipnet.protocol.command import (
    AbortReason,
    AbortRound,
    AnnounceKem,
    Command,
    PostPartial,
    RetireClient,
    SealRecord,
    sign_command,
)
from zipnet.protocol.ids import Digest, GroupId, RegistryIndex, RoundNumber, ServerIndex

# What is applied in every phase, and where it has an effect; written down apart from the code.
COMMANDS: dict[str, Command] = {
    "announce": AnnounceKem(3, AGGREGATE),
    "register": register(1),
    "retire": RetireClient(RegistryIndex(0)),
    "open": opening(header_for(bring(Phase.IDLE))),
    "choose": choosing(1),
    "post": posting(1),
    "sign": signing(1, 2),
    "seal": SealRecord(RoundNumber(1)),
    "abort": AbortRound(RoundNumber(1), AbortReason.NO_AGGREGATE, ()),
}
ALWAYS = {"announce": KemAnnounced, "register": ClientRegistered, "retire": ClientRetired}
TABLE: dict[Phase, dict[str, type]] = {
    Phase.IDLE: {**ALWAYS, "open": RoundOpened},
    Phase.OPEN: {**ALWAYS, "choose": RoundChosen, "abort": RoundAborted},
    Phase.CHOSEN: {**ALWAYS, "post": PartialPosted, "abort": RoundAborted},
    Phase.REVEALED: {**ALWAYS, "sign": RoundSealed, "seal": RoundSealed},
}


@pytest.mark.spec("6")
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("phase", Phase)
def test_a_command_has_its_phase_and_changes_nothing_outside_it(phase: Phase, name: str) -> None:
    state = bring(phase)
    before = snapshot(state)
    author = 2 if name == "sign" else 0
    outcome = apply(state, COMMANDS[name], author)
    expected = TABLE[phase].get(name)
    if expected is None:
        assert outcome == Refused("out_of_place")
        assert snapshot(state) == before
    else:
        assert isinstance(outcome, expected)
        assert snapshot(state) != before


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("phase", Phase)
def test_a_command_applied_twice_changes_nothing_the_second_time(phase: Phase, name: str) -> None:
    state = bring(phase)
    author = 2 if name == "sign" else 0
    apply(state, COMMANDS[name], author)
    before = snapshot(state)
    assert isinstance(apply(state, COMMANDS[name], author), Refused)
    assert snapshot(state) == before


def test_what_is_malformed_or_not_signed_by_its_author_changes_nothing() -> None:
    state = bring(Phase.OPEN)
    good = signed(choosing(1), 1)
    before = snapshot(state)
    for data, reason in (
        (b"", "malformed"),
        (good[:-1], "malformed"),
        (good[:3] + good[-64:], "malformed"),
        (good[:2] + b"\2" + good[3:], "bad_signature"),
        (good[:2] + b"\7" + good[3:], "malformed"),
        (good[:-1] + bytes([good[-1] ^ 1]), "bad_signature"),
    ):
        assert state.apply(data) == Refused(reason)
    elsewhere = sign_command(choosing(1), ServerIndex(1), GroupId(bytes(32)), LAX.identities[1])
    assert state.apply(elsewhere) == Refused("bad_signature")
    assert snapshot(state) == before
    assert isinstance(state.apply(good), RoundChosen)


# -- opening -------------------------------------------------------------------------------------

SEVEN = Digest(b"7" * 32)
OPEN_GUARDS: dict[str, tuple[dict[str, object], str]] = {
    "a round is left out": ({"round": 2}, "does_not_extend"),
    "another last final round": ({"round": 1, "previous_final": 1}, "malformed"),
    "another last record": ({"previous_record": SEVEN}, "does_not_extend"),
    "another schedule": ({"schedule": SEVEN}, "does_not_extend"),
    "another group": ({"group": GroupId(SEVEN)}, "other_group"),
    "another descriptor version": ({"descriptor_version": 2}, "other_group"),
    "a registry version to come": ({"registry_version": 2}, "unknown_registry"),
    "another registry digest": ({"registry_digest": SEVEN}, "unknown_registry"),
    "an older version under the newer digest": ({"registry_version": 0}, "unknown_registry"),
    "a roster too small": ({"roster": (ServerIndex(0),)}, "roster_not_allowed"),
    "a server that is none": (
        {"roster": tuple(ServerIndex(i) for i in (0, 1, 3))},
        "roster_not_allowed",
    ),
}


@pytest.mark.spec("8.4")
@pytest.mark.parametrize("title", OPEN_GUARDS)
def test_an_opening_that_breaks_a_rule_is_refused(title: str) -> None:
    changes, reason = OPEN_GUARDS[title]
    state = bring(Phase.IDLE)
    refused(state, opening(header_for(state, **changes)), 0, reason)


def test_only_the_opener_opens_and_only_under_its_own_signature() -> None:
    state = bring(Phase.IDLE)
    refused(state, opening(header_for(state)), 1, "not_the_opener")
    refused(state, opening(header_for(state), signer=1), 0, "roster_not_allowed")
    mine = header_for(state, opener=ServerIndex(1))
    assert isinstance(apply(state, opening(mine), 1), RoundOpened)


@pytest.mark.spec("8.4")
def test_a_server_is_left_out_only_where_the_descriptor_allows_it() -> None:
    pair = tuple(ServerIndex(i) for i in (0, 2))
    lax, strict = bring(Phase.IDLE), bring(Phase.IDLE, STRICT)
    refused(strict, opening(header_for(strict, roster=pair)), 0, "roster_not_allowed")
    assert isinstance(apply(lax, opening(header_for(lax, roster=pair))), RoundOpened)
    refused(lax, AbortRound(RoundNumber(1), AbortReason.NO_AGGREGATE, ()), 1, "not_in_roster")
    apply(lax, choosing(1))
    refused(lax, posting(1), 1, "not_in_roster")
    assert apply(lax, posting(1), 0) == PartialPosted(ServerIndex(0), complete=False)
    assert apply(lax, posting(1), 2) == PartialPosted(ServerIndex(2), complete=True)


def test_the_registry_a_header_names_never_goes_back() -> None:
    state = bring(Phase.OPEN)
    apply(state, AbortRound(RoundNumber(1), AbortReason.NO_AGGREGATE, ()))
    older = {"registry_version": 0, "registry_digest": state.registry.digest_at(0)}
    refused(state, opening(header_for(state, **older)), 0, "unknown_registry")
    apply(state, register(1))
    behind = {"registry_version": 1, "registry_digest": state.registry.digest_at(1)}
    assert isinstance(apply(state, opening(header_for(state, **behind))), RoundOpened)


# -- choosing, posting, aborting -------------------------------------------------------------------


@pytest.mark.spec("8.3")
def test_too_few_participants_are_never_chosen() -> None:
    state = bring(Phase.OPEN)
    refused(state, choosing(1, count=1), 0, "below_minimum")
    refused(state, choosing(2), 0, "other_round")
    assert isinstance(apply(state, choosing(1, count=2)), RoundChosen)


@pytest.mark.spec("8.2")
def test_one_partial_digest_per_server_for_the_chosen_aggregate_only() -> None:
    state = bring(Phase.CHOSEN)
    refused(state, posting(1, OTHER), 0, "other_aggregate")
    refused(state, posting(2), 0, "other_round")
    assert apply(state, posting(1)) == PartialPosted(ServerIndex(0), complete=False)
    second = PostPartial(RoundNumber(1), AGGREGATE, RECORD)
    refused(state, second, 0, "second_partial")
    assert state.partials == {0: OTHER}


@pytest.mark.spec("6")
def test_a_round_is_given_up_until_the_last_digest_is_in_and_never_after() -> None:
    abort = AbortRound(RoundNumber(1), AbortReason.PARTIAL_MISSING, (ServerIndex(2),))
    for posted in range(3):
        state = bring(Phase.CHOSEN)
        for author in range(posted):
            apply(state, posting(1), author)
        assert apply(state, abort) == RoundAborted(abort.round, abort.why, abort.absent)
        assert (state.phase, state.last_round, state.next_sequence) == (Phase.IDLE, 1, 0)
    refused(bring(Phase.REVEALED), abort, 0, "out_of_place")


def test_an_aborted_round_keeps_its_number_and_the_chain_of_records() -> None:
    state = bring(Phase.OPEN)
    apply(state, AbortRound(RoundNumber(1), AbortReason.NO_AGGREGATE, ()))
    header = header_for(state)
    assert (header.round, header.previous_final) == (2, 0)
    assert isinstance(apply(state, opening(header)), RoundOpened)


# -- signing and sealing ---------------------------------------------------------------------------


def test_the_whole_rosters_signatures_seal_a_record() -> None:
    state = revealed(STRICT)
    assert apply(state, signing(1, 2), 2) == SignaturePosted(ServerIndex(2))
    assert apply(state, signing(1, 0), 0) == SignaturePosted(ServerIndex(0))
    refused(state, SealRecord(RoundNumber(1)), 0, "too_few_signatures")
    sealed = apply(state, signing(1, 1), 1)
    assert isinstance(sealed, RoundSealed)
    assert (sealed.sequence, sealed.record, sealed.header.round) == (0, RECORD, 1)
    assert sealed.signatures == tuple(
        (ServerIndex(i), record_signature(i, RECORD)) for i in range(3)
    )
    assert (state.last_final, state.last_record, state.schedule) == (1, RECORD, OTHER)
    assert (state.phase, state.next_sequence) == (Phase.IDLE, 1)


def test_a_record_is_sealed_with_fewer_only_when_asked_and_allowed() -> None:
    state = revealed()
    apply(state, signing(1, 0), 0)
    refused(state, SealRecord(RoundNumber(1)), 1, "too_few_signatures")
    assert apply(state, signing(1, 2), 2) == SignaturePosted(ServerIndex(2))
    sealed = apply(state, SealRecord(RoundNumber(1)), 1)
    assert isinstance(sealed, RoundSealed)
    assert [server for server, _ in sealed.signatures] == [0, 2]


@pytest.mark.spec("8.7")
@pytest.mark.parametrize("other", ["record", "schedule"])
def test_signatures_over_different_contents_never_add_up(other: str) -> None:
    state = revealed(STRICT)
    lone = signing(1, 1, FORK) if other == "record" else signing(1, 1, schedule=FORK)
    for author, command in ((0, signing(1, 0)), (1, lone), (2, signing(1, 2))):
        assert apply(state, command, author) == SignaturePosted(ServerIndex(author))
    refused(state, SealRecord(RoundNumber(1)), 0, "too_few_signatures")
    assert (state.phase, state.next_sequence) == (Phase.REVEALED, 0)
    lax = revealed()
    for author, command in ((0, signing(1, 0)), (1, lone), (2, signing(1, 2))):
        apply(lax, command, author)
    sealed = apply(lax, SealRecord(RoundNumber(1)), 0)
    assert isinstance(sealed, RoundSealed)
    assert (sealed.record, [s for s, _ in sealed.signatures]) == (RECORD, [0, 2])


def test_a_record_signature_is_checked_in_full_and_counted_once() -> None:
    state = revealed()
    good = signing(1, 0)
    for at in (0, 63, 64, len(good.signature) - 1):
        broken = bytearray(good.signature)
        broken[at] ^= 1
        refused(state, replace(good, signature=bytes(broken)), 0, "bad_record_signature")
    refused(state, replace(good, record=FORK), 0, "bad_record_signature")
    refused(state, good, 1, "bad_record_signature")
    refused(state, signing(2, 0), 0, "other_round")
    apply(state, good)
    refused(state, signing(1, 0, FORK), 0, "second_signature")


# -- the registry ----------------------------------------------------------------------------------


def test_a_client_is_good_from_the_round_after_the_last_opened_one() -> None:
    state = bring(Phase.OPEN)
    outcome = apply(state, register(1))
    assert isinstance(outcome, ClientRegistered)
    assert (outcome.change.index, outcome.change.first_round) == (1, 2)
    assert (outcome.version, outcome.replaced) == (2, None)


def test_registering_again_takes_a_new_index_and_retires_the_old_one() -> None:
    state = bring(Phase.IDLE)
    outcome = apply(state, register(0, serial=2), 1)
    assert isinstance(outcome, ClientRegistered)
    assert (outcome.change.index, outcome.replaced, outcome.version) == (1, 0, 3)
    assert not state.registry.is_active(0)
    assert state.registry.active_count == 1


@pytest.mark.parametrize("phase", Phase)
def test_a_retired_index_counts_in_the_round_under_way_and_in_none_after(phase: Phase) -> None:
    state = bring(phase)
    apply(state, RetireClient(RegistryIndex(0)))
    entry = state.registry.entry(0)
    assert entry is not None
    assert (entry.end_round, entry.until_version) == (state.last_round + 1, 2)


def test_an_old_registration_is_not_taken_again_even_after_retirement() -> None:
    state = bring(Phase.IDLE)
    refused(state, register(0, serial=1), 1, "stale_registration")
    refused(state, register(0, serial=0), 1, "stale_registration")
    assert apply(state, RetireClient(RegistryIndex(0))) == ClientRetired(RegistryIndex(0))
    refused(state, register(0, serial=1), 1, "stale_registration")
    outcome = apply(state, register(0, serial=2))
    assert isinstance(outcome, ClientRegistered)
    assert outcome.change.index == 1, "an index is never given again"


def test_a_full_registry_takes_nobody_new_but_lets_its_own_return() -> None:
    state = state_of(max_clients=2)
    apply(state, register(0))
    apply(state, register(1))
    refused(state, register(2), 0, "registry_full")
    assert isinstance(apply(state, register(1, serial=2)), ClientRegistered)
    apply(state, RetireClient(RegistryIndex(0)))
    assert isinstance(apply(state, register(2)), ClientRegistered)


def test_what_is_not_registered_cannot_be_retired() -> None:
    state = bring(Phase.IDLE)
    for index in (1, 2**63, 2**64 - 1):
        refused(state, RetireClient(RegistryIndex(index)), 0, "not_registered")
    apply(state, RetireClient(RegistryIndex(0)))
    refused(state, RetireClient(RegistryIndex(0)), 1, "not_registered")


def test_a_servers_kem_epochs_only_grow() -> None:
    state = state_of()
    assert apply(state, AnnounceKem(5, AGGREGATE), 1) == KemAnnounced(ServerIndex(1), 5, AGGREGATE)
    refused(state, AnnounceKem(5, OTHER), 1, "stale_epoch")
    refused(state, AnnounceKem(4, OTHER), 1, "stale_epoch")
    assert isinstance(apply(state, AnnounceKem(4, OTHER), 0), KemAnnounced)
    assert isinstance(apply(state, AnnounceKem(6, OTHER), 1), KemAnnounced)

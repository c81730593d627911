"""A round whose partial never comes: who may end it, and when nobody may (decision 0005)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.committee_state import (
    LAX,
    STRICT,
    apply,
    bring,
    choosing,
    header_for,
    miss,
    opening,
    posting,
    register,
    signing,
    state_of,
)
from zipnet.machines.committee import CommitteeState, Phase
from zipnet.machines.committee_outcomes import PartialMissed, Refused, RoundAborted
from zipnet.protocol.command import AbortReason
from zipnet.protocol.ids import ServerIndex

if TYPE_CHECKING:
    from tests.harness.committee import HarnessCommittee


def posted_by_all(
    committee: HarnessCommittee = LAX, *, roster: tuple[int, ...] = (0, 1, 2)
) -> CommitteeState:
    """A state whose roster has committed to its partials, and nobody has signed yet."""
    state = state_of(committee)
    apply(state, register())
    servers = tuple(ServerIndex(i) for i in roster)
    apply(state, opening(header_for(state, roster=servers)))
    apply(state, choosing(1))
    for author in roster:
        apply(state, posting(1), author)
    assert state.phase is Phase.REVEALED
    return state


def test_a_round_whose_partial_never_comes_ends_when_all_others_say_so() -> None:
    state = posted_by_all()
    assert miss(state, 0, 2) == PartialMissed(ServerIndex(0), (ServerIndex(2),))
    assert state.phase is Phase.REVEALED
    ended = miss(state, 1, 2)
    assert isinstance(ended, RoundAborted)
    assert (ended.why, ended.absent) == (AbortReason.PARTIAL_WITHHELD, (2,))
    assert (state.phase, state.missed) == (Phase.IDLE, {})


def test_where_no_absence_is_allowed_the_missing_server_must_say_so_itself() -> None:
    state = posted_by_all(STRICT)
    miss(state, 0, 2)
    assert isinstance(miss(state, 1, 2), PartialMissed)
    assert isinstance(miss(state, 2, 2), RoundAborted)


def test_one_server_that_misses_something_else_or_nothing_prevents_the_end() -> None:
    state = posted_by_all()
    miss(state, 0, 2)
    assert isinstance(miss(state, 1, 1, 2), PartialMissed)
    assert isinstance(miss(state, 2, 1), PartialMissed)
    assert state.phase is Phase.REVEALED
    # A later word replaces an earlier one.
    assert isinstance(miss(state, 1, 2), RoundAborted)


def test_absences_add_up_over_roster_and_silence() -> None:
    state = posted_by_all(roster=(0, 1))
    assert isinstance(miss(state, 0, 1), PartialMissed), "two of three would be absent"
    assert isinstance(miss(state, 1, 1), RoundAborted)


def test_after_a_signature_nobody_ends_the_round_without_its_record() -> None:
    state = posted_by_all()
    apply(state, signing(1, 1), 1)
    assert miss(state, 0, 2) == Refused("already_signed")


@pytest.mark.parametrize("missing", [(), (3,), (0, 3)], ids=str)
def test_what_is_missing_must_be_of_the_roster(missing: tuple[int, ...]) -> None:
    state = posted_by_all()
    assert miss(state, 0, *missing) == Refused("out_of_place")
    assert state.missed == {}


@pytest.mark.parametrize("phase", [Phase.OPEN, Phase.CHOSEN], ids=str)
def test_nothing_is_missing_before_all_digests_are_in(phase: Phase) -> None:
    state = bring(phase)
    assert miss(state, 0, 2) == Refused("out_of_place")
    assert state.phase is phase

"""The committee's replicated state under any order of anything, and mutants of its refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.committee_state import (
    STEP,
    any_command,
    apply,
    bring,
    posting,
    revealed,
    signed,
    signing,
    snapshot,
    state_of,
)
from zipnet.machines.committee import CommitteeState, Phase
from zipnet.machines.committee_outcomes import (
    ClientRegistered,
    Outcome,
    PartialPosted,
    Refused,
    RoundAborted,
    RoundChosen,
    RoundOpened,
    RoundSealed,
)
from zipnet.protocol.ids import Digest

if TYPE_CHECKING:
    from zipnet.protocol.command import Command


class _Watcher:
    """What must hold of any sequence of outcomes."""

    def __init__(self) -> None:
        self.opened = 0
        self.sealed: list[tuple[int, Digest]] = []
        self.chosen: dict[int, Digest] = {}
        self.posted: set[tuple[int, int]] = set()
        self.revealed: set[int] = set()
        self.given = 0

    def see(self, state: CommitteeState, outcome: Outcome) -> None:
        number = int(state.last_round)
        match outcome:
            case RoundOpened(made):
                assert made.header.round == self.opened + 1
                last = self.sealed[-1] if self.sealed else (0, Digest(bytes(32)))
                header = made.header
                assert (header.previous_final, header.previous_record) == last
                self.opened += 1
            case RoundChosen(chosen):
                assert number not in self.chosen
                self.chosen[number] = chosen.aggregate
            case PartialPosted(server, complete):
                assert (number, server) not in self.posted
                self.posted.add((number, int(server)))
                if complete:
                    self.revealed.add(number)
            case RoundAborted(closed):
                assert closed not in self.revealed
            case RoundSealed(header, sequence, record):
                assert sequence == len(self.sealed)
                assert header.round in self.revealed
                self.sealed.append((header.round, record))
                assert len(outcome.signatures) >= 2
            case ClientRegistered(_, change):
                assert change.index == self.given
                self.given += 1
            case _:
                pass


@pytest.mark.spec("6")
@settings(max_examples=250)
@given(st.lists(STEP, max_size=45))
def test_no_order_of_commands_raises_forks_or_leaves_a_gap(
    steps: list[tuple[int, int, int, int, bool]],
) -> None:
    state, replica, watcher = state_of(max_clients=2), state_of(max_clients=2), _Watcher()
    for kind, author, a, b, spoiled in steps:
        data = bytearray(signed(any_command(state, kind, author, a, b), author))
        if spoiled and kind < 3:
            data[(a * 31 + b * 7) % len(data)] ^= 1 << author
        before = snapshot(state)
        outcome = state.apply(bytes(data))
        assert (snapshot(state) == before) is isinstance(outcome, Refused)
        assert replica.apply(bytes(data)) == outcome
        watcher.see(state, outcome)
    assert snapshot(replica) == snapshot(state)
    assert state.next_sequence == len(watcher.sealed)


def test_the_random_commands_do_get_rounds_sealed() -> None:
    """The property above is not empty: its useful steps finish rounds."""
    state = state_of()
    for _ in range(3):
        for kind, author in ((10, 0), (10, 0), (10, 0), (10, 1), (10, 2), (9, 0), (9, 1), (9, 2)):
            apply(state, any_command(state, kind, author, 1, 0), author)
    assert state.next_sequence == 3


@pytest.mark.parametrize("forgotten", ["partials", "signatures"])
def test_the_refusals_are_what_keeps_a_server_to_one_word(forgotten: str) -> None:
    """Mutant: a state that forgets what a server said takes its second word."""
    state = bring(Phase.CHOSEN) if forgotten == "partials" else revealed()
    command: Command = posting(1) if forgotten == "partials" else signing(1, 0)
    apply(state, command)
    getattr(state, forgotten).clear()
    assert not isinstance(apply(state, command), Refused)

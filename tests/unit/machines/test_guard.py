"""The release guard: never two partials for a round, never one below the minimum."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipnet.errors import StorageError
from zipnet.machines import guard as guard_module
from zipnet.machines.guard import RefusedRelease, Released, ReleaseGuard, ReleaseRequest
from zipnet.protocol.header import RoundHeader
from zipnet.protocol.ids import Digest, GroupId, RegistryIndex, RoundNumber, ServerIndex
from zipnet.protocol.participants import Participants
from zipnet.storage.journal import FileJournal


def header(number: int = 1, *, roster: tuple[int, ...] = (0, 1, 2), stamp: int = 0) -> RoundHeader:
    return RoundHeader(
        group=GroupId(bytes(32)),
        round=RoundNumber(number),
        descriptor_version=1,
        previous_final=RoundNumber(0),
        previous_record=Digest(bytes(32)),
        schedule=Digest(bytes(32)),
        registry_version=5,
        registry_digest=Digest(bytes(32)),
        roster=tuple(ServerIndex(i) for i in roster),
        opener=ServerIndex(roster[0]),
        opened_at_ms=stamp,
    )


def request(
    number: int = 1, members: tuple[int, ...] = (0, 1, 2), stamp: int = 0
) -> ReleaseRequest:
    made = header(number, stamp=stamp)
    participants = Participants(RegistryIndex(i) for i in members)
    return ReleaseRequest(made, made.round, made.hash, participants)


def make_guard(history: tuple[Released, ...] = (), *, least: int = 3) -> ReleaseGuard:
    return ReleaseGuard(server=ServerIndex(1), min_participants=least, history=history)


def everyone(_: RegistryIndex) -> bool:
    return True


def reason(decision: Released | RefusedRelease) -> str:
    assert isinstance(decision, RefusedRelease)
    return decision.reason


@pytest.mark.requirement("D3")
def test_two_participant_sets_for_one_round_get_one_release_across_a_restart(
    tmp_path: Path,
) -> None:
    path = tmp_path / "releases.journal"
    journal = FileJournal(path, identity=bytes(32))
    guard = make_guard()
    first = guard.decide(request(members=(0, 1, 2)), admitted=everyone)
    assert isinstance(first, Released)
    journal.append(first.encode())
    guard.remember(first)
    assert reason(guard.decide(request(members=(0, 1, 3)), admitted=everyone)) == "second_release"
    journal.close()

    reopened = FileJournal(path, identity=bytes(32))
    restarted = make_guard(tuple(Released.decode(e) for e in reopened.entries()))
    reopened.close()
    again = restarted.decide(request(members=(0, 1, 3)), admitted=everyone)
    assert reason(again) == "second_release"
    assert restarted.decide(request(members=(0, 1, 2)), admitted=everyone) == first


def test_another_header_of_a_released_round_is_refused() -> None:
    guard = make_guard()
    first = guard.decide(request(stamp=1), admitted=everyone)
    assert isinstance(first, Released)
    guard.remember(first)
    assert reason(guard.decide(request(stamp=2), admitted=everyone)) == "second_release"


def test_fewer_than_the_own_minimum_is_refused_whatever_the_group_says() -> None:
    guard = make_guard(least=4)
    assert reason(guard.decide(request(), admitted=everyone)) == "below_minimum"


def test_a_participant_this_server_did_not_admit_is_refused() -> None:
    guard = make_guard()
    decision = guard.decide(request(), admitted=lambda index: index != 2)
    assert reason(decision) == "not_admitted"


def test_an_older_round_is_refused() -> None:
    guard = make_guard((Released(RoundNumber(7), Digest(bytes(32))),))
    assert reason(guard.decide(request(6), admitted=everyone)) == "older_round"


def test_a_server_outside_the_roster_releases_nothing() -> None:
    made = header(roster=(0, 2))
    asked = ReleaseRequest(made, made.round, made.hash, request().participants)
    assert reason(make_guard().decide(asked, admitted=everyone)) == "not_in_roster"


def test_an_aggregate_of_another_header_is_refused() -> None:
    asked = ReleaseRequest(
        header(stamp=1), RoundNumber(1), header(stamp=2).hash, request().participants
    )
    assert reason(make_guard().decide(asked, admitted=everyone)) == "other_header"


def test_a_journal_that_goes_backwards_is_not_trusted() -> None:
    history = (
        Released(RoundNumber(5), Digest(bytes(32))),
        Released(RoundNumber(5), Digest(b"\1" * 32)),
    )
    with pytest.raises(StorageError):
        make_guard(history)


_ASKED = st.tuples(
    st.integers(1, 4),
    st.frozensets(st.integers(0, 5), min_size=1, max_size=6),
    st.integers(0, 1),
    st.booleans(),
)


@given(st.lists(_ASKED, max_size=30))
def test_no_order_of_requests_and_restarts_gets_two_releases_of_a_round(
    asked: list[tuple[int, frozenset[int], int, bool]],
) -> None:
    _release_any_order(make_guard, asked)


def test_the_property_fails_for_a_guard_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReleaseGuard, "remember", lambda _self, _released: None)
    asked = [(1, frozenset({0, 1, 2}), 0, False), (1, frozenset({0, 1, 3}), 0, False)]
    with pytest.raises(AssertionError, match="two releases"):
        _release_any_order(make_guard, asked)


def test_the_property_fails_for_a_guard_that_forgets_the_participants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard_module, "_digest", lambda made, _members: Digest(made.hash))
    asked = [(1, frozenset({0, 1, 2}), 0, False), (1, frozenset({0, 1, 3}), 0, False)]
    with pytest.raises(AssertionError, match="two releases"):
        _release_any_order(make_guard, asked)


def _release_any_order(make: object, asked: list[tuple[int, frozenset[int], int, bool]]) -> None:
    assert callable(make)
    durable: list[Released] = []
    guard = make(tuple(durable))
    out: dict[int, tuple[frozenset[int], int]] = {}
    for number, members, stamp, restart in asked:
        if restart:
            guard = make(tuple(durable))
        decision = guard.decide(request(number, tuple(members), stamp), admitted=everyone)
        if isinstance(decision, RefusedRelease):
            continue
        if not durable or durable[-1] != decision:
            durable.append(decision)
        guard.remember(decision)
        assert len(members) >= 3
        assert out.setdefault(number, (members, stamp)) == (members, stamp), "two releases"


@pytest.mark.requirement("M1")
def test_without_memory_nothing_is_released_before_it_is_known_what_was_opened() -> None:
    guard = ReleaseGuard(server=ServerIndex(1), min_participants=3, history=None)
    assert reason(guard.decide(request(7), admitted=everyone)) == "memory_lost"
    guard.enter(RoundNumber(7))
    for number in (1, 6, 7):
        refused = reason(guard.decide(request(number), admitted=everyone))
        assert refused in {"older_round", "second_release"}
    decision = guard.decide(request(8), admitted=everyone)
    assert isinstance(decision, Released)
    guard.remember(decision)
    # Entering again, as after a change of standing, neither forgets nor skips anything.
    guard.enter(RoundNumber(20))
    assert guard.last_round == 8
    assert guard.decide(request(8), admitted=everyone) == decision


def test_a_guard_that_remembers_is_not_moved_by_entering() -> None:
    guard = make_guard()
    guard.enter(RoundNumber(7))
    assert isinstance(guard.decide(request(7), admitted=everyone), Released)

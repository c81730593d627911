"""The bit set of participants is a set, and one set has one encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipnet.errors import RemoteProtocolError
from zipnet.protocol.ids import RegistryIndex, derive
from zipnet.protocol.participants import MAX_PARTICIPANT_BYTES, Participants

SETS = st.frozensets(st.integers(0, 200).map(RegistryIndex) | st.just(RegistryIndex(1 << 13)))


@given(SETS)
def test_it_counts_contains_and_lists_what_was_put_in(members: frozenset[RegistryIndex]) -> None:
    found = Participants(members)
    assert len(found) == len(members)
    assert list(found) == sorted(members)
    for index in [*members, *range(9), -1, 1 << 70]:
        assert (index in found) is (index in members)
    assert "3" not in found
    assert bool(found) is bool(members)


@given(SETS, SETS)
def test_union_and_disjointness_are_those_of_sets(
    ours: frozenset[RegistryIndex], theirs: frozenset[RegistryIndex]
) -> None:
    left, right = Participants(ours), Participants(theirs)
    assert frozenset(left.union(right)) == ours | theirs
    assert left.isdisjoint(right) is ours.isdisjoint(theirs)
    assert (left == right) is (ours == theirs)
    assert (left.encode() == right.encode()) is (ours == theirs)
    assert (left.digest == right.digest) is (ours == theirs)
    if ours == theirs:
        assert hash(left) == hash(right)


@given(SETS)
def test_its_encoding_comes_back(members: frozenset[RegistryIndex]) -> None:
    found = Participants(members)
    assert Participants.decode(found.encode()) == found
    assert Participants.decode(found.encode()).encode() == found.encode()


@given(st.binary(max_size=40))
def test_bytes_are_the_one_encoding_of_a_set_or_refused(data: bytes) -> None:
    if data.endswith(b"\0"):
        with pytest.raises(RemoteProtocolError):
            Participants.decode(data)
    else:
        assert Participants.decode(data).encode() == data


def test_a_set_past_the_cap_is_refused() -> None:
    assert len(Participants.decode(b"\xff" * MAX_PARTICIPANT_BYTES)) == 8 * MAX_PARTICIPANT_BYTES
    with pytest.raises(RemoteProtocolError):
        Participants.decode(b"\xff" * (MAX_PARTICIPANT_BYTES + 1))


@given(SETS)
def test_it_shows_its_size_and_nothing_else(members: frozenset[RegistryIndex]) -> None:
    assert repr(Participants(members)) == f"Participants(count={len(members)})"


@given(SETS, st.binary(min_size=32, max_size=32))
def test_a_commitment_without_its_salt_is_not_the_digest(
    members: frozenset[RegistryIndex], salt: bytes
) -> None:
    found = Participants(members)
    assert found.commitment(salt) != found.digest
    assert found.commitment(salt) != found.commitment(derive("test-salt", salt))

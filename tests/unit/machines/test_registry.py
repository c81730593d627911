"""What a list of registry changes says, and that all who hold one header read it alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.harness.committee import make_identity
from zipnet.errors import RemoteProtocolError
from zipnet.machines.registry import RegistryView
from zipnet.protocol.ids import Digest, PeerId, RegistryIndex, RoundNumber
from zipnet.protocol.registration import (
    EMPTY_REGISTRY_DIGEST,
    RegistryChange,
    extend_registry_digest,
)

ANNA, BERT, CARL = (make_identity(name).public for name in ("anna", "bert", "carl"))


def added(index: int, who: object = ANNA, first_round: int = 1) -> RegistryChange:
    peer, key = PeerId(who.peer_id), who.ed25519  # type: ignore[attr-defined]
    registration = Digest(bytes([index]) * 32)
    return RegistryChange(RegistryIndex(index), (peer, key), registration, RoundNumber(first_round))


def retired(index: int, first_round: int = 9) -> RegistryChange:
    return RegistryChange(RegistryIndex(index), None, None, RoundNumber(first_round))


def view(*changes: RegistryChange) -> RegistryView:
    result = RegistryView()
    result.apply(changes)
    return result


def test_version_and_digest_chain_over_every_change() -> None:
    changes = [added(0, ANNA), added(1, BERT), retired(0)]
    registry = view(*changes)
    digests = [EMPTY_REGISTRY_DIGEST]
    for change in changes:
        digests.append(extend_registry_digest(digests[-1], change))
    assert registry.version == 3
    assert [registry.digest_at(v) for v in range(4)] == digests
    assert registry.digest == digests[-1]
    assert registry.digest_at(4) is None
    assert registry.digest_at(-1) is None


def test_a_client_counts_from_its_version_and_its_first_round_on() -> None:
    registry = view(added(0, ANNA, 1), added(1, BERT, 5))
    assert registry.active_at(1, RoundNumber(7)) == {0}
    assert registry.active_at(2, RoundNumber(4)) == {0}
    assert registry.active_at(2, RoundNumber(5)) == {0, 1}


def test_a_retired_client_counts_under_older_headers_only() -> None:
    registry = view(added(0, ANNA, 1), retired(0, 6))
    assert registry.is_member(0, 1, RoundNumber(9))
    assert registry.is_member(0, 2, RoundNumber(5))
    assert not registry.is_member(0, 2, RoundNumber(6))
    assert not registry.is_active(0)
    assert registry.index_of(ANNA.peer_id) is None


def test_an_identity_that_registers_again_counts_under_one_index_each_round() -> None:
    registry = view(added(0, ANNA, 1), retired(0, 6), added(1, ANNA, 6))
    assert registry.index_of(ANNA.peer_id) == 1
    for round_number, index in ((5, 0), (6, 1)):
        assert registry.peer_index_at(ANNA.peer_id, 3, RoundNumber(round_number)) == index
    assert registry.active_at(3, RoundNumber(5)) == {0}
    assert registry.active_at(3, RoundNumber(6)) == {1}
    assert registry.active_count == 1


def test_pages_of_changes_give_back_what_was_applied() -> None:
    changes = [added(0, ANNA), added(1, BERT), retired(1), added(2, CARL)]
    registry = view(*changes)
    assert registry.changes_from(0, 100) == tuple(changes)
    assert registry.changes_from(1, 2) == tuple(changes[1:3])
    assert registry.changes_from(4, 5) == ()


BAD: dict[str, list[RegistryChange]] = {
    "an index is skipped": [added(0), added(2, BERT)],
    "an index is given twice": [added(0), added(0, BERT)],
    "an identity is active twice": [added(0, ANNA), added(1, ANNA)],
    "an unknown index is retired": [retired(0)],
    "an index is retired twice": [added(0), retired(0), retired(0)],
    "a later index is retired": [retired(1), added(0), added(1, BERT)],
}


@pytest.mark.parametrize("title", BAD)
def test_a_list_that_breaks_a_rule_changes_nothing(title: str) -> None:
    registry = RegistryView()
    with pytest.raises(RemoteProtocolError):
        registry.apply(BAD[title])
    assert (registry.version, registry.digest) == (0, EMPTY_REGISTRY_DIGEST)
    assert registry.entry(0) is None


@pytest.mark.parametrize("title", BAD)
def test_a_list_that_breaks_a_rule_in_pieces_is_refused_at_the_piece(title: str) -> None:
    registry = RegistryView()

    def apply_all() -> None:
        for change in BAD[title]:
            registry.apply((change,))

    refused: Callable[[], None] = apply_all
    with pytest.raises(RemoteProtocolError):
        refused()


# -- a new beginning -------------------------------------------------------------------------------


def begun_anew() -> RegistryView:
    registry = view(added(0, ANNA), added(1, BERT), retired(0), added(2, ANNA, 4))
    registry.rebase()
    return registry


def test_a_new_beginning_keeps_who_is_active_and_forgets_the_rest() -> None:
    registry = begun_anew()
    assert (registry.base_version, registry.version) == (4, 7)
    assert registry.active_at(7, RoundNumber(4)) == {1, 2}
    assert registry.index_of(PeerId(ANNA.peer_id)) == 2
    assert registry.entry(0) is None
    assert registry.next_index == 3
    assert [registry.digest_at(version) for version in (0, 3, 4)] == [None] * 3
    # Indexes go on where they were, and those given back are not given again.
    registry.apply((added(3, CARL),))
    with pytest.raises(RemoteProtocolError):
        registry.apply((added(0, CARL),))


def test_whoever_begins_with_the_new_beginning_knows_the_same() -> None:
    registry = begun_anew()
    registry.apply((added(3, CARL), retired(1, 9)))
    late, newcomer = view(added(0, ANNA)), RegistryView()
    for other in (late, newcomer):
        page = registry.changes_from(other.version, 100)
        assert page[0].base == 4
        other.apply(page)
        assert (other.version, other.digest) == (registry.version, registry.digest)
        for number in range(1, 12):
            for version in range(7, 10):
                here = registry.active_at(version, RoundNumber(number))
                assert other.active_at(version, RoundNumber(number)) == here
    assert RegistryChange.decode(registry.changes_from(0, 1)[0].encode()).base == 4


def test_the_digest_covers_the_new_beginning_and_all_after_it() -> None:
    (begin, *rest) = begun_anew().changes_from(4, 100)
    digest = extend_registry_digest(Digest(b"x" * 32), begin)
    assert digest == extend_registry_digest(EMPTY_REGISTRY_DIGEST, begin)
    for change in rest:
        digest = extend_registry_digest(digest, change)
    assert digest == begun_anew().digest
    moved = RegistryChange(begin.index, None, None, RoundNumber(0), base=5)
    assert extend_registry_digest(digest, moved) != extend_registry_digest(digest, begin)


def beginning(base: int, index: int) -> RegistryChange:
    return RegistryChange(RegistryIndex(index), None, None, RoundNumber(0), base=base)


BROKEN: dict[str, tuple[RegistryChange, ...]] = {
    "a beginning in the middle": (added(2, CARL), beginning(3, 3)),
    "two beginnings": (beginning(2, 2), beginning(3, 2)),
    "a beginning before what is known": (beginning(1, 2),),
    "fewer indexes than were given": (beginning(2, 1),),
    "an index added again out of order": (beginning(9, 9), added(4, ANNA), added(2, BERT)),
    "an index added again twice": (beginning(9, 9), added(4, ANNA), added(4, BERT)),
    "an old index after a new one": (beginning(9, 9), added(9, ANNA), added(2, BERT)),
    "an old index after a retirement": (
        beginning(9, 9),
        added(2, ANNA),
        retired(2),
        added(4, BERT),
    ),
    "a retirement of who is not there": (beginning(9, 9), retired(1)),
    "a jump ahead": (beginning(9, 9), added(10, ANNA)),
}


@pytest.mark.parametrize("title", BROKEN)
def test_a_new_beginning_that_breaks_a_rule_changes_nothing(title: str) -> None:
    registry = view(added(0, ANNA), added(1, BERT))
    with pytest.raises(RemoteProtocolError):
        registry.apply(BROKEN[title])
    assert (registry.version, registry.base_version) == (2, 0)
    assert registry.active_at(2, RoundNumber(1)) == {0, 1}


def test_new_beginnings_follow_each_other() -> None:
    registry = begun_anew()
    registry.rebase()
    assert (registry.base_version, registry.version) == (7, 10)
    registry.apply((retired(1), added(3, CARL)))
    registry.rebase()
    assert registry.active_at(registry.version, RoundNumber(9)) == {2, 3}
    assert len(registry.changes_from(0, 100)) == 3

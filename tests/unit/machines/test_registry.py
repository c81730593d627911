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

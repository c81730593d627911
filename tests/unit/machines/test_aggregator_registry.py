"""Which headers and which registry the aggregator's machine believes, and whom it leaves."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.harness.aggregators import FOLD_S, Node, World
from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.publishers import HarnessPublisher
from zipnet.machines import aggregator as aggregator_module
from zipnet.machines.aggregator_effects import (
    FetchRegistry,
    HeaderReceived,
    RegistryReceived,
    RelayHeader,
    SourceChanged,
)
from zipnet.machines.registry import RegistryView
from zipnet.protocol.header import SignedHeader, sign_header
from zipnet.protocol.ids import Digest, RoundNumber

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def leaf(world: World) -> Node:
    return Node(world.committee, "leaf-a")


def test_a_header_is_relayed_once_and_only_when_the_registry_is_known(leaf: Node) -> None:
    signed = leaf.committee.open_round()
    leaf.feed(HeaderReceived(signed))
    assert leaf.machine.open_header is None
    assert not any(isinstance(e, RelayHeader) for e in leaf.effects)
    leaf.know_registry()
    leaf.feed(HeaderReceived(signed))
    assert [e for e in leaf.effects if isinstance(e, RelayHeader)] == [RelayHeader(signed)]


BAD_HEADERS: dict[str, tuple[Callable[[HarnessCommittee], SignedHeader], str]] = {
    "a signature by another server": (
        lambda c: sign_header(c.next_header(), c.identities[1]),
        "bad_header",
    ),
    "another group": (
        lambda c: sign_header(c.next_header(group=bytes(32)), c.identities[0]),
        "other_group",
    ),
    "another descriptor": (
        lambda c: sign_header(c.next_header(descriptor_version=9), c.identities[0]),
        "other_descriptor",
    ),
    "a roster too small": (
        lambda c: sign_header(c.next_header(roster=(0, 1)), c.identities[0]),
        "bad_header",
    ),
    "an opener nobody knows": (
        lambda c: sign_header(
            c.next_header(roster=(0, 1, 2, 9), opener=9), make_identity("nobody")
        ),
        "bad_header",
    ),
}


@pytest.mark.parametrize("title", BAD_HEADERS)
def test_a_header_that_does_not_verify_costs_the_source_its_place(title: str, leaf: Node) -> None:
    make, reason = BAD_HEADERS[title]
    leaf.feed(HeaderReceived(make(leaf.committee)))
    assert leaf.distrusted() == [reason]
    assert leaf.machine.open_header is None
    leaf.open()


def test_a_second_header_of_a_round_is_not_folded_under(world: World, leaf: Node) -> None:
    signed = leaf.open()
    other = sign_header(
        dataclasses.replace(signed.header, opened_at_ms=5), world.committee.identities[0]
    )
    leaf.feed(HeaderReceived(other))
    assert leaf.machine.open_header == signed


def test_a_lying_registry_is_not_believed_and_another_source_is_asked(
    world: World, leaf: Node
) -> None:
    committee = world.committee
    signed = committee.open_round()
    leaf.feed(HeaderReceived(signed))
    eve = make_identity("eve")
    client = (eve.peer_id, eve.public.ed25519)
    lie = [dataclasses.replace(committee.changes[0], client=client), *committee.changes[1:]]
    leaf.feed(RegistryReceived(0, tuple(lie)))
    assert leaf.distrusted() == ["registry_digest"]
    assert leaf.machine.registry.version == 0
    assert leaf.machine.open_header is None
    leaf.effects.clear()
    leaf.feed(SourceChanged())
    leaf.know_registry()
    assert leaf.machine.open_header == signed


def test_without_the_digest_check_a_lie_would_be_believed(
    world: World, leaf: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant of the test above: the check is what finds the lie."""
    committee = world.committee
    signed = committee.open_round()
    eve = make_identity("eve")
    client = (eve.peer_id, eve.public.ed25519)
    lie = [dataclasses.replace(committee.changes[0], client=client), *committee.changes[1:]]
    answers = iter([Digest(bytes(32))] * (len(lie) - 1) + [signed.header.registry_digest])
    monkeypatch.setattr(aggregator_module, "extend_registry_digest", lambda _d, _c: next(answers))
    monkeypatch.setattr(
        leaf.machine.registry, "digest_at", lambda _version: signed.header.registry_digest
    )
    leaf.feed(HeaderReceived(signed))
    leaf.feed(RegistryReceived(0, tuple(lie)))
    assert leaf.machine.open_header == signed
    assert leaf.machine.registry.index_of(eve.peer_id) == 0


def test_a_registry_in_pages_and_one_that_is_too_long(world: World, leaf: Node) -> None:
    changes = tuple(world.committee.changes)
    signed = world.committee.open_round()
    HarnessPublisher(world.committee, "later").register()  # a change the header does not cover
    leaf.feed(HeaderReceived(signed))
    leaf.feed(RegistryReceived(0, changes[:1]))
    leaf.feed(RegistryReceived(0, changes))  # an answer to a question asked twice
    leaf.feed(RegistryReceived(1, (*changes[1:], world.committee.changes[-1])))
    assert leaf.machine.open_header == signed
    assert leaf.machine.registry.version == len(changes)
    assert leaf.distrusted() == []


def begun_anew(committee: HarnessCommittee) -> tuple[SignedHeader, RegistryView]:
    """A header under a registry that has forgotten its history, and that registry."""
    registry = RegistryView()
    registry.apply(committee.changes)
    registry.rebase()
    header = dataclasses.replace(
        committee.open_round().header,
        registry_version=registry.version,
        registry_digest=registry.digest,
    )
    return sign_header(header, committee.identities[header.opener]), registry


@pytest.mark.parametrize("page", [1, 2, 100])
@pytest.mark.parametrize("known", [0, 1])
def test_a_registry_that_begins_anew_is_taken_whole_and_checked(
    world: World, leaf: Node, page: int, known: int
) -> None:
    leaf.machine.registry.apply(world.committee.changes[:known])
    signed, registry = begun_anew(world.committee)
    leaf.feed(HeaderReceived(signed))
    while (asked := leaf.asked()) is not None:
        leaf.effects.remove(asked)
        changes = registry.changes_from(asked.from_version, page)
        leaf.feed(RegistryReceived(asked.from_version, changes))
    assert leaf.machine.open_header == signed
    assert leaf.machine.registry.active_peers == registry.active_peers
    assert leaf.distrusted() == []


def test_a_lie_about_a_registry_that_begins_anew_is_not_believed(world: World, leaf: Node) -> None:
    signed, registry = begun_anew(world.committee)
    changes = registry.changes_from(0, 100)
    leaf.feed(HeaderReceived(signed))
    leaf.feed(RegistryReceived(0, (changes[0], *changes[2:], changes[1])))
    assert leaf.distrusted() == ["registry_digest"]
    assert leaf.machine.registry.version == 0
    assert leaf.machine.open_header is None


def test_a_round_whose_registry_was_forgotten_meanwhile_is_let_go(world: World, leaf: Node) -> None:
    signed = world.committee.open_round()
    registry = RegistryView()
    registry.apply(world.committee.changes)
    registry.rebase()
    leaf.feed(HeaderReceived(signed))
    leaf.feed(RegistryReceived(0, registry.changes_from(0, 100)))
    assert leaf.machine.open_header is None
    assert leaf.distrusted() == []
    assert leaf.machine.registry.version == 0


def test_a_server_that_does_not_know_the_registry_yet_is_left(world: World, leaf: Node) -> None:
    leaf.feed(HeaderReceived(world.committee.open_round()))
    leaf.feed(RegistryReceived(0, ()))
    assert leaf.distrusted() == ["registry_incomplete"]


def test_an_unanswered_question_is_asked_again(world: World, leaf: Node) -> None:
    leaf.feed(HeaderReceived(world.committee.open_round()))
    leaf.wait(0.6)
    assert sum(isinstance(e, FetchRegistry) for e in leaf.effects) == 2


def test_a_lie_about_a_round_far_ahead_is_forgotten_with_its_source(
    world: World, leaf: Node
) -> None:
    committee = world.committee
    ahead = sign_header(committee.next_header(round=RoundNumber(1 << 40)), committee.identities[0])
    leaf.open(ahead)
    leaf.wait(FOLD_S)
    leaf.feed(SourceChanged())
    leaf.open()


def test_a_new_source_does_not_make_a_round_start_again(world: World, leaf: Node) -> None:
    signed = leaf.open()
    leaf.envelope(world.peer(0), world.seal(signed, 0))
    leaf.wait(FOLD_S)
    leaf.feed(SourceChanged())
    leaf.feed(HeaderReceived(signed))
    assert leaf.machine.open_header is None
    leaf.wait(FOLD_S)
    assert len(leaf.sent()) == 1

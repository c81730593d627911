"""Since when a key is in use, by what the versions of a descriptor say (row L4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.succession import replacing
from zipnet.protocol.descriptor import TrustedDescriptor, parse_descriptor, sign_descriptor
from zipnet.protocol.ids import Digest
from zipnet.protocol.key_ages import KEY_LIFE, ages_for, key_ages
from zipnet.protocol.succession import hand_over, succeed
from zipnet.settings.descriptorfile import NodeDraft, compose_successor

COMMITTEE = HarnessCommittee()
FIRST = COMMITTEE.descriptor
FOUNDED = FIRST.descriptor.not_before
OPERATOR = COMMITTEE.operator
NEWCOMER = make_identity("newcomer")


def day(count: int) -> datetime:
    return FOUNDED + timedelta(days=count)


def since(trusted: TrustedDescriptor) -> dict[tuple[str, bytes | None], datetime]:
    return {(age.kind, age.owner): age.since for age in key_ages(trusted)}


def renewed(old: TrustedDescriptor, at: int, *, secret: bytes | None = None) -> TrustedDescriptor:
    text = compose_successor(
        old.descriptor,
        not_before=day(at),
        rotated_secret=None if secret is None else Digest(secret),
    )
    return succeed(old, sign_descriptor(text, OPERATOR))


def replaced(old: TrustedDescriptor, at: int) -> TrustedDescriptor:
    drafts = [NodeDraft.of(node) for node in parse_descriptor(
        replacing(old.descriptor, 1, NEWCOMER)).servers]  # fmt: skip
    text = compose_successor(old.descriptor, servers=drafts, not_before=day(at))
    return succeed(old, sign_descriptor(text, OPERATOR))


@pytest.mark.requirement("L4")
def test_a_version_that_changes_nothing_makes_no_key_younger() -> None:
    assert set(since(renewed(renewed(FIRST, 30), 60)).values()) == {FOUNDED}


@pytest.mark.requirement("L4")
def test_a_rotated_key_is_as_old_as_its_version_and_the_others_stay_as_they_were() -> None:
    peers = [node.peer_id for node in FIRST.descriptor.servers]
    third = renewed(replaced(FIRST, 10), 20, secret=bytes(range(32)))
    found = since(renewed(third, 30))
    assert found["identity", NEWCOMER.peer_id] == day(10)
    assert found["identity", peers[0]] == found["identity", peers[2]] == FOUNDED
    assert ("identity", peers[1]) not in found
    assert found["committee-secret", None] == day(20)
    assert found["descriptor-key", None] == FOUNDED
    assert {age.due - age.since for age in key_ages(third)} == {KEY_LIFE}


def test_the_operators_key_counts_from_its_handover_also_when_it_comes_back() -> None:
    other = make_identity("other operator")
    text = compose_successor(FIRST.descriptor, operator=other.public, not_before=day(5))
    second = succeed(FIRST, hand_over(text, OPERATOR, other))
    assert since(second)["descriptor-key", None] == day(5)
    text = compose_successor(second.descriptor, operator=OPERATOR.public, not_before=day(9))
    third = succeed(second, hand_over(text, other, OPERATOR))
    assert since(third)["descriptor-key", None] == day(9), "there is a gap before"


def test_where_earlier_versions_are_not_known_the_known_ones_count() -> None:
    second = renewed(FIRST, 30)
    assert set(since(replace(second, earlier=())).values()) == {day(30)}


def test_a_node_is_told_of_the_keys_it_works_with() -> None:
    server = FIRST.descriptor.servers[0].peer_id
    aggregator = FIRST.descriptor.aggregators[0].node.peer_id
    kinds = [age.kind for age in ages_for(FIRST, server)]
    assert kinds == ["descriptor-key", "committee-secret", "identity"]
    assert [age.kind for age in ages_for(FIRST, aggregator)] == ["descriptor-key", "identity"]

"""Versions of a descriptor: what may follow what, and who may say so (decision 0007)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.succession import replacing, successor_of
from tests.unit.protocol import test_record
from tests.unit.protocol.test_record import STRICT
from zipnet.errors import ConfigError, VerificationError
from zipnet.protocol.descriptor import parse_descriptor, sign_descriptor
from zipnet.protocol.ids import PeerId
from zipnet.protocol.record import verify_record
from zipnet.protocol.revocation import RevokedKind, sign_revocation
from zipnet.protocol.succession import (
    hand_over,
    link_earlier,
    open_by_operators,
    replaced_server,
    succeed,
)
from zipnet.settings.descriptorfile import NodeDraft, compose_successor
from zipnet.settings.values import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.protocol.descriptor import Descriptor

COMMITTEE = HarnessCommittee()
FIRST = COMMITTEE.descriptor
OPERATOR = COMMITTEE.operator
NEWCOMER = make_identity("newcomer")
AT = 1_800_000_000_000


def signed(text: bytes) -> bytes:
    return sign_descriptor(text, OPERATOR)


def test_a_server_is_replaced_and_both_versions_stay_known() -> None:
    second = successor_of(FIRST, 1, NEWCOMER, OPERATOR)
    assert second.version == 2
    assert second.group == FIRST.group
    assert second.committee[1] == NEWCOMER.public
    assert second.descriptor.servers[1].since == 2
    assert replaced_server(FIRST.descriptor, second.descriptor) == 1
    assert second.at(1).committee == FIRST.committee
    assert second.at(2) is second
    assert second.founding.descriptor == FIRST.descriptor
    third = successor_of(second, 0, make_identity("third"), OPERATOR)
    assert [third.at(n).version for n in (1, 2, 3)] == [1, 2, 3]
    with pytest.raises(VerificationError, match="not known"):
        third.at(4)


def test_an_identity_that_had_a_seat_never_takes_one_again() -> None:
    # The engine knows members by an id that follows from the identity: nobody may have had it.
    gone = COMMITTEE.identities[1]
    second = successor_of(FIRST, 1, NEWCOMER, OPERATOR)
    third = successor_of(second, 1, make_identity("third"), OPERATOR)
    for back in (gone, NEWCOMER):
        for seat in (1, 2):
            with pytest.raises(VerificationError, match="had a seat before"):
                successor_of(third, seat, back, OPERATOR)
    with pytest.raises(VerificationError, match="had a seat before"):
        successor_of(second, 1, gone, OPERATOR)


def test_endpoints_validity_and_aggregators_may_change_and_retire_nobody() -> None:
    old = FIRST.descriptor
    drafts = [replace(NodeDraft.of(n), endpoint=Endpoint("127.0.0.2", n.port)) for n in old.servers]
    more = NodeDraft.of(old.aggregators[0].node)
    leaf = NodeDraft.of(old.aggregators[0].node)
    certificate = replace(leaf.public, identity=NEWCOMER.public)
    leaf = replace(leaf, name="more", public=certificate, parent=more.name)
    leaf = replace(leaf, endpoint=Endpoint("127.0.0.1", 40_900))
    text = compose_successor(
        old,
        servers=drafts,
        aggregators=[more, leaf],
        not_before=datetime(2031, 1, 1, tzinfo=UTC),
        not_after=datetime(2032, 1, 1, tzinfo=UTC),
    )
    second = succeed(FIRST, signed(text))
    assert replaced_server(old, second.descriptor) is None
    assert second.committee == FIRST.committee


def _two_servers(old: Descriptor) -> bytes:
    drafts = [NodeDraft.of(node) for node in old.servers]
    for seat, name in ((0, "a"), (1, "b")):
        public = replace(drafts[seat].public, identity=make_identity(name).public)
        drafts[seat] = replace(drafts[seat], public=public, since=2)
    return compose_successor(old, servers=drafts)


def _swap(old: Descriptor) -> bytes:
    drafts = [NodeDraft.of(node) for node in old.servers]
    drafts[0], drafts[1] = drafts[1], drafts[0]
    return compose_successor(old, servers=[replace(d, since=2) for d in drafts[:2]] + drafts[2:])


def _unsaid(old: Descriptor) -> bytes:
    return replacing(old, 1, NEWCOMER).replace(b"since = 2\n", b"")


def _said_of_another(old: Descriptor) -> bytes:
    drafts = [replace(NodeDraft.of(node), since=2) for node in old.servers]
    return compose_successor(old, servers=drafts)


def _renamed(old: Descriptor) -> bytes:
    drafts = [NodeDraft.of(node) for node in old.servers]
    return compose_successor(old, servers=[replace(drafts[0], name="s9"), *drafts[1:]])


def _word(before: bytes, after: bytes) -> Callable[[Descriptor], bytes]:
    def change(old: Descriptor) -> bytes:
        text = replacing(old, 1, NEWCOMER)
        assert before in text
        return text.replace(before, after, 1)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_two_servers, "more than one"),
        (_swap, "more than one"),
        (_unsaid, "since when"),
        (_said_of_another, "since when"),
        (_renamed, "name"),
        (_word(b"version = 2", b"version = 3"), "does not follow"),
        (_word(b"max_absent = 0", b"max_absent = 1"), "no version may"),
        (_word(b"round_period_ms = ", b"round_period_ms = 1"), "no version may"),
        (_word(b"num_slots = 8", b"num_slots = 9"), "another group"),
        (_word(b'previous = "', b'previous = "00'), "no version to follow"),
    ],
)
def test_what_no_version_may_change_is_refused(
    change: Callable[[Descriptor], bytes], said: str
) -> None:
    text = change(FIRST.descriptor)
    file = text if b'previous = "00' in text else signed(text)  # that one does not even parse
    with pytest.raises(VerificationError, match=said):
        succeed(FIRST, file)


def test_since_names_a_version_there_was_and_a_seat() -> None:
    founding = FIRST.descriptor.signed_bytes
    seat = founding.replace(b'name = "s1"\n', b'name = "s1"\nsince = 1\n', 1)
    with pytest.raises(ConfigError, match="no version there was"):
        parse_descriptor(seat)  # nobody came to a first version
    later = replacing(FIRST.descriptor, 1, NEWCOMER)
    with pytest.raises(ConfigError, match="no version there was"):
        parse_descriptor(later.replace(b"since = 2", b"since = 3"))
    with pytest.raises(ConfigError, match="no seat"):
        parse_descriptor(later.replace(b'name = "root"\n', b'name = "root"\nsince = 2\n', 1))


def test_only_the_version_it_names_is_followed() -> None:
    other = HarnessCommittee(seed=2)
    text = replacing(FIRST.descriptor, 1, NEWCOMER)
    changed = text.replace(
        FIRST.descriptor.digest.hex().encode(), other.descriptor.group.hex().encode()
    )
    with pytest.raises(VerificationError, match="another version"):
        succeed(FIRST, signed(changed))


def test_an_unsigned_altered_or_foreign_version_is_refused() -> None:
    text = replacing(FIRST.descriptor, 1, NEWCOMER)
    with pytest.raises(VerificationError, match="not signed"):
        succeed(FIRST, text)
    file = signed(text)
    with pytest.raises(VerificationError, match="altered"):
        succeed(FIRST, file.replace(b'name = "s2"', b'name = "s9"'))
    stranger = make_identity("stranger")
    foreign = compose_successor(FIRST.descriptor, operator=stranger.public)
    with pytest.raises(VerificationError, match="another operator"):
        succeed(FIRST, sign_descriptor(foreign, stranger))


@pytest.mark.requirement("H3")
def test_the_operators_key_is_handed_over_by_the_one_before() -> None:
    successor = make_identity("operator-2")
    text = compose_successor(FIRST.descriptor, operator=successor.public)
    second = succeed(FIRST, hand_over(text, OPERATOR, successor))
    assert second.descriptor.operator == successor.public
    # Handed over by anybody else, it is not.
    with pytest.raises(VerificationError):
        succeed(FIRST, hand_over(text, make_identity("stranger"), successor))
    # The old key signs no later version.
    again = compose_successor(second.descriptor, operator=OPERATOR.public)
    with pytest.raises(VerificationError, match="another operator"):
        succeed(second, sign_descriptor(again, OPERATOR))


@pytest.mark.requirement("H3")
def test_the_key_before_may_revoke_until_the_version_after_that() -> None:
    successor = make_identity("operator-2")
    text = compose_successor(FIRST.descriptor, operator=successor.public)
    second = succeed(FIRST, hand_over(text, OPERATOR, successor))
    later = datetime(2090, 1, 1, tzinfo=UTC) + timedelta(days=1)
    text = compose_successor(second.descriptor, not_after=later)
    third = succeed(second, sign_descriptor(text, successor))
    peer = PeerId(b"p" * 32)
    for signer in (OPERATOR, successor):
        statement = sign_revocation(FIRST.group, RevokedKind.PEER, peer, AT, signer)
        assert open_by_operators(statement, second).target == peer
    old = sign_revocation(FIRST.group, RevokedKind.PEER, peer, AT, OPERATOR)
    with pytest.raises(VerificationError):
        open_by_operators(old, third)
    assert open_by_operators(old, third, ever=True).target == peer


def test_whoever_has_the_newest_version_takes_the_older_ones_from_anybody() -> None:
    second = successor_of(FIRST, 1, NEWCOMER, OPERATOR)
    third = successor_of(second, 0, make_identity("third"), OPERATOR)
    alone = replace(third, earlier=())
    files = [item.descriptor.file for item in third.earlier]
    assert link_earlier(alone, files) == third
    assert link_earlier(alone, []) is alone
    assert link_earlier(alone, files[1:]).at(2).committee == second.committee
    with pytest.raises(VerificationError):
        link_earlier(alone, files[:1])
    forged = successor_of(FIRST, 1, make_identity("forged"), OPERATOR)
    with pytest.raises(VerificationError):
        link_earlier(alone, [files[0], forged.descriptor.file])


def test_a_record_is_verified_with_the_version_of_its_round() -> None:
    record = test_record.signed(test_record.content_for(STRICT), by=STRICT)
    first = STRICT.descriptor
    second = successor_of(first, 1, NEWCOMER, STRICT.operator)
    assert verify_record(record, second).hash == verify_record(record, first).hash
    with pytest.raises(VerificationError, match="not known"):
        verify_record(record, replace(second, earlier=()))
    # Signed by the servers before, it is none of a round held under the later version.
    later = test_record.signed(
        test_record.content_for(STRICT, descriptor_version=2), servers=(0, 1, 2), by=STRICT
    )
    with pytest.raises(VerificationError):
        verify_record(later, second)

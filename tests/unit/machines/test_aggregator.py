"""The aggregator's machine by hand: what counts, what is refused and why, when folding ends."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.harness.aggregators import FOLD_S, TREE, Node, World, xor
from tests.harness.committee import make_identity
from tests.harness.publishers import HarnessPublisher
from zipnet.machines.aggregator import MAX_ATTEMPTS, fold_deadline_s
from zipnet.machines.aggregator_effects import (
    ArmTimer,
    PeerGone,
    PeerHere,
    RoundOver,
    SendAggregate,
)
from zipnet.protocol.envelope import Envelope, seal_envelope
from zipnet.protocol.ids import Digest, PeerId, RegistryIndex, RoundNumber
from zipnet.protocol.participants import Participants

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.protocol.aggregate import Aggregate
    from zipnet.protocol.header import SignedHeader


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def leaf(world: World) -> Node:
    return Node(world.committee, "leaf-a")


@pytest.fixture
def root(world: World) -> Node:
    return Node(world.committee, "root")


# -- envelopes -----------------------------------------------------------------------------------


def test_the_sum_is_the_xor_of_exactly_what_was_accepted(world: World, leaf: Node) -> None:
    leaf.feed(PeerHere(world.peer(3)))  # is here, and never sends
    signed = leaf.open()
    bodies = [world.body() for _ in range(3)]
    for number, body in enumerate(bodies):
        assert leaf.envelope(world.peer(number), world.seal(signed, number, body)) == "accepted"
    leaf.wait(FOLD_S)
    (aggregate,) = leaf.sent()
    assert aggregate.body == xor(*bodies)
    assert list(aggregate.participants) == world.index[:3]
    assert (aggregate.round, aggregate.header_hash) == (signed.header.round, signed.header.hash)


def test_a_byte_identical_copy_is_accepted_and_folded_once(world: World, leaf: Node) -> None:
    signed = leaf.open()
    envelope = world.seal(signed, 0)
    assert leaf.envelope(world.peer(0), envelope) == "accepted"
    assert leaf.envelope(world.peer(0), envelope) == "accepted"
    leaf.wait(FOLD_S)
    assert leaf.sent()[0].body == envelope.body
    assert leaf.envelope(world.peer(0), envelope) == "accepted"  # also after folding ended
    assert len(leaf.sent()) == 1


def test_a_second_different_envelope_of_a_client_is_refused(world: World, leaf: Node) -> None:
    signed = leaf.open()
    first, second = world.seal(signed, 0), world.seal(signed, 0)
    assert leaf.envelope(world.peer(0), first) == "accepted"
    assert leaf.envelope(world.peer(0), second) == "duplicate_envelope"
    leaf.wait(FOLD_S)
    assert leaf.sent()[0].body == first.body


def _flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


BAD_ENVELOPES: dict[str, tuple[Callable[[World, SignedHeader], tuple[PeerId, Envelope]], str]] = {
    "a bad signature": (
        lambda w, s: (
            w.peer(0),
            dataclasses.replace(e := w.seal(s, 0), signature=_flip(e.signature)),
        ),
        "bad_signature",
    ),
    "a changed body": (
        lambda w, s: (w.peer(0), dataclasses.replace(e := w.seal(s, 0), body=_flip(e.body))),
        "bad_signature",
    ),
    "somebody else's index": (lambda w, s: (w.peer(0), w.seal(s, 1)), "wrong_sender"),
    "somebody else's envelope under one's own index": (
        lambda w, s: (w.peer(0), dataclasses.replace(w.seal(s, 1), sender=w.index[0])),
        "bad_signature",
    ),
    "an index that was never given": (
        lambda w, s: (w.peer(0), dataclasses.replace(w.seal(s, 0), sender=RegistryIndex(77))),
        "not_registered",
    ),
    "another header of the round": (
        lambda w, s: (
            w.peer(0),
            dataclasses.replace(w.seal(s, 0), header_hash=Digest(bytes(32))),
        ),
        "malformed_envelope",
    ),
    "a body too short": (
        lambda w, s: (w.peer(0), dataclasses.replace(e := w.seal(s, 0), body=e.body[:-1])),
        "malformed_envelope",
    ),
    "a later round": (
        lambda w, s: (
            w.peer(0),
            dataclasses.replace(w.seal(s, 0), round=RoundNumber(s.header.round + 1)),
        ),
        "round_not_open",
    ),
    "an earlier round": (
        lambda w, s: (
            w.peer(0),
            dataclasses.replace(w.seal(s, 0), round=RoundNumber(s.header.round - 1)),
        ),
        "round_closed",
    ),
}


@pytest.mark.parametrize("title", BAD_ENVELOPES)
def test_an_envelope_that_breaks_a_rule_is_refused_and_folds_nothing(
    title: str, world: World, leaf: Node
) -> None:
    make, reason = BAD_ENVELOPES[title]
    world.committee.open_round()
    signed = leaf.open(world.committee.open_round())
    source, envelope = make(world, signed)
    assert leaf.envelope(source, envelope) == reason
    good = world.seal(signed, 0)
    assert leaf.envelope(world.peer(0), good) == "accepted"
    leaf.wait(FOLD_S)
    assert leaf.sent()[0].body == good.body


def test_a_client_counts_only_from_its_first_round(world: World, leaf: Node) -> None:
    signed = leaf.open()
    late = HarnessPublisher(world.committee, "late")
    accepted = late.register()
    envelope = seal_envelope(signed.header, accepted.index, world.body(), late.identity)
    assert leaf.envelope(late.identity.peer_id, envelope) == "not_registered"
    signed = leaf.open()
    envelope = seal_envelope(signed.header, accepted.index, world.body(), late.identity)
    assert leaf.envelope(late.identity.peer_id, envelope) == "accepted"


def test_a_peer_has_a_bounded_number_of_tries_in_a_round(world: World, leaf: Node) -> None:
    signed = leaf.open()
    wrong = world.seal(signed, 1)
    answers = [leaf.envelope(world.peer(0), wrong) for _ in range(MAX_ATTEMPTS + 2)]
    assert answers == ["wrong_sender"] * MAX_ATTEMPTS + ["quota_exceeded"] * 2
    assert leaf.envelope(world.peer(1), wrong) == "accepted"
    assert leaf.envelope(world.peer(0), world.seal(leaf.open(), 0)) == "accepted"


def test_late_envelopes_are_refused(world: World, leaf: Node) -> None:
    signed = leaf.open()
    assert leaf.envelope(world.peer(0), world.seal(signed, 0)) == "accepted"
    leaf.wait(FOLD_S)
    assert leaf.envelope(world.peer(1), world.seal(signed, 1)) == "round_closed"
    assert len(leaf.sent()) == 1


# -- the end of folding --------------------------------------------------------------------------


def test_folding_ends_when_everyone_who_is_here_has_sent(world: World, leaf: Node) -> None:
    for number in (0, 1):
        leaf.feed(PeerHere(world.peer(number)))
    leaf.feed(PeerHere(make_identity("a stranger").peer_id))
    signed = leaf.open()
    assert leaf.envelope(world.peer(0), world.seal(signed, 0)) == "accepted"
    assert leaf.sent() == []
    assert leaf.envelope(world.peer(1), world.seal(signed, 1)) == "accepted"
    assert len(leaf.sent()[0].participants) == 2


def test_folding_waits_for_nobody_who_left(world: World, leaf: Node) -> None:
    for number in (0, 1):
        leaf.feed(PeerHere(world.peer(number)))
    signed = leaf.open()
    leaf.envelope(world.peer(0), world.seal(signed, 0))
    assert leaf.sent() == []
    leaf.feed(PeerGone(world.peer(1)))
    assert len(leaf.sent()) == 1


def test_who_comes_while_folding_is_waited_for(world: World, leaf: Node) -> None:
    leaf.feed(PeerHere(world.peer(0)))
    signed = leaf.open()
    leaf.feed(PeerHere(world.peer(1)))
    leaf.envelope(world.peer(0), world.seal(signed, 0))
    assert leaf.sent() == []
    leaf.envelope(world.peer(1), world.seal(signed, 1))
    assert len(leaf.sent()) == 1


def test_one_of_two_sessions_of_a_client_ending_changes_nothing(world: World, leaf: Node) -> None:
    for _ in range(2):
        leaf.feed(PeerHere(world.peer(1)))
    leaf.feed(PeerHere(world.peer(0)))
    signed = leaf.open()
    leaf.feed(PeerGone(world.peer(1)))
    leaf.envelope(world.peer(0), world.seal(signed, 0))
    assert leaf.sent() == []


def test_folding_ends_at_the_deadline_with_whoever_sent(world: World, leaf: Node) -> None:
    for number in (0, 1):
        leaf.feed(PeerHere(world.peer(number)))
    signed = leaf.open()
    leaf.envelope(world.peer(0), world.seal(signed, 0))
    deadline_s = fold_deadline_s(
        world.committee.descriptor, "leaf-a", world.committee.descriptor.descriptor.cadence
    )
    leaf.wait(deadline_s - 0.001)
    assert leaf.sent() == []
    leaf.wait(0.002)
    assert list(leaf.sent()[0].participants) == [world.index[0]]


def test_with_nobody_to_wait_for_an_empty_aggregate_goes_up_early(leaf: Node) -> None:
    leaf.open()
    leaf.wait(FOLD_S / 3 / 4 + 0.001)
    (aggregate,) = leaf.sent()
    assert len(aggregate.participants) == 0
    assert aggregate.body == bytes(len(aggregate.body))


def test_deadlines_grow_with_height(world: World) -> None:
    cadence = world.committee.descriptor.descriptor.cadence
    found = {name: fold_deadline_s(world.committee.descriptor, name, cadence) for name in TREE}
    assert found == pytest.approx(
        {"leaf-a": FOLD_S / 3, "leaf-b": FOLD_S / 3, "mid": FOLD_S * 2 / 3, "root": FOLD_S}
    )


def test_timers_are_armed_for_both_deadlines(leaf: Node) -> None:
    leaf.open()
    armed = sorted(e.at - leaf.now for e in leaf.effects if isinstance(e, ArmTimer))
    assert armed[:2] == pytest.approx([FOLD_S / 3 / 4, FOLD_S / 3])


def test_a_round_that_is_over_is_folded_no_further(world: World, leaf: Node) -> None:
    leaf.feed(PeerHere(world.peer(1)))
    signed = leaf.open()
    leaf.envelope(world.peer(0), world.seal(signed, 0))
    leaf.feed(RoundOver(signed.header.round))
    assert leaf.envelope(world.peer(1), world.seal(signed, 1)) == "round_closed"
    leaf.wait(FOLD_S)
    assert leaf.sent() == []


def test_an_abort_of_an_unknown_round_proves_nothing(world: World, leaf: Node) -> None:
    leaf.feed(RoundOver(RoundNumber(1 << 60)))
    signed = leaf.open()
    leaf.feed(RoundOver(RoundNumber(signed.header.round + 5)))
    assert leaf.envelope(world.peer(0), world.seal(signed, 0)) == "accepted"


# -- children ------------------------------------------------------------------------------------


def test_children_and_own_clients_are_folded_together(world: World, root: Node) -> None:
    mid, leaf_b = (world.committee.aggregators[n].peer_id for n in ("mid", "leaf-b"))
    for peer in (mid, leaf_b, world.peer(3)):
        root.feed(PeerHere(peer))
    signed = root.open()
    a, b, c = world.body(), world.body(), world.body()
    assert root.child(mid, world.aggregate(signed, [0, 1], a)) == "accepted"
    assert root.envelope(world.peer(3), world.seal(signed, 3, b)) == "accepted"
    assert root.sent() == []
    assert root.child(leaf_b, world.aggregate(signed, [2], c)) == "accepted"
    (aggregate,) = root.sent()
    assert aggregate.body == xor(a, b, c)
    assert list(aggregate.participants) == sorted(world.index)
    (effect,) = [e for e in root.effects if isinstance(e, SendAggregate)]
    assert (effect.count, effect.own) == (4, 1)


BAD_CHILDREN: dict[str, tuple[str, Callable[[World, SignedHeader], Aggregate], str]] = {
    "a leaf of another parent": (
        "leaf-a",
        lambda w, s: w.aggregate(s, [2], w.body()),
        "not_a_child",
    ),
    "this node itself": ("root", lambda w, s: w.aggregate(s, [2], w.body()), "not_a_child"),
    "an overlap with an own client": (
        "mid",
        lambda w, s: w.aggregate(s, [0, 2], w.body()),
        "overlapping_participants",
    ),
    "an overlap with another child": (
        "mid",
        lambda w, s: w.aggregate(s, [1, 2], w.body()),
        "overlapping_participants",
    ),
    "somebody who is not registered": (
        "mid",
        lambda w, s: dataclasses.replace(
            w.aggregate(s, [2], w.body()), participants=Participants([RegistryIndex(50)])
        ),
        "not_registered",
    ),
    "another header": (
        "mid",
        lambda w, s: dataclasses.replace(
            w.aggregate(s, [2], w.body()), header_hash=Digest(bytes(32))
        ),
        "other_header",
    ),
    "a later round": (
        "mid",
        lambda w, s: dataclasses.replace(
            w.aggregate(s, [2], w.body()), round=RoundNumber(s.header.round + 1)
        ),
        "round_not_open",
    ),
    "a second aggregate of a child": (
        "leaf-b",
        lambda w, s: w.aggregate(s, [2], w.body()),
        "duplicate_aggregate",
    ),
}


@pytest.mark.parametrize("title", BAD_CHILDREN)
def test_an_aggregate_that_breaks_a_rule_is_refused_and_folds_nothing(
    title: str, world: World, root: Node
) -> None:
    name, make, reason = BAD_CHILDREN[title]
    root.feed(PeerHere(world.peer(3)))  # is here, and never sends
    signed = root.open()
    own, other = world.body(), world.body()
    assert root.envelope(world.peer(0), world.seal(signed, 0, own)) == "accepted"
    leaf_b = world.committee.aggregators["leaf-b"].peer_id
    assert root.child(leaf_b, world.aggregate(signed, [1], other)) == "accepted"
    source = world.committee.aggregators[name].peer_id
    assert root.child(source, make(world, signed)) == reason
    root.wait(FOLD_S)
    assert root.sent()[0].body == xor(own, other)
    assert list(root.sent()[0].participants) == world.index[:2]


def test_a_copy_of_a_childs_aggregate_is_accepted_and_folded_once(world: World, root: Node) -> None:
    signed = root.open()
    mid = world.committee.aggregators["mid"].peer_id
    aggregate = world.aggregate(signed, [0, 1], world.body())
    assert root.child(mid, aggregate) == "accepted"
    assert root.child(mid, aggregate) == "accepted"
    root.wait(FOLD_S)
    assert root.sent()[0].body == aggregate.body
    assert root.child(mid, aggregate) == "accepted"
    leaf_b = world.committee.aggregators["leaf-b"].peer_id
    assert root.child(leaf_b, world.aggregate(signed, [2], world.body())) == "round_closed"


def test_a_client_a_child_has_folded_is_not_folded_again(world: World, root: Node) -> None:
    root.feed(PeerHere(world.peer(0)))
    signed = root.open()
    mid = world.committee.aggregators["mid"].peer_id
    assert root.child(mid, world.aggregate(signed, [0, 1], world.body())) == "accepted"
    assert len(root.sent()) == 1  # nor waited for
    assert root.envelope(world.peer(0), world.seal(signed, 0)) == "duplicate_envelope"

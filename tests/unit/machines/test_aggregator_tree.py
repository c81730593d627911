"""Trees of aggregator machines: whatever the order, the root holds the XOR of what was accepted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.aggregators import FOLD_S, Node, World, xor
from zipnet.machines.aggregator_effects import HeaderReceived, PeerHere, SendAggregate, TimerFired
from zipnet.machines.fold import Fold
from zipnet.protocol.aggregate import Aggregate, decode_aggregate

if TYPE_CHECKING:
    import pytest

    from zipnet.protocol.header import SignedHeader
    from zipnet.protocol.ids import RegistryIndex
    from zipnet.protocol.participants import Participants

PARENT = {"leaf-a": "mid", "mid": "root", "leaf-b": "root"}
_WORLD = World()  # registrations are slow; every example opens rounds of its own


@dataclass
class Tree:
    """All four nodes, and what their clients were told."""

    world: World = field(default_factory=lambda: _WORLD)
    accepted: dict[RegistryIndex, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = {n: Node(self.world.committee, n) for n in ("root", "mid", "leaf-a", "leaf-b")}
        for child, parent in PARENT.items():
            self.nodes[parent].feed(PeerHere(self.nodes[child].peer))
        self.delivered: set[str] = set()

    def open(self) -> SignedHeader:
        signed = self.world.committee.open_round()
        for node in self.nodes.values():
            node.feed(HeaderReceived(signed))
            node.know_registry()
        return signed

    def send_up(self, name: str) -> None:
        """Deliver what a node wants sent, if it does; twice, as a lost answer would have it."""
        node = self.nodes[name]
        for effect in [e for e in node.effects if isinstance(e, SendAggregate)]:
            parent = self.nodes[PARENT[name]]
            _, aggregate = decode_aggregate(effect.blob, self.world.committee.params)
            first, second = (parent.child(node.peer, aggregate) for _ in range(2))
            assert first == second
            if first == "accepted":
                self.delivered.add(name)

    def way_up(self, name: str) -> bool:
        """Whether what a node folded reached the root."""
        return name == "root" or (name in self.delivered and self.way_up(PARENT[name]))

    def root_aggregate(self) -> Aggregate:
        (aggregate,) = self.nodes["root"].sent()
        return aggregate


def test_a_tree_of_depth_three_folds_everybody_without_waiting_for_deadlines() -> None:
    tree = Tree()
    places = ("leaf-a", "leaf-a", "mid", "leaf-b")
    for number, name in enumerate(places):
        tree.nodes[name].feed(PeerHere(tree.world.peer(number)))
    signed = tree.open()
    bodies = [tree.world.body() for _ in places]
    for number, name in enumerate(places):
        envelope = tree.world.seal(signed, number, bodies[number])
        assert tree.nodes[name].envelope(tree.world.peer(number), envelope) == "accepted"
    for name in ("leaf-a", "mid", "leaf-b"):
        tree.send_up(name)
    assert tree.root_aggregate().body == xor(*bodies)
    assert list(tree.root_aggregate().participants) == sorted(tree.world.index)


def test_a_silent_subtree_costs_its_own_clients_only() -> None:
    tree = Tree()
    for number, name in enumerate(("leaf-a", "leaf-b")):
        tree.nodes[name].feed(PeerHere(tree.world.peer(number)))
    signed = tree.open()
    envelopes = [tree.world.seal(signed, number) for number in (0, 1)]
    for envelope, number, name in zip(envelopes, (0, 1), ("leaf-a", "leaf-b"), strict=True):
        tree.nodes[name].envelope(tree.world.peer(number), envelope)
    tree.send_up("leaf-b")  # leaf-a's parent never hears of it
    root = tree.nodes["root"]
    root.wait(FOLD_S)
    assert tree.root_aggregate().body == envelopes[1].body


def _play(tree: Tree, seed: int) -> None:
    """One round in a random order, with copies, second tries, forgeries and deadlines in it."""
    draw = Random(seed)
    world = tree.world
    for number in range(4):
        tree.nodes[draw.choice(list(tree.nodes))].feed(PeerHere(world.peer(number)))
    signed = tree.open()
    home = {number: draw.choice(list(tree.nodes)) for number in range(4)}
    told: dict[int, list[tuple[bytes, str]]] = {number: [] for number in range(4)}
    envelopes = {number: [world.seal(signed, number) for _ in range(2)] for number in range(4)}
    steps = [("envelope", n, c) for n in range(4) for c in (0, 0, 1)]
    steps += [("forge", n, 0) for n in range(4)]
    steps += [("tick", n, 0) for n in range(3)] + [("up", n, 0) for n in range(6)]
    draw.shuffle(steps)
    for what, number, which in steps:
        envelope = envelopes[number % 4][which]
        node = tree.nodes[home[number % 4]]
        if what == "envelope":
            answer = node.envelope(world.peer(number), envelope)
            told[number].append((envelope.body, answer))
        elif what == "forge":
            forged = dataclasses.replace(envelope, body=world.body())
            assert node.envelope(world.peer(number), forged) != "accepted"
        elif what == "tick":
            ticking = tree.nodes[draw.choice(list(tree.nodes))]
            ticking.now += FOLD_S / 5
            ticking.feed(TimerFired())
        else:
            for name in PARENT:
                tree.send_up(name)
    _finish(tree)
    _check(tree, told, home)


def _finish(tree: Tree) -> None:
    for name in ("leaf-a", "leaf-b", "mid"):
        tree.nodes[name].wait(FOLD_S)
        tree.send_up(name)
    tree.nodes["root"].wait(FOLD_S)


def _check(tree: Tree, told: dict[int, list[tuple[bytes, str]]], home: dict[int, str]) -> None:
    world = tree.world
    expected: dict[int, bytes] = {}
    for number, answers in told.items():
        bodies = {body for body, answer in answers if answer == "accepted"}
        assert len(bodies) <= 1, "two envelopes of one client were accepted"
        if bodies and tree.way_up(home[number]):
            expected[world.index[number]] = bodies.pop()
    aggregate = tree.root_aggregate()
    assert sorted(aggregate.participants) == sorted(expected)
    zeros = bytes(world.committee.params.body_bytes)
    assert aggregate.body == xor(zeros, *expected.values())


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=60)
def test_in_any_order_the_root_holds_the_xor_of_exactly_what_was_accepted(seed: int) -> None:
    _play(Tree(), seed)


def test_a_fold_that_forgets_whom_it_holds_fails_the_property(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mutant: copies are folded again and cancel out; some order must show it."""

    def add_unchecked(fold: Fold, _added: Participants, body: bytes) -> None:
        fold._sums = np.bitwise_xor(fold._sums, np.frombuffer(body, dtype=np.uint8))

    monkeypatch.setattr(Fold, "envelope_of", lambda _self, _sender: None)
    monkeypatch.setattr(Fold, "_add", add_unchecked)
    failed = 0
    for seed in range(10):
        try:
            _play(Tree(), seed)
        except AssertionError:
            failed += 1
    assert failed > 0

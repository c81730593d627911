"""Putting messages together: in any order, past a jammer, within every bound."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from zipnet.protocol import slots as module
from zipnet.protocol.ids import RoundNumber
from zipnet.protocol.params import RoundParams
from zipnet.protocol.slots import Fragment, Reassembler, fragment_message

PARAMS = RoundParams(slot_bytes=64)
MESSAGE = bytes(range(100))


def salt(size: int) -> bytes:
    return b"\7" * size


def fragments_of(message: bytes, number: int = 7) -> list[Fragment]:
    return fragment_message(message, PARAMS, lambda size: bytes([number]) * size)


def offer_all(
    reassembler: Reassembler, fragments: list[Fragment], *, first_round: int = 1
) -> list[bytes]:
    offered = [
        reassembler.offer(RoundNumber(first_round + i), fragment)
        for i, fragment in enumerate(fragments)
    ]
    return [message for message in offered if message is not None]


def forged(fragment: Fragment, mark: int = 0xEE) -> Fragment:
    return replace(fragment, payload=bytes([mark]) * len(fragment.payload))


def test_fragments_in_any_order_and_doubled_give_the_message_once() -> None:
    seed = 20_261_120
    print(f"seed {seed}")
    generator = random.Random(seed)
    for _ in range(50):
        fragments = fragments_of(MESSAGE) * 2
        generator.shuffle(fragments)
        reassembler = Reassembler()
        assert offer_all(reassembler, fragments) == [MESSAGE]
        assert (reassembler.incomplete, reassembler.kept_bytes) == (0, 0)


@pytest.mark.parametrize("jammed", [(0,), (4,), (0, 2), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("order", ["before", "after"])
def test_one_forged_fragment_per_position_does_not_stop_the_message(
    jammed: tuple[int, ...], order: str
) -> None:
    offered: list[Fragment] = []
    for fragment in fragments_of(MESSAGE):
        pair = [fragment]
        if fragment.index in jammed:
            pair.insert(0 if order == "before" else 1, forged(fragment))
        offered += pair
    assert offer_all(Reassembler(), offered) == [MESSAGE]


def test_forged_message_under_anothers_id_is_never_returned() -> None:
    fragments = [forged(fragment) for fragment in fragments_of(MESSAGE)]
    reassembler = Reassembler()
    assert offer_all(reassembler, fragments) == []
    assert reassembler.incomplete == 1


def test_mutant_that_trusts_the_id_would_return_the_forgery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fragments = [forged(fragment) for fragment in fragments_of(MESSAGE)]
    monkeypatch.setattr(module, "message_id_of", lambda payload: fragments[0].message_id)
    assert offer_all(Reassembler(), fragments) == [b"\xee" * len(MESSAGE)]


def test_forged_count_under_anothers_id_does_not_stop_the_message() -> None:
    fragments = fragments_of(MESSAGE)
    lie = replace(fragments[0], count=9)
    reassembler = Reassembler()
    assert offer_all(reassembler, [lie, *fragments]) == [MESSAGE]
    assert (reassembler.incomplete, reassembler.kept_bytes) == (0, 0)


def test_a_third_variant_is_not_kept() -> None:
    reassembler = Reassembler()
    first = fragments_of(MESSAGE)[0]
    sizes = []
    for mark in (1, 2, 3, 4):
        reassembler.offer(RoundNumber(1), forged(first, mark))
        sizes.append(reassembler.kept_bytes)
    assert sizes[0] < sizes[1] == sizes[2] == sizes[3]


def test_attempts_against_one_id_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0
    real = module.message_id_of

    def counting(payload: bytes) -> bytes:
        nonlocal attempts
        attempts += 1
        return real(payload)

    monkeypatch.setattr(module, "message_id_of", counting)
    fragments = fragments_of(bytes(26 * 40))
    assert len(fragments) > 40
    attempts = 0
    reassembler = Reassembler()
    offered = [forged(f, mark) for f in fragments for mark in (1, 2)]
    offer_all(reassembler, offered)
    # Complete only from the last position's two variants on: two offers, each within the bound.
    assert 0 < attempts <= 2 * 256


def test_incomplete_message_is_given_up_after_its_age_and_reported() -> None:
    reassembler = Reassembler(max_age_rounds=10)
    first, *rest = fragments_of(MESSAGE)
    reassembler.offer(RoundNumber(1), first)
    reassembler.offer(RoundNumber(10), rest[0])
    assert reassembler.incomplete == 1
    assert reassembler.offer(RoundNumber(11), rest[1]) is None
    (evicted,) = reassembler.take_evicted()
    assert (evicted.message_id, evicted.received, evicted.count, evicted.reason) == (
        first.message_id,
        2,
        5,
        "age",
    )
    assert reassembler.take_evicted() == []


def test_too_many_messages_push_out_the_oldest() -> None:
    reassembler = Reassembler(max_messages=3)
    starts = [fragments_of(MESSAGE, number)[0] for number in range(5)]
    offer_all(reassembler, starts)
    assert reassembler.incomplete == 3
    evicted = reassembler.take_evicted()
    assert [item.message_id for item in evicted] == [f.message_id for f in starts[:2]]
    assert {item.reason for item in evicted} == {"messages"}


def test_too_many_bytes_push_out_the_oldest() -> None:
    reassembler = Reassembler(max_bytes=4 * (26 + 64))
    for number in range(4):
        offer_all(reassembler, fragments_of(MESSAGE, number)[:2])
        assert reassembler.kept_bytes <= 4 * (26 + 64)
    assert {item.reason for item in reassembler.take_evicted()} == {"bytes"}
    assert reassembler.incomplete == 2


def test_reports_and_memory_of_finished_messages_are_bounded() -> None:
    reassembler = Reassembler(max_messages=2)
    for number in range(20):
        offer_all(reassembler, fragments_of(MESSAGE, number)[:1])
    assert len(reassembler.take_evicted()) == 2
    for number in range(20):
        (fragment,) = fragments_of(b"x", number)
        assert reassembler.offer(RoundNumber(30), fragment) == b"x"
    assert len(reassembler._done) == 8


def test_finished_message_is_not_returned_again() -> None:
    (fragment,) = fragments_of(b"once")
    reassembler = Reassembler()
    assert reassembler.offer(RoundNumber(1), fragment) == b"once"
    assert reassembler.offer(RoundNumber(2), fragment) is None

from __future__ import annotations

import msgspec
import pytest

import zipnet
from zipnet.errors import ConfigError, LocalProtocolError
from zipnet.protocol.ids import MessageId, RoundNumber, SlotIndex


class Vote(msgspec.Struct, frozen=True):
    ballot: str
    choice: str


def _message(payload: bytes) -> zipnet.Message:
    return zipnet.Message(RoundNumber(1), 0, (SlotIndex(0),), MessageId(bytes(16)), payload)


def test_every_message_of_a_channel_has_one_width() -> None:
    votes = zipnet.Channel.json("acme.votes", Vote, width=96)
    packed = [votes.pack(Vote("Q7", choice)) for choice in ("yes", "no", "with a long reason" * 2)]
    assert {len(one) for one in packed} == {96}
    received = [votes.unpack(_message(one)) for one in packed]
    assert [r.value.choice for r in received if r is not None][:2] == ["yes", "no"]


def test_a_value_that_does_not_fit_is_refused_before_anything_is_sent() -> None:
    notes = zipnet.Channel.text("notes", width=32)
    assert len(notes.pack("x" * 20)) == 32
    with pytest.raises(LocalProtocolError, match="has room for 20"):
        notes.pack("x" * 21)


def test_channels_do_not_see_each_other_and_malformed_messages_are_told() -> None:
    malformed: list[zipnet.Message] = []
    one = zipnet.Channel[str](
        "one", encode=str.encode, decode=bytes.decode, width=32, on_malformed=malformed.append
    )
    other = zipnet.Channel.text("other", width=32)
    assert other.unpack(_message(one.pack("hi"))) is None
    good = one.pack("hi")
    for bad in (
        good + b"\0",
        good[:-1],
        good[:-1] + b"x",
        good[:8] + b"\xff\xff\xff\xff" + good[12:],
        good[:12] + b"\xff\xfe" + good[14:],
        good[:8],
    ):
        assert one.unpack(_message(bad)) is None
    assert len(malformed) == 6
    assert one.unpack(_message(b"")) is None
    assert len(malformed) == 6


@pytest.mark.parametrize(("name", "width"), [("", 64), ("x", 12), ("x", 2 << 20)])
def test_a_channel_out_of_bounds_is_refused(name: str, width: int) -> None:
    with pytest.raises(ConfigError):
        zipnet.Channel.text(name, width=width)


def test_round_profiles_have_the_pace_they_say() -> None:
    assert zipnet.interactive().cadence.round_period_ms == 1000
    assert zipnet.archival().cadence.round_period_ms == 30_000
    assert zipnet.archival().message_bytes_per_s > zipnet.interactive().message_bytes_per_s
    own = zipnet.custom(period_s=5, num_slots=32, slot_bytes=512, min_participants=8)
    assert (own.cadence.round_period_ms, own.params.min_participants) == (5000, 8)
    with pytest.raises(ConfigError):
        zipnet.custom(period_s=5, num_slots=4096, slot_bytes=32_768)

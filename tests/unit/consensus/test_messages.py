"""Messages between engines: what is one, and that nothing else is."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipnet.consensus.members import Members
from zipnet.consensus.messages import (
    MAX_BATCH_ENTRIES,
    MAX_CHUNK_BYTES,
    MAX_COMMAND_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_SNAPSHOT_BYTES,
    AppendEntries,
    AppendReply,
    Entry,
    InstallReply,
    InstallSnapshot,
    Message,
    RequestVote,
    Submit,
    SubmitReply,
    Vote,
    decode_message,
    encode_message,
)
from zipnet.errors import RemoteProtocolError

SAMPLES: dict[str, Message] = {
    "request vote": RequestVote(3, 7, 2),
    "vote": Vote(3),
    "heartbeat": AppendEntries(3, 7, 2, 6, []),
    "entries": AppendEntries(3, 7, 2, 6, [Entry(2, None), Entry(3, b"x" * MAX_COMMAND_BYTES)]),
    "reply": AppendReply(3, 8, success=True),
    "submit": Submit(1 << 60, 3, b"command"),
    "members": AppendEntries(3, 7, 2, 6, [Entry(3, None, Members.founding((7, 8, 9)).encode())]),
    "a piece of a snapshot": InstallSnapshot(3, 7, bytes(32), 100, 40, bytes(60)),
    "what is held of it": InstallReply(3, 7, 100),
    "submit reply": SubmitReply(1 << 60, 0, 8, 3),
}


def packed(*fields: object) -> bytes:
    return b"\x02" + bytes(8) + msgspec.msgpack.encode(fields)


REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "another version": b"\x01" + encode_message(Vote(3), sender=7)[1:],
    "no kind": packed(),
    "unknown kind": packed(9, 3),
    "a kind by name": packed("Vote", 3),
    "a surplus field": packed(2, 3, 4),
    "a missing field": packed(1, 3, 7),
    "trailing bytes": encode_message(Vote(3), sender=7) + b"\x00",
    "a negative term": packed(2, -1),
    "a huge term": packed(2, 1 << 63),
    "a text for a number": packed(2, "3"),
    "index zero": packed(4, 3, 0, True),
    "an oversized command": packed(5, 1, 3, bytes(MAX_COMMAND_BYTES + 1)),
    "a map": b"\x02" + bytes(8) + msgspec.msgpack.encode({"kind": 2, "term": 3}),
    "too many entries": packed(3, 3, 7, 2, 6, [(3, b"")] * (MAX_BATCH_ENTRIES + 1)),
    "entries whose terms go back": packed(3, 3, 7, 2, 6, [(3, b""), (2, b"")]),
    "an entry newer than its leader": packed(3, 3, 7, 2, 6, [(4, b"")]),
    "an entry older than the one before": packed(3, 3, 7, 2, 6, [(1, b"")]),
    "an entry of two kinds": packed(3, 3, 7, 2, 6, [(3, b"", b"")]),
    "a piece that ends behind the snapshot": packed(7, 3, 7, bytes(32), 100, 41, bytes(60)),
    "an empty piece": packed(7, 3, 7, bytes(32), 100, 40, b""),
    "a piece too large": packed(7, 3, 7, bytes(32), 1 << 20, 0, bytes(MAX_CHUNK_BYTES + 1)),
    "a snapshot too large": packed(7, 3, 7, bytes(32), MAX_SNAPSHOT_BYTES + 1, 0, b"x"),
    "a short digest": packed(7, 3, 7, bytes(31), 100, 0, b"x"),
    "too long": b"\x02" + bytes(MAX_MESSAGE_BYTES),
    "a pickle": pickle.dumps({"type": "append_entries", "term": 1}),
    "a pickle with our version byte": b"\x02" + bytes(8) + pickle.dumps(None),
    "deep nesting": b"\x02" + bytes(8) + b"\x91" * 50_000 + b"\xc0",
}


@pytest.mark.parametrize("title", SAMPLES)
def test_what_is_encoded_is_decoded(title: str) -> None:
    assert decode_message(encode_message(SAMPLES[title], sender=1 << 63)) == (
        1 << 63,
        SAMPLES[title],
    )


@pytest.mark.parametrize("title", REFUSED)
def test_anything_else_is_refused(title: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(REFUSED[title])


def test_the_largest_message_an_engine_builds_fits() -> None:
    entries = [Entry((1 << 62) - 1, bytes(240))] * (MAX_BATCH_ENTRIES - 1)
    entries.append(Entry((1 << 62) - 1, bytes(MAX_COMMAND_BYTES)))
    largest = AppendEntries((1 << 62) - 1, (1 << 62) - 1, 1, (1 << 62) - 1, entries)
    assert decode_message(encode_message(largest, sender=7)) == (7, largest)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_value_or_the_one_error(data: bytes) -> None:
    for candidate in (data, b"\x02" + bytes(8) + data):
        try:
            sender, message = decode_message(candidate)
            assert encode_message(message, sender=sender)
        except RemoteProtocolError:
            continue


@pytest.mark.parametrize("change", ["flip", "cut", "insert"])
def test_damaged_messages_end_in_a_value_or_the_one_error(change: str) -> None:
    rng = random.Random(7)
    damage: dict[str, Callable[[bytearray, int], None]] = {
        "flip": lambda data, at: data.__setitem__(at, data[at] ^ (1 << rng.randrange(8))),
        "cut": lambda data, at: data.__delitem__(slice(at, None)),
        "insert": lambda data, at: data.insert(at, rng.randrange(256)),
    }
    for message in list(SAMPLES.values()) * 40:
        data = bytearray(encode_message(message, sender=7))
        damage[change](data, rng.randrange(min(len(data), 40)))
        try:
            decode_message(bytes(data))
        except RemoteProtocolError:
            continue

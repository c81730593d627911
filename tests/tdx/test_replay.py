"""CCEL: parsing, replay against a real quote, and finding the event that differs."""

from __future__ import annotations

import json
import struct
from hashlib import sha384
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdx.errors import ImageError
from tdx.quote import extend_all, parse_quote
from tdx.replay import EventLog, compare_logs, explain, parse_ccel
from tests.tdx import vectors
from tests.tdx.test_cli import run
from tests.tdx.test_fuzz import fuzzed

ACTION = 0x80000007
BLOB = 0x80000008


def header(*, algorithms: tuple[tuple[int, int], ...] = ((0x0C, 48),)) -> bytes:
    listed = b"".join(struct.pack("<HH", *one) for one in algorithms)
    spec = b"Spec ID Event03\0" + bytes(8) + struct.pack("<I", len(algorithms)) + listed + b"\0"
    return struct.pack("<II20sI", 1, 3, bytes(20), len(spec)) + spec


def event(
    register: int, kind: int, data: bytes, digest: bytes | None = None, algorithm: int = 0x0C
) -> bytes:
    value = sha384(data).digest() if digest is None else digest
    body = struct.pack("<III", register, kind, 1) + struct.pack("<H", algorithm) + value
    return body + struct.pack("<I", len(data)) + data


PLAIN = [
    event(1, ACTION, b"one"),
    event(2, ACTION, b"two"),
    event(2, ACTION, b"three"),
    event(2, ACTION, b"four"),
    event(3, 0x0D, b"described", sha384(b"hashed").digest()),
    event(2, 3, b"no action", bytes(48)),
    event(0, ACTION, b"belongs to MRTD"),
]


def log(*events: bytes, tail: bytes = b"\xff" * 9) -> EventLog:
    return parse_ccel(header() + b"".join(events) + tail)


def test_the_log_of_a_real_machine_replays_to_its_quote() -> None:
    real = parse_ccel(vectors.other("ccel/ccel_data.trimmed.dat"))
    rtmr = parse_quote(vectors.quote("gotdx_cos113")).report.rtmr
    assert real.replay() == rtmr
    assert explain(real, rtmr) == []
    assert compare_logs(real, real) == []
    assert real.misdescribed() == ()
    assert len(real.events) == 43


def test_a_change_anywhere_in_the_real_log_is_found_at_its_event() -> None:
    real = parse_ccel(vectors.other("ccel/ccel_data.trimmed.dat"))
    rtmr = parse_quote(vectors.quote("gotdx_cos113")).report.rtmr
    for position in range(len(real.events)):
        events = list(real.events)
        gone = events.pop(position)
        (finding,) = compare_logs(EventLog(tuple(events)), real)
        assert finding.register == gone.register
        assert len(explain(EventLog(tuple(events)), rtmr)) == 1


def test_replay_is_a_chain_of_hashes_per_register() -> None:
    parsed = log(*PLAIN)
    value = bytes(48)
    for data in (b"two", b"three", b"four"):
        value = sha384(value + sha384(data).digest()).digest()
    assert parsed.replay()[1] == value
    assert parsed.replay()[3] == bytes(48)
    assert extend_all([]) == bytes(48)
    assert [one.register for one in parsed.events] == [0, 1, 1, 1, 2, None, None]


TAMPERED = {
    "event left out of the measurement": (
        [PLAIN[1], PLAIN[2], event(2, ACTION, b"extra"), PLAIN[3]],
        "'extra' was never measured",
    ),
    "quote made earlier": (
        [*PLAIN[1:4], event(2, ACTION, b"later")],
        "made before event 3",
    ),
    "digest changed": (
        [PLAIN[1], event(2, ACTION, b"three", bytes(48)), PLAIN[3]],
        "the digest of event 1",
    ),
    "neighbours swapped": ([PLAIN[2], PLAIN[1], PLAIN[3]], "event 0"),
    "beyond explanation": ([event(2, BLOB, b"x")] * 2, "no single change"),
    "misdescribed": (
        [PLAIN[1], event(2, ACTION, b"lie", bytes(48)), event(2, ACTION, b"more")],
        "event 1",
    ),
}


@pytest.mark.parametrize("title", TAMPERED)
def test_the_event_that_differs_is_named(title: str) -> None:
    events, expected = TAMPERED[title]
    (finding,) = explain(log(*events), (bytes(48), log(*PLAIN).replay()[1], bytes(48), bytes(48)))
    assert finding.register == 1
    assert expected in finding.text


def test_a_reference_log_shows_the_first_difference() -> None:
    reference = log(*PLAIN[1:4])
    longer = compare_logs(log(*PLAIN[1:4], event(2, ACTION, b"more")), reference)
    assert ["reference ends before event 3" in one.text for one in longer] == [True]
    shorter = compare_logs(log(*PLAIN[1:3]), reference)
    assert ["ends where the reference has event 2" in one.text for one in shorter] == [True]
    other = compare_logs(log(PLAIN[1], event(2, ACTION, b"3"), PLAIN[3]), reference)
    assert ["event 1" in one.text for one in other] == [True]


def test_text_that_is_not_what_was_hashed_is_pointed_out() -> None:
    parsed = log(event(1, ACTION, b"what it says", sha384(b"what it did").digest()))
    assert [one.number for one in parsed.misdescribed()] == [0]


LOGS_REFUSED = {
    "empty": b"",
    "no specification": b"\0" * 64,
    "cut specification": header()[:40],
    "no SHA-384": header(algorithms=((0x0B, 32),)),
    "no algorithms": header(algorithms=()),
    "register 5": header() + event(5, ACTION, b"x"),
    "digest not announced": header() + event(1, ACTION, b"x", algorithm=0x0B),
    "event cut": header() + PLAIN[0][:-1],
    "event size beyond": header() + PLAIN[0][:-7] + b"\xff\0\0\0",
    "junk after padding": header() + b"\xff" * 8 + b"x",
    "too large": header() + b"\xff" * (4 * 1024 * 1024),
    "no SHA-384 digest": header(algorithms=((0x0C, 48), (0x0B, 32)))
    + event(1, ACTION, b"x", bytes(32), algorithm=0x0B),
    "many digests": header() + struct.pack("<III", 1, ACTION, 9),
}


@pytest.mark.parametrize("title", LOGS_REFUSED)
def test_a_log_that_does_not_parse_is_refused(title: str) -> None:
    with pytest.raises(ImageError):
        parse_ccel(LOGS_REFUSED[title])


def test_padding_may_be_ones_zeros_or_nothing() -> None:
    for tail in (b"", b"\0" * 100, b"\xff" * 100):
        assert len(log(*PLAIN, tail=tail).events) == len(PLAIN)


@fuzzed
@given(data=st.binary(max_size=300), keep=st.integers(0, 400))
def test_damaged_logs_end_in_a_value_or_an_image_error(data: bytes, keep: int) -> None:
    whole = header() + b"".join(PLAIN)
    try:
        parse_ccel(whole[:keep] + data)
    except ImageError:
        return


def test_the_command_replays_compares_and_explains(tmp_path: Path) -> None:
    root = vectors.directory()
    ccel, quote = root / "ccel" / "ccel_data.trimmed.dat", root / "quotes" / "gotdx_cos113.bin"
    done = run("replay", ccel, "--quote", quote, "--reference", ccel, "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["rtmr"] == [value.hex() for value in parse_quote(quote.read_bytes()).report.rtmr]
    assert answer["differences"] == []
    other = root / "quotes" / "dcapqvl_tdx_quote.bin"
    differs = run("replay", ccel, "--quote", other)
    assert differs.returncode == 1
    assert differs.stderr.count(b"differs: rtmr") == 3  # RTMR3 is zero in both
    assert differs.stdout.startswith(b"rtmr0  ")
    broken = tmp_path / "broken"
    broken.write_bytes(b"nothing")
    refused = run("replay", broken)
    assert (refused.returncode, refused.stdout) == (1, b"")

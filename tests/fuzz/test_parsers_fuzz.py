"""Any bytes end in a value or in one of the three errors of outside bytes, whatever parses them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.fuzz_parsers import PARSERS
from tests.vectors.testkit import Case, load_cases
from zipnet.errors import ConfigError, RemoteProtocolError, VerificationError

ROOT = Path(__file__).parents[2]
OUTSIDE = (RemoteProtocolError, VerificationError, ConfigError)
CASES = {case.title: case for case in load_cases()}


def _data(title: str, key: str = "data") -> bytes:
    return CASES[title].data(key)


def _unsigned(title: str) -> bytes:
    # Bytes of one whole, well-formed blob: only the signature does not verify.
    return _data(f"{title}-bytes.not-signed")


GOOD: dict[str, bytes] = {
    "header": _data("header.ordinary", "encoded"),
    "signed header": _data("header.ordinary", "signed"),
    "participants": _data("participants.far", "encoded"),
    "aggregate": _data("aggregate.ordinary", "blob"),
    "partial": _data("partial.ordinary", "blob"),
    "announcement": _unsigned("announcement"),
    "registration": _unsigned("registration"),
    "registry change": _data("registry-change.added", "encoded"),
    "command": _data("command.open-round"),
    "record": _data("record.valid-empty-void"),
    "release": _data("release-entry.ordinary", "encoded"),
}
COMMANDS = [case for case in CASES.values() if case.kind == "command"]


def parse(name: str, data: bytes) -> object:
    """The value, or the one of the three errors; anything else ends the test."""
    try:
        return PARSERS[name](data)
    except OUTSIDE as error:
        return error


@pytest.mark.requirement("M12")
@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_any_bytes_end_in_a_value_or_a_typed_error(name: str, data: st.DataObject) -> None:
    parse(name, data.draw(st.binary(max_size=400)))


@pytest.mark.parametrize("name", GOOD)
def test_a_layout_cut_anywhere_is_refused(name: str) -> None:
    good = GOOD[name]
    step = max(1, len(good) // 400)
    for size in {*range(0, len(good), step), len(good) - 1}:
        if name == "participants":
            # Every prefix that does not end in zeros is another set; it must not be this one.
            assert parse(name, good[:size]) != parse(name, good)
        else:
            assert isinstance(parse(name, good[:size]), RemoteProtocolError | VerificationError)


@pytest.mark.parametrize("name", GOOD)
@given(tail=st.binary(min_size=1, max_size=9))
def test_a_layout_with_bytes_behind_it_is_refused(name: str, tail: bytes) -> None:
    longer = GOOD[name] + tail
    if name == "participants":
        assert parse(name, longer) != parse(name, GOOD[name])
    else:
        assert isinstance(parse(name, longer), RemoteProtocolError | VerificationError)


@pytest.mark.parametrize("name", GOOD)
@given(data=st.data())
def test_a_flipped_bit_is_refused_or_seen(name: str, data: st.DataObject) -> None:
    good = GOOD[name]
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    altered = bytearray(good)
    altered[bit // 8] ^= 1 << bit % 8
    found = parse(name, bytes(altered))
    if isinstance(found, RemoteProtocolError | VerificationError):
        return
    assert name not in {"command", "announcement", "registration"}, "a signature covers every bit"
    assert found != parse(name, good), "two encodings of one value"


@pytest.mark.parametrize("case", COMMANDS, ids=lambda case: case.title)
@given(data=st.data())
def test_no_bit_of_any_command_can_be_changed(case: Case, data: st.DataObject) -> None:
    altered = bytearray(case.data("data"))
    bit = data.draw(st.integers(0, len(altered) * 8 - 1))
    altered[bit // 8] ^= 1 << bit % 8
    found = parse("command", bytes(altered))
    assert isinstance(found, RemoteProtocolError | VerificationError)


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40)
    | st.text(max_size=12) | st.floats(),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=12) | st.binary(max_size=3), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in PARSERS if name.startswith("message ")])
@given(junk=_JUNK)
def test_any_structure_ends_in_a_message_or_a_typed_error(name: str, junk: object) -> None:
    parse(name, msgspec.msgpack.encode(junk))


@pytest.mark.parametrize("name", [name for name in PARSERS if name.startswith("message ")])
def test_a_field_name_that_is_no_text_is_refused(name: str) -> None:
    for key in (b"\xa2\xff\xfe", b"\xa9announcem\xff", b"\xd9\x04\xc3\x28\xa0\xa1", b"\xc4\x01a"):
        assert isinstance(parse(name, b"\x81" + key + b"\xc0"), RemoteProtocolError)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_a_short_coverage_guided_run_finds_nothing(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, good in GOOD.items():
        prefix = bytes([list(PARSERS).index(name)])
        (corpus / name.replace(" ", "-")).write_bytes(prefix + good)
    options = ["-max_total_time=4", "-max_len=16384", "-seed=20261120"]
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz.fuzz_parsers",
            *options,
            f"-artifact_prefix={tmp_path}/",
            str(corpus),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    print(found.stderr[-500:])
    assert found.returncode == 0, found.stderr[-2000:]
    assert not list(tmp_path.glob("crash-*"))

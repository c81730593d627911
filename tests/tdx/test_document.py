"""TOML of others: what would exhaust the machine is refused at once, and by name."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdx.errors import ImageError, PolicyError
from tdx.policy import load_policy
from tdx.policy.document import MAX_DOTS, load_document
from tdx.replay import parse_ccel

# Seconds of this process for what should take a few hundredths of one.
PATIENCE_S = 2.0

EXHAUSTING = {
    "a dotted key": "a." * 100_000 + "b = 1",
    "a dotted table": "[" + "a." * 100_000 + "b]",
    "a dotted key with blanks": "a . " * 60_000 + "b = 1",
    "a dotted key of strings": '"a".' * 60_000 + "b = 1",
    "a dotted key in a table in a line": "x = { " + "a." * 60_000 + "b = 1 }",
    "a dotted key behind a string": "x = { s = 'it', " + "a." * 60_000 + "b = 1 }",
    "a dotted key behind strings over lines": 'x = [ """\n""" , {' + "a." * 60_000 + 'b = 1} , ""]',
    "the same in single quotes": "x = [ '''\n''' , {" + "a." * 60_000 + "b = 1} , '']",
    "nested lists": "a = " + "[" * 100_000,
    "nested tables": "a = " + "{a=" * 60_000,
    "a long number": "a = 1" + "0" * 5_000,
    "strings without an end": 'a = "' + '\\"' * 100_000 + "." * (MAX_DOTS + 1),
}


@pytest.mark.parametrize("title", EXHAUSTING)
def test_what_would_exhaust_the_machine_is_refused_at_once(title: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=r"."):
        load_document(EXHAUSTING[title])
    with pytest.raises(PolicyError):
        load_policy(EXHAUSTING[title])
    assert time.process_time() - began < PATIENCE_S


def test_dots_in_strings_and_comments_are_no_keys() -> None:
    dots = "." * (MAX_DOTS + 1)
    text = f'# "{dots}" {dots}\nhost = "{dots}" # {dots} "\nother = \'{dots}"\'\n'
    assert load_document(text) == {"host": dots, "other": dots + '"'}
    deepest = load_document("a." * MAX_DOTS + "b = 1")
    for _ in range(MAX_DOTS):
        assert isinstance(deepest["a"], dict)
        deepest = deepest["a"]
    assert deepest == {"b": 1}


@given(st.text(alphabet="ab.\"'\\\n#=[]{}1 ,", max_size=80))
def test_any_text_ends_in_a_document_or_a_value_error(text: str) -> None:
    try:
        load_document(text)
    except ValueError:
        return


def test_a_log_of_very_many_events_takes_time_with_its_size() -> None:
    specification = b"Spec ID Event03\0" + bytes(8) + struct.pack("<IHHB", 1, 12, 48, 0)
    head = struct.pack("<II20sI", 0, 3, bytes(20), len(specification)) + specification
    event = struct.pack("<IIII", 0, 3, 0, 0)
    began = time.process_time()
    log = parse_ccel(head + event * 100_000 + bytes(64))
    assert len(log.events) == 100_000
    with pytest.raises(ImageError, match="follows"):
        parse_ccel(head + event + b"\xff" * 8 + bytes(8))
    assert time.process_time() - began < PATIENCE_S

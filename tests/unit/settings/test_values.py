"""Promises of the value parsers: what is accepted, in which unit, and errors that quote nothing."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipnet.settings.sources import shape_of
from zipnet.settings.values import (
    Endpoint,
    parse_cover_every,
    parse_duration_ms,
    parse_endpoint,
    parse_endpoints,
)

DURATIONS = {
    "seconds": ("2s", 2000),
    "milliseconds": ("500ms", 500),
    "minutes": ("1m", 60_000),
    "hours": ("1h", 3_600_000),
    "a bare number in text is seconds": ("3", 3000),
    "fraction": ("0.25s", 250),
    "space before the unit": ("2 s", 2000),
    "whole number": (2, 2000),
    "float": (0.5, 500),
}
NO_DURATIONS = {
    "empty": "",
    "negative": "-1s",
    "unit alone": "ms",
    "unknown unit": "2d",
    "nothing at all": "0",
    "below a millisecond": "0.1ms",
    "not a number": "nan",
    "infinite": float("inf"),
    "negative number": -1,
    "true": True,
    "list": [1],
    "huge": "9" * 40,
    "Arabic digits": "٣s",
}
ENDPOINTS = {
    "address": ("127.0.0.1:80", Endpoint("127.0.0.1", 80)),
    "name": ("node-1.example.org:4433", Endpoint("node-1.example.org", 4433)),
    "IPv6": ("[::1]:4433", Endpoint("::1", 4433)),
    "any port": ("localhost:0", Endpoint("localhost", 0)),
}
NO_ENDPOINTS = {
    "no port": "localhost",
    "no host": ":80",
    "bare IPv6": "::1:80",
    "port too high": "localhost:65536",
    "port no number": "localhost:http",
    "negative port": "localhost:-1",
    "space inside": "local host:80",
    "URL": "http://localhost:80",
    "broken IPv6": "[::x]:80",
    "number": 80,
    "empty": "",
}


@pytest.mark.parametrize(("given_value", "expected"), DURATIONS.values(), ids=DURATIONS.keys())
def test_durations_become_milliseconds(given_value: object, expected: int) -> None:
    assert parse_duration_ms(given_value) == expected


@pytest.mark.parametrize("bad", NO_DURATIONS.values(), ids=NO_DURATIONS.keys())
def test_other_durations_are_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"duration|millisecond"):
        parse_duration_ms(bad)


@pytest.mark.parametrize(("text", "expected"), ENDPOINTS.values(), ids=ENDPOINTS.keys())
def test_endpoints_are_read_and_written_back(text: str, expected: Endpoint) -> None:
    assert parse_endpoint(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("bad", NO_ENDPOINTS.values(), ids=NO_ENDPOINTS.keys())
def test_other_endpoints_are_refused(bad: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any wording, the caller adds the setting
        parse_endpoint(bad)


@pytest.mark.parametrize(
    ("host", "expected"),
    {"localhost": True, "127.8.9.1": True, "::1": True, "203.0.113.1": False, "::": False,
     "192.168.1.1": False, "localhost.example.org": False}.items(),
)  # fmt: skip
def test_loopback_is_recognised(host: str, *, expected: bool) -> None:
    assert Endpoint(host, 1).is_loopback is expected


def test_lists_of_endpoints_come_as_text_or_list_and_need_ports() -> None:
    assert parse_endpoints("a:1, b:2") == (Endpoint("a", 1), Endpoint("b", 2))
    assert parse_endpoints(["a:1"]) == (Endpoint("a", 1),)
    for bad in ("a:0", "", [], ["a:1"] * 17, 5):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_endpoints(bad)


def test_cadence_is_always_or_every_nth_round() -> None:
    assert [parse_cover_every(value) for value in ("always", "4", 4, 10_000)] == [1, 4, 4, 10_000]
    for bad in ("never", "0", 0, -1, 1.5, True, "10001", ""):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_cover_every(bad)


@given(st.one_of(st.text(min_size=6), st.lists(st.text()), st.dictionaries(st.text(), st.text())))
def test_a_shape_never_shows_the_value(value: object) -> None:
    shape = shape_of(value)
    assert shape == "a table" or shape.startswith(("text of ", "a list of "))
    if isinstance(value, str) and not value.isdigit():
        assert value not in shape or value in "text of characters"


@given(st.one_of(st.text(), st.text().map("[{}]:80".format), st.text().map("{}:80".format)))
def test_parsers_end_in_a_value_or_a_value_error_that_does_not_quote(text: str) -> None:
    for parse in (parse_duration_ms, parse_endpoint, parse_endpoints, parse_cover_every):
        with contextlib.suppress(ValueError):
            try:
                parse(text)
            except ValueError as error:
                quoted = len(text) > 7 and text in str(error)
                assert not quoted, "the input is in the error"
                raise

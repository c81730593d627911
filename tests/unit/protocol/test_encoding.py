"""Byte layouts: one way to write, no way to read anything else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zipnet.errors import LocalProtocolError, RemoteProtocolError
from zipnet.protocol.encoding import Reader, Writer


def test_every_field_reads_back_what_was_written() -> None:
    data = (
        Writer()
        .u8(1)
        .u16(2)
        .u32(3)
        .u64(2**64 - 1)
        .fixed(memoryview(b"abc"), 3)
        .var16(b"de")
        .var32(bytearray(b"f"))
        .text16("grün")
        .take()
    )
    assert data.hex() == ("01000200000003ffffffffffffffff61626300026465000000016600056772c3bc6e")
    reader = Reader(data)
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64()) == (1, 2, 3, 2**64 - 1)
    assert reader.fixed(3) == b"abc"
    assert reader.var16(max_len=2) == b"de"
    assert reader.var32(max_len=1) == b"f"
    assert reader.text16(5) == "grün"
    reader.finish()


WRITES_THAT_DO_NOT_FIT: dict[str, Callable[[], Writer]] = {
    "u8 over": lambda: Writer().u8(256),
    "u8 negative": lambda: Writer().u8(-1),
    "u16 over": lambda: Writer().u16(1 << 16),
    "u32 over": lambda: Writer().u32(1 << 32),
    "u64 over": lambda: Writer().u64(1 << 64),
    "fixed short": lambda: Writer().fixed(b"ab", 3),
    "fixed long": lambda: Writer().fixed(b"abcd", 3),
    "var16 long": lambda: Writer().var16(bytes(1 << 16)),
    "text with a lone surrogate": lambda: Writer().text16("\ud800"),
}


@pytest.mark.parametrize("title", WRITES_THAT_DO_NOT_FIT)
def test_own_value_that_does_not_fit_is_refused(title: str) -> None:
    with pytest.raises(LocalProtocolError):
        WRITES_THAT_DO_NOT_FIT[title]()


READS_OF_BAD_INPUT: dict[str, Callable[[], object]] = {
    "u8 of nothing": lambda: Reader(b"").u8(),
    "u16 of one byte": lambda: Reader(b"\0").u16(),
    "u32 of three": lambda: Reader(bytes(3)).u32(),
    "u64 of seven": lambda: Reader(bytes(7)).u64(),
    "fixed past the end": lambda: Reader(b"ab").fixed(3),
    "var16 past the end": lambda: Reader(b"\0\3ab").var16(max_len=3),
    "var16 over its cap": lambda: Reader(b"\0\2ab").var16(max_len=1),
    "var32 over its cap": lambda: Reader(b"\xff\xff\xff\xff").var32(max_len=1 << 20),
    "text over its cap": lambda: Reader(b"\0\2ab").text16(1),
    "text that is not UTF-8": lambda: Reader(b"\0\1\xff").text16(1),
    "trailing byte": lambda: Reader(b"\0").finish(),
}


@pytest.mark.parametrize("title", READS_OF_BAD_INPUT)
def test_bytes_from_outside_that_do_not_fit_are_refused(title: str) -> None:
    with pytest.raises(RemoteProtocolError):
        READS_OF_BAD_INPUT[title]()

"""Ranges of the record log: shape, paths to the root, and what is no range."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.ledger.merkle import inclusion_proof, root_of
from zipnet.ledger.ranges import RangeHead, RangeItem, RangeTree, read_range, write_range
from zipnet.protocol.ids import Digest

HASHES = [sha256(bytes([n])).digest() for n in range(23)]
TREE = RangeTree(HASHES)


def _lines(first: int = 5, count: int = 4, *versions: bytes) -> list[bytes]:
    head = RangeHead(b"g" * 32, first, count, TREE.size, TREE.root(), versions)
    items = [RangeItem(n, b"record %d" % n, TREE.path(n)) for n in range(first, first + count)]
    return list(write_range(head, items))


@given(size=st.integers(1, 70), data=st.data())
def test_roots_and_paths_are_those_of_the_plain_tree(size: int, data: st.DataObject) -> None:
    entries = [sha256(b"%d" % n).digest() for n in range(size)]
    index = data.draw(st.integers(0, size - 1))
    tree = RangeTree(entries)
    assert tree.root() == root_of(entries)
    assert tree.root(index + 1) == root_of(entries[: index + 1])
    assert list(tree.path(index)) == inclusion_proof(entries, index)


def test_what_is_written_is_read_and_leads_to_the_root() -> None:
    head, items = read_range(_lines())
    assert (head.first, head.count, head.size, head.root) == (5, 4, 23, TREE.root())
    found = list(items)
    assert [item.record for item in found] == [b"record %d" % n for n in range(5, 9)]
    for item in found:
        item.require_in(head, Digest(HASHES[item.sequence]))
        with pytest.raises(VerificationError):
            item.require_in(head, Digest(HASHES[item.sequence - 1]))


def test_versions_of_the_descriptor_come_before_the_records() -> None:
    lines = _lines(5, 4, b"one", b"two")
    head, items = read_range(lines)
    assert head.versions == (b"one", b"two")
    assert len(list(items)) == 4
    for wrong in (lines[:1] + lines[2:], [*lines[:2], b"{}", *lines[3:]]):
        with pytest.raises(RemoteProtocolError):
            list(read_range(wrong)[1])


def test_a_root_over_more_than_there_is_is_refused() -> None:
    with pytest.raises(VerificationError, match="23 records"):
        TREE.root(24)


def _changed(line: bytes, **changes: object) -> bytes:
    return json.dumps({**json.loads(line), **changes}).encode() + b"\n"


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"{}\n"],
        [b"\xff\n"],
        [_changed(_lines()[0], format="zipnet-records-2"), *_lines()[1:]],
        [_changed(_lines()[0], unknown=1), *_lines()[1:]],
        [_changed(_lines()[0], root="00"), *_lines()[1:]],
        [_changed(_lines()[0], size=8), *_lines()[1:]],
        [_changed(_lines()[0], count=0), *_lines()[1:]],
        [_changed(_lines()[0], first=-1), *_lines()[1:]],
        [_changed(_lines()[0], versions=-1), *_lines()[1:]],
        [_changed(_lines()[0], versions=257), *_lines()[1:]],
        _lines()[:-1],
        [*_lines(), b"{}\n"],
        [*_lines()[:2], _lines()[3], _lines()[2], _lines()[4]],
        [*_lines()[:4], _changed(_lines()[4], record="not base64!")],
        [*_lines()[:4], _changed(_lines()[4], path=["zz"])],
        [*_lines()[:4], _changed(_lines()[4], path=["00" * 32] * 65)],
        [*_lines()[:4], b" " * (4 * 1024 * 1024 + 1)],
    ],
)
def test_what_is_no_range_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        list(read_range(lines)[1])

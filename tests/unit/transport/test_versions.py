"""Versions asked of a node that may lie (decision 0007)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.succession import successor_of
from zipnet.errors import RemoteProtocolError
from zipnet.transport.versions import fetch_earlier, fetch_later, know_version
from zipnet.wire.frames import Frame
from zipnet.wire.messages import DescriptorFile, GetDescriptor, Kind, decode, encode

COMMITTEE = HarnessCommittee()
FIRST = COMMITTEE.descriptor
SECOND = successor_of(FIRST, 1, make_identity("newcomer"), COMMITTEE.operator)
THIRD = successor_of(SECOND, 0, make_identity("third"), COMMITTEE.operator)
FORGED = successor_of(FIRST, 1, make_identity("forged"), COMMITTEE.operator)
FILES = {item.version: item.descriptor.file for item in (FIRST, SECOND, THIRD)}


class Node:
    """Answers with the files it has."""

    def __init__(self, files: dict[int, bytes]) -> None:
        self.files = files
        self.asked: list[int] = []

    async def request(self, kind: int, payload: bytes, timeout_s: float | None = None) -> Frame:
        del timeout_s
        assert kind == Kind.GET_DESCRIPTOR
        version = decode(payload, GetDescriptor).version
        self.asked.append(version)
        return Frame(kind, 1, encode(DescriptorFile(file=self.files.get(version))))


async def test_later_versions_are_followed_to_the_newest() -> None:
    node = Node(FILES)
    assert await fetch_later(node, FIRST) == THIRD
    assert node.asked == [2, 3, 4]
    assert await fetch_later(Node({}), FIRST) is FIRST


async def test_earlier_versions_are_followed_to_the_first() -> None:
    node = Node(FILES)
    assert await fetch_earlier(node, replace(THIRD, earlier=())) == THIRD
    assert node.asked == [2, 1]
    assert await fetch_earlier(node, THIRD) is THIRD
    assert await fetch_earlier(node, FIRST) is FIRST


async def test_nothing_is_asked_that_is_known() -> None:
    node = Node(FILES)
    assert await know_version(node, THIRD, 2) is THIRD
    assert await know_version(node, THIRD, 1) is THIRD
    assert node.asked == []
    assert await know_version(node, FIRST, 2) == THIRD
    assert await know_version(node, replace(SECOND, earlier=()), 1) == SECOND


@pytest.mark.parametrize(
    "files",
    [
        {2: FILES[3]},
        {2: FILES[1]},
        {2: b"format = 1"},
        {2: FILES[2].replace(b'name = "s2"', b'name = "s9"')},
    ],
)
async def test_a_lie_about_a_later_version_is_a_broken_rule(files: dict[int, bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        await fetch_later(Node(files), FIRST)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {1: FILES[1]},
        {2: FORGED.descriptor.file, 1: FILES[1]},
        {2: FILES[2], 1: HarnessCommittee(seed=2).descriptor.descriptor.file},
        {2: b"format = 1"},
    ],
)
async def test_a_lie_about_an_earlier_version_is_a_broken_rule(files: dict[int, bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        await fetch_earlier(Node(files), replace(THIRD, earlier=()))

"""What a node goes by: kept before it counts, heard of where the log is behind (decision 0007)."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.harness.committee import HarnessCommittee, make_identity
from tests.harness.succession import successor_of
from zipnet.errors import ConfigError, StorageError
from zipnet.node.live_descriptor import LiveDescriptor, certificates_before, remembered_versions
from zipnet.settings.values import Endpoint
from zipnet.storage.journal import FileJournal
from zipnet.storage.memory import MemoryJournal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMITTEE = HarnessCommittee()
FIRST = COMMITTEE.descriptor
SECOND = successor_of(FIRST, 1, make_identity("newcomer"), COMMITTEE.operator)
OTHER = successor_of(FIRST, 2, make_identity("other"), COMMITTEE.operator)
THIRD = successor_of(SECOND, 0, make_identity("third"), COMMITTEE.operator)
ENDPOINTS = [Endpoint(node.host, node.port) for node in FIRST.descriptor.servers]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FileJournal]:
    made = FileJournal(tmp_path / "descriptors.journal", identity=bytes(32))
    made.append(FIRST.descriptor.file)
    yield made
    made.close()


async def test_each_version_is_kept_once_and_told_in_order(journal: FileJournal) -> None:
    live = LiveDescriptor(FIRST, ENDPOINTS, journal)
    told: list[int] = []
    live.tell(lambda new: told.append(new.version))
    assert await live.use(SECOND)
    assert not await live.use(SECOND)
    assert not await live.use(FIRST)
    assert await live.use(THIRD)
    assert told == [2, 3]
    assert list(journal.entries()) == [item.descriptor.file for item in (FIRST, SECOND, THIRD)]
    assert remembered_versions(journal, FIRST) == THIRD
    assert live.file(2) == SECOND.descriptor.file
    assert live.file(0) == THIRD.descriptor.file
    assert live.file(4) is None


async def test_what_was_only_heard_of_is_gone_by_and_not_kept(journal: FileJournal) -> None:
    live = LiveDescriptor(FIRST, ENDPOINTS, journal)
    assert await live.use(SECOND, heard=True)
    assert live.current == SECOND
    assert list(journal.entries()) == [FIRST.descriptor.file]
    # The log says the same: now it is kept, and nobody is told twice.
    assert not await live.use(SECOND)
    assert list(journal.entries())[1:] == [SECOND.descriptor.file]


async def test_the_log_wins_over_what_was_heard(journal: FileJournal) -> None:
    live = LiveDescriptor(FIRST, ENDPOINTS, journal)
    await live.use(SECOND, heard=True)
    assert not await live.use(OTHER, heard=True)  # the first that was heard stands
    assert live.current == SECOND
    assert await live.use(OTHER)
    assert live.current == OTHER
    assert remembered_versions(journal, FIRST) == OTHER


async def test_what_was_heard_while_a_version_is_kept_is_not_undone_by_it() -> None:
    entered, may_go = threading.Event(), threading.Event()

    class Slow(MemoryJournal):
        def append(self, entry: bytes) -> None:
            entered.set()
            assert may_go.wait(30)
            super().append(entry)

    live = LiveDescriptor(FIRST, ENDPOINTS, Slow())
    told: list[int] = []
    live.tell(lambda new: told.append(new.version))
    keeping = asyncio.create_task(live.use(SECOND))
    await asyncio.to_thread(entered.wait, 30)
    assert await live.use(THIRD, heard=True)
    may_go.set()
    assert not await keeping
    assert live.current == THIRD
    assert told == [3]


async def test_a_server_that_is_dialled_elsewhere_still_is_unless_it_changed() -> None:
    elsewhere = [Endpoint("127.0.0.9", 7000 + seat) for seat in range(3)]
    live = LiveDescriptor(FIRST, elsewhere)
    await live.use(SECOND)
    node = SECOND.descriptor.servers[1]
    assert live.endpoints == (elsewhere[0], Endpoint(node.host, node.port), elsewhere[2])


def test_a_journal_of_another_line_is_refused(journal: FileJournal) -> None:
    assert remembered_versions(journal, SECOND) == FIRST
    stranger = HarnessCommittee(seed=2).descriptor
    with pytest.raises(ConfigError):
        remembered_versions(journal, stranger)
    journal.append(SECOND.descriptor.file)
    with pytest.raises(ConfigError, match="another one"):
        remembered_versions(journal, OTHER)
    journal.append(OTHER.descriptor.file)
    with pytest.raises(StorageError, match="hold together"):
        remembered_versions(journal, FIRST)


def test_certificates_of_the_version_before_are_good_as_well() -> None:
    assert certificates_before(FIRST) == {}
    assert set(certificates_before(THIRD)) == {
        *(node.identity.ed25519 for node in SECOND.descriptor.servers),
        *(entry.node.identity.ed25519 for entry in SECOND.descriptor.aggregators),
    }
    assert certificates_before(replace(THIRD, earlier=())) == {}

"""What a server signs of the record log it holds."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness.committee import HarnessCommittee
from tests.harness.publishers import HarnessPublisher, play_round
from zipnet.ledger.checkpoint import VerifiedCheckpoint, open_checkpoint
from zipnet.ledger.merkle import root_of
from zipnet.node import checkpoints
from zipnet.node.checkpoints import LogSigner
from zipnet.protocol.ids import ServerIndex
from zipnet.storage.memory import MemoryRecords
from zipnet.storage.records import RecordLog


@pytest.fixture
def committee() -> HarnessCommittee:
    """A committee with seven records."""
    made = HarnessCommittee()
    crowd = [HarnessPublisher(made, f"client-{i}") for i in range(2)]
    for publisher in crowd:
        publisher.register()
    for _ in range(7):
        play_round(made, crowd)
    return made


def _opened(note: bytes | None, committee: HarnessCommittee) -> VerifiedCheckpoint:
    assert note is not None
    return open_checkpoint(note, committee.descriptor)


def _log(folder: Path, committee: HarnessCommittee, count: int) -> RecordLog:
    log = RecordLog(folder, group=committee.descriptor.group)
    for sequence in range(count):
        log.append(sequence, committee.records[sequence])
    return log


@pytest.mark.requirement("L1")
async def test_checkpoints_grow_with_the_log(tmp_path: Path, committee: HarnessCommittee) -> None:
    hashes = [record.hash for record in committee.verified]
    with closing(_log(tmp_path, committee, 0)) as log:
        signer = LogSigner(log, committee.descriptor, ServerIndex(2), committee.identities[2])
        assert _opened(await signer.checkpoint(), committee).checkpoint.size == 0
        for sequence, data in enumerate(committee.records):
            log.append(sequence, data)
            found = _opened(await signer.checkpoint(), committee)
            assert found.servers == {ServerIndex(2)}
            assert found.checkpoint.size == sequence + 1
            assert found.checkpoint.root == root_of(hashes[: sequence + 1])
        assert await signer.checkpoint() is await signer.checkpoint()  # signed once


async def test_a_long_log_is_hashed_in_bounded_steps(
    tmp_path: Path, committee: HarnessCommittee, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_PAGE", 3)
    monkeypatch.setattr(checkpoints, "_STEP_S", 1e-9)  # over after the first page
    with closing(_log(tmp_path, committee, 7)) as log:
        signer = LogSigner(log, committee.descriptor, ServerIndex(0), committee.identities[0])
        both = await asyncio.gather(signer.checkpoint(), signer.checkpoint())
        sizes = [_opened(note, committee).checkpoint.size for note in both]
        assert sizes == [3, 3]  # two at once do the same work, and neither spoils the other's
        sizes = [_opened(await signer.checkpoint(), committee).checkpoint.size for _ in range(3)]
        assert sizes == [6, 7, 7]


async def test_a_server_without_the_beginning_signs_nothing(committee: HarnessCommittee) -> None:
    records = MemoryRecords()
    records.append(3, committee.records[3])
    signer = LogSigner(records, committee.descriptor, ServerIndex(0), committee.identities[0])
    assert await signer.checkpoint() is None


class _Moving(MemoryRecords):
    """Records that come, or go, between a look at them and the next."""

    def __init__(self, first: list[bytes], then: list[bytes], *, max_bytes: int = 1 << 30) -> None:
        super().__init__(max_bytes=max_bytes)
        for data in first:
            self.append(self.next_sequence, data)
        self._then = then

    def read(self, from_sequence: int, limit: int, *, max_bytes: int = 1 << 63) -> list[bytes]:
        while self._then:
            self.append(self.next_sequence, self._then.pop(0))
        return super().read(from_sequence, limit, max_bytes=max_bytes)


class _Beginning(MemoryRecords):
    """A server without memory that gets its first record as somebody asks."""

    def __init__(self, sequence: int, data: bytes) -> None:
        super().__init__()
        self._coming = (sequence, data)

    @property
    def first_sequence(self) -> int:
        found = super().first_sequence
        if not self._records:
            self.append(*self._coming)
        return found


async def test_a_server_signs_no_log_whose_beginning_it_loses_or_never_had_meanwhile(
    committee: HarnessCommittee,
) -> None:
    size = max(map(len, committee.records))
    for records in (
        _Beginning(4, committee.records[4]),
        _Moving(committee.records[:3], committee.records[3:], max_bytes=4 * size),
    ):
        signer = LogSigner(records, committee.descriptor, ServerIndex(0), committee.identities[0])
        assert await signer.checkpoint() is None
        assert await signer.checkpoint() is None

"""No pickle is reached from wire, journal or snapshot, and the self-test notices if one is."""

from __future__ import annotations

import asyncio
import gzip
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import pysyncobj.journal
import pysyncobj.pickle
import pysyncobj.syncobj
import pysyncobj.version
import pytest

from sim.clock import run_virtual
from tests.unit.consensus.handed_out import commands_in
from zipnet.consensus import EmbeddedConsensus
from zipnet.consensus.members import Members
from zipnet.consensus.quarantine import OVERRIDDEN, quarantine, self_test
from zipnet.consensus.raft import RaftMember
from zipnet.consensus.raftlog import DurableLog
from zipnet.consensus.timing import Timing
from zipnet.errors import GuardError, RemoteProtocolError, StorageError
from zipnet.storage import CompactingFileJournal

IDENTITY = bytes(32)
FOUNDERS = Members.founding((0, 1, 2))


class Canary:
    """Whoever unpickles this leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


class NoMesh:
    def send(self, server: int, message: bytes) -> None:
        """Nobody is there."""

    def connected(self) -> frozenset[int]:
        return frozenset()


@pytest.fixture
def canary(tmp_path: Path) -> bytes:
    return pickle.dumps(Canary(tmp_path / "ran"), protocol=2)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[CompactingFileJournal]:
    journal = CompactingFileJournal(tmp_path / "raft", identity=IDENTITY)
    yield journal
    journal.close()


def member(journal: CompactingFileJournal) -> RaftMember:
    log = DurableLog(journal, server=0, founding=FOUNDERS)
    return RaftMember(
        server=0,
        member=0,
        size=3,
        log=log,
        timing=Timing(),
        clock=lambda: 0.0,
        rng=random.Random(1),
    )


def test_the_canary_works(tmp_path: Path, canary: bytes) -> None:
    pickle.loads(canary)
    assert (tmp_path / "ran").exists()


def test_pickles_over_the_mesh_are_refused_unopened(
    tmp_path: Path, canary: bytes, journal: CompactingFileJournal
) -> None:
    async def main() -> None:
        engine = EmbeddedConsensus(server=0, size=3, journal=journal, mesh=NoMesh())
        for data in (canary, b"\x02" + bytes(8) + canary, gzip.compress(canary)):
            with pytest.raises(RemoteProtocolError):
                engine.receive(1, data)

    asyncio.run(main())
    assert not (tmp_path / "ran").exists()


def test_a_pickle_as_a_command_stays_bytes(
    tmp_path: Path, canary: bytes, journal: CompactingFileJournal
) -> None:
    async def main() -> list[bytes]:
        async def inline(call: object) -> None:
            assert callable(call)
            call()

        engine = EmbeddedConsensus(
            server=0, size=1, journal=journal, mesh=NoMesh(), run_blocking=inline
        )
        await engine.start()
        await engine.propose(canary, timeout_s=5)
        await engine.stop()
        return commands_in([batch async for batch in engine.batches()])

    assert run_virtual(main()) == [canary]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("command_type", [2, 3, 0x80])
def test_log_entries_of_pickled_types_are_refused_in_the_journal(
    tmp_path: Path, canary: bytes, journal: CompactingFileJournal, command_type: int
) -> None:
    opening, founding = b"\x01\x02\x00" + bytes(8) + FOUNDERS.encode(), b"\x02" + bytes(8) + b"\x01"
    journal.append_group([opening, founding])
    journal.append_group([b"\x02" + bytes(7) + b"\x01" + bytes([command_type]) + canary])
    journal.close()
    again = CompactingFileJournal(tmp_path / "raft", identity=IDENTITY)
    with pytest.raises(StorageError, match=r"type not allowed|do not parse"):
        DurableLog(again, server=0, founding=FOUNDERS)
    again.close()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("command_type", [2, 3])
def test_commands_of_pickled_types_are_refused_by_the_engine(
    tmp_path: Path, canary: bytes, journal: CompactingFileJournal, command_type: int
) -> None:
    raft = member(journal)
    with pytest.raises(GuardError):
        raft._applyCommand(canary, None, command_type)
    with pytest.raises((GuardError, StorageError)):
        raft.log.add(bytes([command_type]) + canary, 2, 1)
    raft._SyncObj__doApplyCommand(bytes([command_type]) + canary)
    assert raft.applied == []
    assert not (tmp_path / "ran").exists()


# The library does not close the file it reads its side file from.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_librarys_own_files_are_refused_unopened(tmp_path: Path, canary: bytes) -> None:
    meta = tmp_path / "journal.meta"
    meta.write_bytes(canary)
    pysyncobj.journal.MetaStorer(str(meta)).getMeta()
    dump = tmp_path / "dump"
    dump.write_bytes(gzip.compress(canary))
    serializer = pysyncobj.serializer.Serializer(str(dump), 1, *[None] * 4)
    with pytest.raises(GuardError):
        serializer.deserialize()
    assert not (tmp_path / "ran").exists()


def test_snapshots_are_refused_unopened(
    tmp_path: Path, canary: bytes, journal: CompactingFileJournal
) -> None:
    raft = member(journal)
    message = {
        "type": "append_entries",
        "term": 1,
        "commit_index": 1,
        "serialized": (gzip.compress(canary), True, True),
    }
    with pytest.raises(GuardError):
        raft._SyncObj__onMessageReceived(raft._members[1], message)
    with pytest.raises(GuardError):
        raft._SyncObj__loadDumpFile(clearJournal=True)
    assert not (tmp_path / "ran").exists()


def test_the_self_test_passes_on_the_engine() -> None:
    self_test(RaftMember, OVERRIDDEN)


@pytest.mark.parametrize("holder", ["pickle", "journal"])
def test_the_self_test_notices_a_live_pickle(monkeypatch: pytest.MonkeyPatch, holder: str) -> None:
    monkeypatch.setattr(getattr(pysyncobj, holder), "loads", pickle.loads)
    with pytest.raises(GuardError, match="live pickle"):
        self_test(RaftMember, OVERRIDDEN)


def test_the_self_test_notices_a_wrapped_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(data: bytes) -> object:
        return pickle.loads(data)

    monkeypatch.setattr(pysyncobj.pickle, "loads", loads)
    with pytest.raises(GuardError, match="not quarantined"):
        self_test(RaftMember, OVERRIDDEN)
    quarantine()
    self_test(RaftMember, OVERRIDDEN)


def test_the_self_test_notices_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pysyncobj.version, "VERSION", "0.3.18")
    with pytest.raises(GuardError, match="examined"):
        self_test(RaftMember, OVERRIDDEN)


def test_the_self_test_notices_a_method_no_longer_replaced() -> None:
    with pytest.raises(GuardError, match="no longer replaces"):
        self_test(pysyncobj.syncobj.SyncObj, OVERRIDDEN)
    with pytest.raises(GuardError, match="no longer replaces"):
        self_test(RaftMember, ["_SyncObj__renamed"])

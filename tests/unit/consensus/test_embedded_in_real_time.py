"""Three engines in one process, on real disks and the real clock; prints what a commit costs."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from zipnet.consensus import MAX_COMMAND_BYTES, EmbeddedConsensus, Timing
from zipnet.errors import ConfigError, ConsensusError, LocalProtocolError, RemoteProtocolError
from zipnet.ports import CommittedCommand
from zipnet.storage import CompactingFileJournal

SIZE = 3


class Memory:
    """A mesh inside the process: delivers in order, on the loop's next turn."""

    def __init__(self, server: int, engines: dict[int, EmbeddedConsensus]) -> None:
        self.server = server
        self.engines = engines

    def send(self, server: int, message: bytes) -> None:
        if server in self.engines and self.server in self.engines:
            engine = self.engines[server]
            asyncio.get_running_loop().call_soon(engine.receive, self.server, message)

    def connected(self) -> frozenset[int]:
        return frozenset(server for server in range(SIZE) if server != self.server)


async def start(
    folder: Path, engines: dict[int, EmbeddedConsensus], server: int
) -> CompactingFileJournal:
    journal = CompactingFileJournal(folder / f"raft-{server}", identity=bytes(32))
    engine = EmbeddedConsensus(
        server=server, size=SIZE, journal=journal, mesh=Memory(server, engines)
    )
    engines[server] = engine
    await engine.start()
    return journal


async def drain(engine: EmbeddedConsensus, count: int) -> list[bytes]:
    commands: list[bytes] = []
    async with asyncio.timeout(20):
        async for batch in engine.batches():
            for committed in batch:
                assert isinstance(committed, CommittedCommand)
                commands.append(committed.command)
                assert committed.index == len(commands)
            if len(commands) >= count:
                break
    return commands


async def test_commits_are_fast_ordered_and_survive_a_restart(tmp_path: Path) -> None:
    engines: dict[int, EmbeddedConsensus] = {}
    journals = [await start(tmp_path, engines, server) for server in range(SIZE)]
    try:
        await engines[0].propose(b"first", timeout_s=20)
        leader = engines[0].leader()
        assert leader is not None
        spent: dict[str, list[float]] = {"leader": [], "follower": []}
        for number in range(40):
            for role, server in (("leader", leader), ("follower", (leader + 1) % SIZE)):
                begun = time.perf_counter()
                await engines[server].propose(f"{role}{number}".encode(), timeout_s=20)
                spent[role].append(1e3 * (time.perf_counter() - begun))
        for role, times in spent.items():
            print(f"commit at the {role}: median {statistics.median(times):.2f} ms")
        logs = await asyncio.gather(*(drain(engine, 81) for engine in engines.values()))
        assert logs[0] == logs[1] == logs[2]
        assert len(logs[0]) == 81
    finally:
        for engine, journal in zip(engines.values(), journals, strict=True):
            await engine.stop()
            journal.close()
    again: dict[int, EmbeddedConsensus] = {}
    journals = [await start(tmp_path, again, server) for server in range(SIZE)]
    try:
        replayed = await asyncio.gather(*(drain(engine, 81) for engine in again.values()))
        assert replayed == logs
    finally:
        for engine, journal in zip(again.values(), journals, strict=True):
            await engine.stop()
            journal.close()


async def test_without_a_majority_a_proposal_fails_in_time(tmp_path: Path) -> None:
    engines: dict[int, EmbeddedConsensus] = {}
    journal = await start(tmp_path, engines, 0)
    try:
        with pytest.raises(ConsensusError):
            await engines[0].propose(b"alone", timeout_s=0.2)
        assert not engines[0].caught_up()
    finally:
        await engines[0].stop()
        journal.close()
    with pytest.raises(ConsensusError):
        await engines[0].propose(b"stopped", timeout_s=5)


async def test_what_no_committee_sends_is_refused(tmp_path: Path) -> None:
    journal = CompactingFileJournal(tmp_path / "raft", identity=bytes(32))
    engine = EmbeddedConsensus(server=0, size=SIZE, journal=journal, mesh=Memory(0, {}))
    for server in (0, SIZE, -1):
        with pytest.raises(RemoteProtocolError):
            engine.receive(server, b"\x01")
    with pytest.raises(LocalProtocolError):
        await engine.propose(bytes(MAX_COMMAND_BYTES + 1), timeout_s=1)
    journal.close()


@pytest.mark.parametrize("size", [0, 17])
async def test_committees_of_other_sizes_are_refused(tmp_path: Path, size: int) -> None:
    journal = CompactingFileJournal(tmp_path / "raft", identity=bytes(32))
    with pytest.raises(ConfigError):
        EmbeddedConsensus(server=0, size=size, journal=journal, mesh=Memory(0, {}))
    journal.close()


async def test_contradicting_times_are_refused(tmp_path: Path) -> None:
    journal = CompactingFileJournal(tmp_path / "raft", identity=bytes(32))
    timing = Timing(heartbeat_s=0.2, election_min_s=0.4)
    with pytest.raises(ConfigError):
        EmbeddedConsensus(server=0, size=3, journal=journal, mesh=Memory(0, {}), timing=timing)
    journal.close()


async def test_a_journal_of_another_member_is_refused(tmp_path: Path) -> None:
    engines: dict[int, EmbeddedConsensus] = {}
    journal = await start(tmp_path, engines, 0)
    await engines[0].stop()
    journal.append_group([b"\x01\x02\x00\x03" + bytes(8)])
    journal.close()
    journal = CompactingFileJournal(tmp_path / "raft-0", identity=bytes(32))
    with pytest.raises(ConfigError):
        EmbeddedConsensus(server=1, size=SIZE, journal=journal, mesh=Memory(1, {}))
    journal.close()

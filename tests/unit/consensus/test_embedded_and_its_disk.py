"""What the engine does when its disk is slow, and when it fails."""

from __future__ import annotations

import asyncio
import errno
import random
import threading

import pytest

from sim.disk import Disk
from tests.unit.consensus.handed_out import commands_in
from zipnet.consensus import EmbeddedConsensus
from zipnet.errors import ConsensusError, SafeMode
from zipnet.storage import CompactingFileJournal


class NoMesh:
    def send(self, server: int, message: bytes) -> None:
        """Nobody is there."""

    def connected(self) -> frozenset[int]:
        return frozenset()


class GatedDisk(Disk):
    """A disk whose ``sync`` blocks its thread while the gate is closed."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def step(self) -> None:
        super().step()
        if not self.gate.is_set():
            self.waiting.set()
            assert self.gate.wait(30)


def engine_on(disk: Disk) -> EmbeddedConsensus:
    journal = CompactingFileJournal("raft", identity=bytes(32), files=disk)
    return EmbeddedConsensus(server=0, size=1, journal=journal, mesh=NoMesh())


async def test_the_loop_goes_on_while_the_disk_is_slow() -> None:
    disk = GatedDisk()
    engine = engine_on(disk)
    await engine.start()
    try:
        await engine.propose(b"first", timeout_s=20)
        disk.gate.clear()
        slow = asyncio.create_task(engine.propose(b"slow", timeout_s=20))
        assert await asyncio.to_thread(disk.waiting.wait, 20)
        # The loop runs, and nothing is said to be committed before it is durable.
        for _ in range(100):
            await asyncio.sleep(0)
        assert not slow.done()
        disk.gate.set()
        await slow
    finally:
        disk.gate.set()
        await engine.stop()


@pytest.mark.parametrize("fault", ["sync_error", "write_error"])
async def test_a_failed_disk_ends_the_engine_loudly(fault: str) -> None:
    disk = Disk(random.Random(2))
    engine = engine_on(disk)
    await engine.start()
    await engine.propose(b"kept", timeout_s=20)
    setattr(disk, fault, errno.EIO)
    for _ in range(2):
        with pytest.raises(ConsensusError):
            await engine.propose(b"lost", timeout_s=20)
    handed_out: list[bytes] = []

    async def consume() -> None:
        async for batch in engine.batches():
            handed_out.extend(commands_in([batch]))

    with pytest.raises(SafeMode):
        await consume()
    assert handed_out == [b"kept"]
    await engine.stop()


async def test_a_stopped_engine_ends_its_batches_and_refuses() -> None:
    engine = engine_on(Disk(random.Random(3)))
    await engine.start()
    await engine.propose(b"kept", timeout_s=20)
    assert engine.leader() == 0
    await engine.stop()
    await engine.stop()
    assert commands_in([batch async for batch in engine.batches()]) == [b"kept"]
    assert engine.caught_up()
    with pytest.raises(ConsensusError):
        await engine.propose(b"late", timeout_s=20)

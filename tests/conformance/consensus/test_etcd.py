"""The promises of the port that apply to etcd, on three real etcd members on loopback.

Time is real and etcd's disks and links are its own, so the fault-injecting simulator does not reach
them; what is held to account is this side: order, gapless indexes, one place for each command,
acknowledged means durable, snapshots, leadership, and what happens when the member beside it hangs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.conformance.consensus.etcd_members import SIZE, EtcdMembers, require_etcd
from zipnet.consensus.etcd import EtcdConsensus
from zipnet.errors import ConsensusError, LocalProtocolError, RemoteProtocolError
from zipnet.ports import CommittedSnapshot, Consensus

GROUP = bytes(range(32))
PATIENCE_S = 40.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - time is real, and there is no event for silence
            await asyncio.sleep(0.02)


class Follower:
    """One server's engine and what it handed out, checked as it comes."""

    def __init__(self, engine: EtcdConsensus) -> None:
        self.engine = engine
        self.commands: list[bytes] = []
        self.digest = bytes(32)
        self.index = 0
        self.begun_at = 0
        self.task = asyncio.create_task(self._consume())

    async def _consume(self) -> None:
        async for batch in self.engine.batches():
            for item in batch:
                if isinstance(item, CommittedSnapshot):
                    assert item.index > self.index
                    self.index = self.begun_at = item.index
                    self.digest = item.state[:32]
                    continue
                assert item.index == self.index + 1
                self.index = item.index
                self.commands.append(item.command)
                self.digest = hashlib.sha256(self.digest + item.command).digest()

    async def reach(self, index: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.index < index:
                assert not self.task.done(), self.task.exception()
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        await self.engine.stop()
        await self.task


class Committee:
    def __init__(self, members: EtcdMembers) -> None:
        self.members = members
        self.followers: dict[int, Follower] = {}
        self.acknowledged: list[bytes] = []

    async def start(self, server: int) -> Follower:
        port = self.members.clients[server]
        engine = EtcdConsensus(server=server, group=GROUP, host="127.0.0.1", port=port)
        port_duties: Consensus = engine
        await port_duties.start()
        self.followers[server] = Follower(engine)
        return self.followers[server]

    async def stop(self, server: int) -> None:
        await self.followers.pop(server).stop()

    async def propose(self, server: int, number: int, *, timeout_s: float = 5) -> bool:
        command = f"{server}:{number}".encode()
        try:
            await self.followers[server].engine.propose(command, timeout_s=timeout_s)
        except ConsensusError:
            return False
        self.acknowledged.append(command)
        return True

    async def burst(self, count: int, servers: list[int]) -> None:
        base = len(self.acknowledged) * 1000
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                for server in servers:
                    group.create_task(self.propose(server, base + number))

    async def leader(self, among: set[int]) -> int:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                seen = {self.followers[server].engine.leader() for server in among}
                (first, *others) = seen
                if not others and first in among:
                    return first
                await asyncio.sleep(0.05)

    async def level(self) -> None:
        last = max(follower.index for follower in self.followers.values())
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for follower in self.followers.values():
                    await follower.reach(last)
                ends = {follower.index for follower in self.followers.values()}
                if len(ends) == 1 and all(f.engine.caught_up() for f in self.followers.values()):
                    break
                last = max(ends)
                await asyncio.sleep(0.02)
        assert len({follower.digest for follower in self.followers.values()}) == 1


@pytest.fixture
async def committee(tmp_path: Path) -> AsyncIterator[Committee]:
    members = EtcdMembers(tmp_path, require_etcd())
    try:
        for member in range(SIZE):
            members.start(member)
        await members.ready()
        made = Committee(members)
        for server in range(SIZE):
            await made.start(server)
        yield made
        for server in list(made.followers):
            await made.stop(server)
    finally:
        members.stop()


@pytest.mark.timeout(180)
async def test_commands_are_in_one_order_and_survive_kills(committee: Committee) -> None:
    await committee.burst(15, [0, 1, 2])
    assert len(committee.acknowledged) == 45
    await committee.level()
    committee.members.kill(1)
    await committee.burst(5, [0, 2])
    committee.members.start(1)
    await committee.members.ready()
    assert await committee.propose(1, 900_000, timeout_s=20)
    for member in range(SIZE):
        committee.members.kill(member)
    for member in range(SIZE):
        committee.members.start(member)
    await committee.members.ready()
    await committee.stop(0)
    again = await committee.start(0)
    assert await committee.propose(0, 900_001, timeout_s=20)
    await committee.level()
    # All that was acknowledged is there, once; what was not may be there, once as well.
    assert set(committee.acknowledged) <= set(again.commands)
    assert len(again.commands) == len(set(again.commands)) == again.index


@pytest.mark.timeout(180)
async def test_a_snapshot_stands_for_the_commands_it_replaced(committee: Committee) -> None:
    leader = await committee.leader({0, 1, 2})
    await committee.burst(8, [0, 1, 2])
    await committee.level()
    follower = committee.followers[leader]
    state = follower.digest + bytes(1_200_000)  # three pieces
    with pytest.raises(LocalProtocolError):
        follower.engine.compact(follower.index + 1, state)
    follower.engine.compact(follower.index, state)
    late = (leader + 1) % SIZE
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await committee.stop(late)
            newcomer = await committee.start(late)
            await newcomer.reach(24)
            if newcomer.begun_at:
                break
    assert newcomer.begun_at == 24
    assert newcomer.commands == []
    await committee.burst(2, [0, 1, 2])
    await committee.level()
    assert newcomer.index == 30


@pytest.mark.timeout(180)
async def test_leadership_moves_from_a_server_whose_etcd_hangs(committee: Committee) -> None:
    leader = await committee.leader({0, 1, 2})
    others = {0, 1, 2} - {leader}
    committee.members.freeze(leader)
    begun = asyncio.get_running_loop().time()
    assert not await committee.propose(leader, 1, timeout_s=1)
    successor = await committee.leader(others)
    assert successor in others
    spent = asyncio.get_running_loop().time() - begun
    print(f"leadership moved after {spent:.1f} s")
    # Whoever hears nothing of its lease stops believing in it.
    await until(lambda: committee.followers[leader].engine.leader() is None)
    await until(lambda: not committee.followers[leader].engine.caught_up())
    assert await committee.propose(successor, 2, timeout_s=10)
    committee.members.thaw(leader)
    # It takes part again; a proposal whose fate it does not know may come before that.
    async with asyncio.timeout(PATIENCE_S):
        while not await committee.propose(leader, 3):
            """Again."""
    await committee.level()
    last = await committee.leader({0, 1, 2})
    lease = committee.followers[last].engine._lease
    left = {0, 1, 2} - {last}
    port = committee.members.clients[min(left)]
    assert await _seconds_left(port, lease) > 0
    await committee.stop(last)
    assert await _seconds_left(port, lease) == -1, "a stopped leader gives its lease up"
    assert await committee.leader(left) in left


async def _seconds_left(port: int, lease: str | None) -> int:
    """Ask etcd how long a lease holds; -1 where there is none."""
    assert lease is not None
    url = f"http://127.0.0.1:{port}/v3/lease/timetolive"

    def ask() -> bytes:
        with urllib.request.urlopen(url, json.dumps({"ID": lease}).encode(), timeout=20) as got:
            return bytes(got.read())

    return int(json.loads(await asyncio.to_thread(ask))["TTL"])


async def test_without_etcd_nothing_is_accepted_and_nothing_believed() -> None:
    engine = EtcdConsensus(server=0, group=GROUP, host="127.0.0.1", port=1)
    await engine.start()
    with pytest.raises(ConsensusError):
        await engine.propose(b"command", timeout_s=0.5)
    with pytest.raises(LocalProtocolError):
        await engine.propose(bytes(9000), timeout_s=0.5)
    with pytest.raises(RemoteProtocolError):
        engine.receive(1, b"anything")
    assert engine.leader() is None
    assert not engine.caught_up()
    await engine.stop()
    await engine.stop()
    with pytest.raises(ConsensusError):
        await engine.propose(b"command", timeout_s=0.5)
    assert [batch async for batch in engine.batches()] == []

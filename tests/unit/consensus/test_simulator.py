"""The simulator's own promises, without which the suites above it would prove little."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from sim.clock import Stuck, run_virtual
from sim.disk import Disk, PowerCut
from sim.network import Network, Weather


def test_virtual_time_does_not_wait() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100):
                await asyncio.sleep(200)
        return asyncio.get_running_loop().time()

    begun = time.perf_counter()
    assert run_virtual(main()) == pytest.approx(3700)
    assert time.perf_counter() - begun < 30


def test_waiting_for_nothing_is_noticed() -> None:
    with pytest.raises(Stuck):
        run_virtual(asyncio.Event().wait())


def test_an_exception_in_a_callback_is_noticed() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(1, lambda: 1 // 0)
        await asyncio.sleep(2)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_virtual(main())


class Ear:
    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def receive(self, server: int, message: bytes) -> None:
        self.heard.append(message)

    def link_changed(self, server: int, *, up: bool) -> None:
        self.heard.append(b"up" if up else b"down")


def test_links_keep_order_lose_a_tail_and_repeat_what_arrived() -> None:
    async def main(seed: int) -> list[bytes]:
        network = Network(2, random.Random(seed))
        network.weather = Weather(delay_s=(0.001, 0.5))
        ears = [Ear(), Ear()]
        lives = [network.join(server) for server in range(2)]
        for life, ear in zip(lives, ears, strict=True):
            life.endpoint = ear
        network.connect(0)
        for number in range(20):
            lives[0].send(1, bytes([number]))
        await asyncio.sleep(0.3)
        network.reset(0, 1)
        await asyncio.sleep(5)
        return ears[1].heard

    lost = 0
    for seed in range(20):
        heard = run_virtual(main(seed))
        assert heard[0] == b"up"
        down = heard.index(b"down")
        assert heard[1:down] == [bytes([number]) for number in range(down - 1)]
        assert heard[down + 1] == b"up"
        repeated = heard[down + 2 :]
        assert repeated == heard[1:down][-len(repeated) :] or not repeated
        lost += 20 - (down - 1)
    assert lost > 0


def test_synced_bytes_survive_and_others_may_not() -> None:
    kept = 0
    for seed in range(100):
        disk = Disk(random.Random(seed))
        file = disk.open("f")
        file.write(0, b"s" * 900)
        file.sync()
        file.sync_folder()
        file.write(900, b"u" * 900)
        disk.crash()
        with pytest.raises(OSError, match="restarted"):
            file.size()
        content = disk.open("f").read(0, 2000)
        assert content[:900] == b"s" * 900
        assert set(content[900:]) <= set(b"u\0")
        kept += content[900:] == b"u" * 900
    assert 0 < kept < 100


def test_the_power_goes_out_where_it_is_told_to() -> None:
    disk = Disk(random.Random(1))
    file = disk.open("f")
    disk.cut_at = disk.operations + 2
    file.write(0, b"a")
    with pytest.raises(PowerCut):
        file.sync()

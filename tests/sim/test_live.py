"""The model beside real processes on loopback: the same small network, the same figures.

Set ``ZIPNET_SIM_LIVE`` to run it: it takes half a minute and wants an idle machine.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import pytest

from sim.model.scenario import Links, Load, NodeLinks, Scenario
from sim.model.world import simulate
from tests.harness.network import LiveNetwork
from zipnet.protocol.params import Cadence, RoundParams
from zipnet.sdk.publisher import Publisher

CLIENTS = 8
MESSAGES = 6
PARAMS = RoundParams(num_slots=64, slot_bytes=256, min_participants=3)
CADENCE = Cadence(round_period_ms=2000, fold_deadline_ms=1000, round_deadline_ms=5000)
LOOPBACK = NodeLinks(up_mbit=10_000, down_mbit=10_000, latency_ms=0.02)

live = pytest.mark.skipif(not os.environ.get("ZIPNET_SIM_LIVE"), reason="ZIPNET_SIM_LIVE is unset")


async def publish(network: LiveNetwork) -> list[float]:
    """Publish from every client and return the times from opening to receipt."""
    found: list[float] = []

    async def one(client: Publisher, text: str) -> None:
        receipt = await client.publish(text.encode(), timeout=60)
        opened_at_ms = receipt.placements[-1].record.content.header.opened_at_ms
        found.append(time.time() - opened_at_ms / 1000)

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                Publisher(network.descriptor, transport="tls", linger_rounds=0)
            )
            for _ in range(CLIENTS)
        ]
        for client in clients:
            await client.when.registered()
        for count in range(MESSAGES):
            await asyncio.gather(*(one(c, f"{count}/{i}") for i, c in enumerate(clients)))
    return found


@live
def test_the_model_tells_the_same_latency_as_real_processes(tmp_path: Path) -> None:
    network = LiveNetwork(tmp_path, params=PARAMS, cadence=CADENCE)
    try:
        network.start()
        real = asyncio.run(publish(network))
        records = network.records("s0")
    finally:
        network.close()
    modelled = simulate(
        Scenario(
            "live",
            clients=CLIENTS,
            rounds=16,
            params=PARAMS,
            cadence=CADENCE,
            links=Links(server=LOOPBACK, aggregator=LOOPBACK, client=LOOPBACK),
            load=Load(talkers=CLIENTS, messages=MESSAGES, interval_s=2.0),
        ),
        1,
    )
    opened = {row.round: row.at for row in modelled.of("round_opened")}
    told = [row.at - opened[row.round] for row in modelled.of("message_delivered")]
    print(f"real {median(real):.3f} s, model {median(told):.3f} s")
    assert len(real) == len(told) == CLIENTS * MESSAGES
    assert {r.record.content.participants for r in records[2:-2]} == {CLIENTS}
    assert {r.participants for r in modelled.rounds} == {CLIENTS}
    assert median(told) == pytest.approx(median(real), rel=0.3)

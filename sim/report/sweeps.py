"""Figures that one run does not give: throughput by size, and reservations against load."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from sim.model.scenario import Churn, Load, Nominal, Scenario
from sim.model.world import simulate
from zipnet.protocol.ids import derive
from zipnet.protocol.reservation import granted_slots, reservation_entries

if TYPE_CHECKING:
    from zipnet.protocol.params import RoundParams

__all__ = ["ReservationPoint", "reservation_success", "throughput"]

_CLIENTS = (16, 32, 64, 128)
_SLOT_BYTES = (160, 640, 2560)
_LOADS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class ReservationPoint:
    """What became of reservations at one load.

    Attributes:
        load: Reservations for each slot.
        granted: Share of reservations that won a slot.
        collided: Share that was destroyed.
        waiting: Share that stands but ranks past the last slot.
    """

    load: float
    granted: float
    collided: float
    waiting: float


def reservation_success(params: RoundParams, *, seeds: int = 20) -> list[ReservationPoint]:
    """Draw reservations of single clients at several loads, by the protocol's own functions."""
    return [_reserve(params, load, seeds) for load in _LOADS]


def _reserve(params: RoundParams, load: float, seeds: int) -> ReservationPoint:
    clients = max(1, round(load * params.num_slots))
    won = destroyed = 0
    for seed in range(seeds):
        rng = random.Random(f"{seed}/{load}")
        header = derive("sim-header", rng.randbytes(32))
        made = [reservation_entries(rng.randbytes(32), header, params, 1) for _ in range(clients)]
        vector = [0] * params.reservation_entries
        for ((position, value),) in made:
            vector[position] ^= value
        frozen = tuple(vector)
        for entries in made:
            ((position, value),) = entries
            won += granted_slots(frozen, entries, params)[0] is not None
            destroyed += vector[position] != value
    total = clients * seeds
    lost = (total - won - destroyed) / total
    return ReservationPoint(load, won / total, destroyed / total, lost)


def throughput(scenario: Scenario, seed: int) -> dict[int, list[tuple[int, float]]]:
    """Return kB/s of payload by slot width and number of clients, from short cost-only runs."""
    return {
        width: [(clients, _rate(scenario, clients, width, seed)) for clients in _CLIENTS]
        for width in _SLOT_BYTES
    }


def _rate(scenario: Scenario, clients: int, width: int, seed: int) -> float:
    slots = scenario.slots
    outcome = simulate(
        replace(
            scenario,
            clients=clients,
            rounds=2,
            vectors="cost",
            nominal=Nominal(slots, width),
            params=replace(scenario.params, min_participants=2),
            load=Load(),
            churn=Churn(),
            faults=(),
        ),
        seed,
    )
    payload = slots * (width - 46)
    return payload / 1000 / median(outcome.round_seconds) if outcome.rounds else 0.0

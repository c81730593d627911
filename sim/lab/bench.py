"""Sets each adversary on small networks of the real machines, once for each seed.

Differencing, equivocation, subset rosters and replay must learn exactly nothing: the posterior over
authors equals the prior. What the others learn is quantified, and for each there is a run with its
defence switched off that shows the adversary is no straw man.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from sim.lab.crowding import ColludingServers, SybilFlood
from sim.lab.finding import Curve, Finding, Measure, auc
from sim.lab.leader import DifferencingLeader, EquivocatingLeader, SubsetLeader
from sim.lab.mutants import MUTANTS
from sim.lab.relays import DroppingAggregator, ReplayingAggregator, SplittingAggregator
from sim.lab.spy import Exposure, Spy
from sim.lab.watching import IntersectingObserver, PassiveObserver
from sim.model.scenario import Churn, Load, Scenario
from sim.model.world import simulate
from zipnet.errors import ConfigError
from zipnet.protocol.params import Cadence, RoundParams

if TYPE_CHECKING:
    from sim.model.outcome import Outcome

__all__ = ["ADVERSARIES", "run_lab"]

_SMALL = Scenario(
    "laboratory",
    servers=3,
    clients=10,
    rounds=8,
    limit_s=60,
    params=RoundParams(num_slots=16, slot_bytes=96, min_participants=3),
    cadence=Cadence(round_period_ms=500, fold_deadline_ms=300, round_deadline_ms=2000),
    client_jitter_s=0.05,
    reservations=2,
    load=Load(talkers=5, messages=3, message_bytes=24, start_s=0.9, interval_s=0.6),
)
_OBSERVED = replace(
    _SMALL, clients=24, rounds=24, load=replace(_SMALL.load, talkers=24, messages=5)
)
_CHURNING = replace(
    _SMALL,
    clients=20,
    rounds=40,
    load=Load(talkers=6, messages=20, message_bytes=24, start_s=0.9, interval_s=0.9),
    churn=Churn(share=1.0, up_s=10.0, down_s=1.0, rejoin=0.0),
)
_HEAVY = Churn(share=1.0, up_s=4.0, down_s=2.0, rejoin=0.0)
_LIMIT_AUC = 0.52

Run = Callable[[int, str | None], Finding]


def run_lab(names: Sequence[str], *, seeds: int, mutant: str | None = None) -> list[Finding]:
    """Run adversaries by name.

    Raises:
        ConfigError: When there is no such adversary or mutant.
    """
    unknown = sorted(set(names) - set(ADVERSARIES))
    if unknown:
        known = ", ".join(ADVERSARIES)
        raise ConfigError(f"there is no adversary {', '.join(unknown)}", hint=f"there are {known}")
    if mutant is not None and mutant not in MUTANTS:
        raise ConfigError(f"there is no mutant {mutant}", hint=f"there are {', '.join(MUTANTS)}")
    return [ADVERSARIES[name](seeds, mutant) for name in names]


def _measure(name: str, values: Sequence[float]) -> Measure:
    return Measure(name, tuple(values))


def _runs(scenario: Scenario, spies: Sequence[Spy]) -> list[Outcome]:
    return [simulate(scenario, seed, hooks=spy) for seed, spy in enumerate(spies, start=1)]


# -- those that must learn nothing -----------------------------------------------------------------


def _nothing(name: str, spies: Sequence[Spy], scenario: Scenario, extra: str) -> Finding:
    """Run spies and say whether every posterior equals its prior."""
    outcomes = _runs(scenario, spies)
    exposed = [spy.exposures() for spy in spies]
    lost = [max((e.lost_bits for e in found), default=0.0) for found in exposed]
    known = [float(sum(e.identified for e in found)) for found in exposed]
    told = [float(len(found)) for found in exposed]
    holds = not any(lost) and all(told)
    return Finding(
        name,
        holds,
        f"posterior = prior for every message; {extra}" if holds else "authors were unmasked",
        (
            _measure("messages watched", told),
            _measure("anonymity set (prior)", [_mean(f, "participants") for f in exposed]),
            _measure("anonymity set (posterior)", [_mean(f, "candidates") for f in exposed]),
            _measure("entropy lost, bits (worst)", lost),
            _measure("authors identified", known),
            _measure("rounds sealed", [float(len(o.rounds)) for o in outcomes]),
            _measure("refusals by honest parties", [_refusals(o) for o in outcomes]),
        ),
    )


def _mean(found: Sequence[Exposure], what: Literal["participants", "candidates"]) -> float:
    sizes = [len(e.participants if what == "participants" else e.candidates) for e in found]
    return fmean(sizes) if sizes else 0.0


def _refusals(outcome: Outcome) -> float:
    kinds = ("submission_refused", "client_refused", "release_refused", "aggregate_refused")
    return float(sum(outcome.counted.get(kind, 0) for kind in kinds))


def _differencing(seeds: int, mutant: str | None) -> Finding:
    spies = [DifferencingLeader(mutant) for _ in range(seeds)]
    found = _nothing("differencing", spies, _SMALL, "no guard released twice")
    asked = _measure("second partials asked for", [float(s.asked) for s in spies])
    given = _measure("second partials given", [float(s.given) for s in spies])
    holds = found.holds and not any(given.samples) and all(asked.samples)
    text = found.text if holds else "guards released twice"
    return replace(found, holds=holds, text=text, measures=(*found.measures, asked, given))


def _equivocation(seeds: int, mutant: str | None) -> Finding:
    spies = [EquivocatingLeader(mutant) for _ in range(seeds)]
    found = _nothing("header-equivocation", spies, _SMALL, "two headers make two sets of pads")
    split = _measure("envelopes under a second header", [float(s.split_off) for s in spies])
    asked = _measure("second headers' partials asked for", [float(s.asked) for s in spies])
    given = _measure("second headers' partials given", [float(s.given) for s in spies])
    holds = found.holds and not any(given.samples) and all(asked.samples)
    text = found.text if holds else "guards released for two headers"
    return replace(found, holds=holds, text=text, measures=(*found.measures, split, asked, given))


def _subset(seeds: int, mutant: str | None) -> Finding:
    spies = [SubsetLeader(mutant) for _ in range(seeds)]
    found = _nothing("subset-roster", spies, _SMALL, "servers and clients refuse such rosters")
    tried = _measure("rounds proposed with a small roster", [float(s.tried) for s in spies])
    fooled = _measure("envelopes for a small roster", [float(s.fooled) for s in spies])
    holds = found.holds and not any(fooled.samples) and all(tried.samples)
    text = found.text if holds else "a roster the descriptor does not allow was used"
    return replace(found, holds=holds, text=text, measures=(*found.measures, tried, fooled))


def _splitting(seeds: int, mutant: str | None) -> Finding:
    spies = [SplittingAggregator(mutant) for _ in range(seeds)]
    return _nothing("splitting-aggregator", spies, _SMALL, "one aggregate is chosen for all")


def _replaying(seeds: int, mutant: str | None) -> Finding:
    spies = [ReplayingAggregator(mutant) for _ in range(seeds)]
    found = _nothing("replay", spies, _SMALL, "each number has one envelope and one release")
    again = [
        float(sum(len(b) > 1 for one in s.envelopes.values() for b in one.values())) for s in spies
    ]
    doubled = _measure("second envelopes under one pad", again)
    return replace(found, holds=found.holds and not any(again), measures=(*found.measures, doubled))


def _dropping(seeds: int, mutant: str | None) -> Finding:
    spies = [DroppingAggregator(mutant) for _ in range(seeds)]
    found = _nothing("dropping-aggregator", spies, _SMALL, "no set below the minimum is unblinded")
    smallest = [
        float(min((len(e.candidates) for e in spy.exposures()), default=0)) for spy in spies
    ]
    least = _SMALL.params.min_participants
    holds = found.holds and all(size >= least for size in smallest)
    text = f"{found.text} (its {least} participants)" if holds else "a set below the minimum"
    size = _measure("smallest anonymity set", smallest)
    return replace(found, holds=holds, text=text, measures=(*found.measures, size))


def _colluding(seeds: int, mutant: str | None) -> Finding:
    servers = _SMALL.servers
    shares: dict[int, list[float]] = {}
    for count in range(1, servers + 1):
        spies = [ColludingServers(mutant, count=count) for _ in range(seeds)]
        _runs(replace(_SMALL, rounds=4), spies)
        shares[count] = [s.read / max(s.tried, 1) for s in spies]
    holds = not any(any(shares[count]) for count in range(1, servers))
    return Finding(
        "colluding-servers",
        holds and all(share == 1.0 for share in shares[servers]),
        f"{servers - 1} of {servers} read nothing; all {servers} read everything",
        tuple(_measure(f"envelopes read by {c} of {servers}", v) for c, v in shares.items()),
    )


# -- those that learn something, or could ----------------------------------------------------------


def _observer(seeds: int, mutant: str | None) -> Finding:
    spies = [PassiveObserver(mutant) for _ in range(seeds)]
    _runs(_OBSERVED, spies)
    pooled: dict[str, tuple[list[float], list[float]]] = {}
    single: dict[str, list[float]] = {}
    for spy in spies:
        for name, (talking, silent) in spy.samples().items():
            single.setdefault(name, []).append(auc(talking, silent, folded=False))
            both = pooled.setdefault(name, ([], []))
            both[0].extend(talking)
            both[1].extend(silent)
    areas = {name: auc(*both) for name, both in pooled.items()}
    worst = max(areas.values())
    counts = [len(pooled["sent at all"][kind]) for kind in (0, 1)]
    # What an AUC deviates by chance: with few seeds more than the limit leaves.
    chance = 2.6 * math.sqrt((sum(counts) + 1) / (12 * max(counts[0], 1) * max(counts[1], 1)))
    limit = max(_LIMIT_AUC, 0.5 + chance)
    return Finding(
        "passive-observer",
        worst <= limit,
        f"AUC {worst:.3f} over {counts[0]} talking and {counts[1]} silent client rounds "
        f"(at most {limit:.3f})",
        tuple(_measure(f"AUC of one run by {name}", found) for name, found in single.items()),
    )


def _intersection(seeds: int, mutant: str | None) -> Finding:
    cases = {
        "everybody stays": (replace(_CHURNING, churn=Churn()), mutant),
        "clients come and go": (_CHURNING, mutant),
        "clients come and go much": (replace(_CHURNING, churn=_HEAVY), mutant),
        "without cover": (replace(_CHURNING, churn=Churn()), "no-cover"),
    }
    measures: list[Measure] = []
    curves: list[Curve] = []
    finals: dict[str, list[float]] = {}
    for label, (scenario, broken) in cases.items():
        spies = [IntersectingObserver(broken) for _ in range(seeds)]
        _runs(scenario, spies)
        paths = [spy.candidates("client-0") for spy in spies]
        finals[label] = [math.log2(p[-1]) if p else math.nan for p in paths]
        until = [float(p.index(1) + 1) for p in paths if 1 in p]
        measures += [
            _measure(f"entropy at the end, {label}", finals[label]),
            _measure(f"share identified, {label}", [float(1 in p) for p in paths]),
            _measure(f"messages to identification, {label}", until),
        ]
        curves.append(Curve(label, _mean_path(paths)))
    # A mutant shows in the case it breaks: entropy is lost though everybody stays.
    whole = math.log2(_CHURNING.clients)
    holds = all(math.isclose(value, whole) for value in finals["everybody stays"])
    text = "nothing is lost while everybody stays; those who leave rule themselves out"
    return Finding(
        "intersection",
        holds,
        text if holds else "candidates are lost though everybody stays",
        tuple(measures),
        tuple(curves),
    )


def _mean_path(paths: Sequence[Sequence[int]]) -> tuple[tuple[float, float], ...]:
    longest = max((len(path) for path in paths), default=0)
    means: list[tuple[float, float]] = []
    for step in range(longest):
        sizes = [path[min(step, len(path) - 1)] for path in paths if path]
        means.append((float(step + 1), fmean(math.log2(size) for size in sizes)))
    return tuple(means)


def _sybil(seeds: int, mutant: str | None) -> Finding:
    honest, measures = 6, list[Measure]()
    least = _SMALL.params.min_participants
    kept: list[float] = []
    for sybils, drops in ((6, False), (least - 2, True), (least - 1, True), (6, True)):
        scenario = replace(
            _SMALL, clients=honest + sybils, limit_s=12, load=replace(_SMALL.load, talkers=1)
        )
        spies = [SybilFlood(mutant, honest=honest, drops=drops) for _ in range(seeds)]
        outcomes = _runs(scenario, spies)
        left = [min(spy.honest_left(), default=0) for spy in spies]
        label = f"{sybils} Sybils{', honest dropped' if drops else ''}"
        measures.append(
            _measure(f"rounds sealed, {label}", [float(len(o.rounds)) for o in outcomes])
        )
        measures.append(_measure(f"honest candidates, {label}", [float(n) for n in left]))
        if not drops:
            kept = [float(n) for n in left]
    blocked = measures[2].samples
    holds = all(n == honest for n in kept) and not any(blocked)
    return Finding(
        "sybil",
        holds,
        "the crowd is not what it seems"
        if not holds
        else f"flooding alone leaves all {honest} honest; dropping needs min_participants - 1 = "
        f"{least - 1} admitted Sybils, and then isolates the target",
        tuple(measures),
    )


def _jamming(seeds: int, mutant: str | None) -> Finding:
    measures: list[Measure] = []
    delivered: dict[int, list[float]] = {}
    for jammers in (0, 1, 2, 4):
        load = replace(_SMALL.load, jammers=jammers)
        spies = [Spy(mutant) for _ in range(seeds)]
        outcomes = _runs(replace(_SMALL, rounds=20, load=load), spies)
        delivered[jammers] = [o.recovered / max(o.queued, 1) for o in outcomes]
        voided = [_voided(spy) for spy in spies]
        measures.append(_measure(f"messages delivered, {jammers} jammers", delivered[jammers]))
        measures.append(_measure(f"share of sent messages voided, {jammers} jammers", voided))
    holds = all(share == 1.0 for share in delivered[0])
    text = "jamming costs messages, which are sent again; it unmasks nobody and is not attributed"
    return Finding(
        "jammer",
        holds,
        text if holds else "messages are lost without a jammer",
        tuple(measures),
    )


def _voided(spy: Spy) -> float:
    assert spy.world is not None
    sent = placed = 0
    for client in spy.world.clients:
        if client.name.startswith("client-"):
            sent += len(client.machine.boarded)
            placed += client.machine.fragments_placed
    return max(sent - placed, 0) / max(sent, 1)


ADVERSARIES: dict[str, Run] = {
    "passive-observer": _observer,
    "intersection": _intersection,
    "sybil": _sybil,
    "dropping-aggregator": _dropping,
    "splitting-aggregator": _splitting,
    "replay": _replaying,
    "subset-roster": _subset,
    "header-equivocation": _equivocation,
    "differencing": _differencing,
    "colluding-servers": _colluding,
    "jammer": _jamming,
}
"""Adversaries by name; each runs once for each seed."""

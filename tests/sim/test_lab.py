"""The laboratory: what must stay hidden stays hidden, and whoever breaks a rule is noticed."""

from __future__ import annotations

import math

import pytest

from sim.lab.bench import ADVERSARIES, run_lab
from sim.lab.finding import Finding, Measure, auc
from sim.lab.mutants import MUTANTS
from zipnet.errors import ConfigError

NOTHING = (
    "differencing",
    "header-equivocation",
    "subset-roster",
    "replay",
    "splitting-aggregator",
    "dropping-aggregator",
)
CATCHES = {"no-cover": "intersection", "pad-reuse": "replay", "release-twice": "differencing"}


def run(name: str, mutant: str | None = None, seeds: int = 1) -> Finding:
    (finding,) = run_lab([name], seeds=seeds, mutant=mutant)
    return finding


@pytest.mark.spec("8.2")
@pytest.mark.parametrize("name", NOTHING)
def test_posterior_equals_prior(name: str) -> None:
    finding = run(name)
    assert finding.holds, finding.text
    assert finding.measure("messages watched").mean >= 5
    assert finding.measure("entropy lost").mean == 0.0
    assert finding.measure("authors identified").mean == 0.0


def test_the_attacks_that_fail_were_made() -> None:
    """An adversary that never gets to act learns nothing either."""
    differencing = run("differencing")
    assert differencing.measure("second partials asked for").mean > 10
    assert differencing.measure("second partials given").mean == 0
    equivocation = run("header-equivocation")
    assert equivocation.measure("envelopes under a second header").mean > 10
    assert equivocation.measure("second headers' partials asked for").mean > 10
    assert equivocation.measure("second headers' partials given").mean == 0
    subset = run("subset-roster")
    assert subset.measure("rounds proposed with a small roster").mean == 3
    assert subset.measure("refusals by honest parties").mean > 0


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_protocol_is_noticed(mutant: str) -> None:
    assert not run(CATCHES[mutant], mutant).holds


def test_two_of_three_servers_read_nothing_and_all_three_everything() -> None:
    finding = run("colluding-servers")
    assert finding.holds
    assert [measure.mean for measure in finding.measures] == [0.0, 0.0, 1.0]


def test_sybils_isolate_a_target_only_as_many_as_the_minimum_asks_for() -> None:
    finding = run("sybil")
    assert finding.holds
    assert finding.measure("honest candidates, 6 Sybils").mean == 6
    assert finding.measure("rounds sealed, 1 Sybils").mean == 0
    assert finding.measure("honest candidates, 2 Sybils, honest dropped").mean == 1


def test_an_unknown_adversary_or_mutant_is_named() -> None:
    with pytest.raises(ConfigError, match="magician"):
        run_lab(["magician"], seeds=1)
    with pytest.raises(ConfigError, match="chimera"):
        run_lab(["replay"], seeds=1, mutant="chimera")
    assert len(ADVERSARIES) == 11


def test_auc_of_known_samples() -> None:
    assert auc([1, 2, 3], [4, 5, 6]) == 1.0
    assert auc([4, 5, 6], [1, 2, 3]) == 1.0
    assert auc([1, 1], [1, 1]) == 0.5
    assert auc([1, 3], [2, 4]) == 0.75
    assert auc([], [1]) == 0.5


def test_a_measure_knows_its_interval() -> None:
    measure = Measure("x", (1.0, 2.0, 3.0))
    assert measure.mean == 2.0
    assert math.isclose(measure.margin, 1.96 / math.sqrt(3))
    assert Measure("y", (1.0,)).margin == 0.0
    assert math.isnan(Measure("z", ()).mean)

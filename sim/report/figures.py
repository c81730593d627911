"""The plots of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.report.plots import Mark, Plot, Series

if TYPE_CHECKING:
    from sim.model.outcome import Outcome
    from sim.report.sweeps import ReservationPoint

__all__ = ["run_plots", "sweep_plots"]


def run_plots(outcome: Outcome) -> list[Plot]:
    """Return the plots of one run."""
    return [
        _latency(outcome),
        _slots(outcome),
        _entropy(outcome),
        _links(outcome),
        _timeline(outcome),
    ]


def sweep_plots(
    rates: dict[int, list[tuple[int, float]]], points: list[ReservationPoint]
) -> list[Plot]:
    """Return the plots of throughput and of reservations."""
    lines = [Series(f"{w} B slots", [(float(c), r) for c, r in at]) for w, at in rates.items()]
    shares = (
        Series("granted", [(p.load, p.granted) for p in points]),
        Series("collided", [(p.load, p.collided) for p in points]),
        Series("past the last slot", [(p.load, p.waiting) for p in points]),
    )
    return [
        Plot("throughput", "Payload of a full round over its time", "clients", "kB/s", lines),
        Plot(
            "reservations",
            "What becomes of reservations",
            "reservations for each slot",
            "share",
            shares,
        ),
    ]


def _latency(outcome: Outcome) -> Plot:
    ordered = sorted(outcome.latencies)
    rounds = sorted(outcome.round_seconds)
    cdf = [(v, (i + 1) / len(ordered)) for i, v in enumerate(ordered)]
    own = [(v, (i + 1) / len(rounds)) for i, v in enumerate(rounds)]
    series = (Series("message to receipt", cdf), Series("opening to record", own))
    return Plot("latency", "Latency", "seconds", "share at most", series, kind="step")


def _slots(outcome: Outcome) -> Plot:
    series = (
        Series("used", [(float(r.number), float(r.used)) for r in outcome.rounds]),
        Series("void", [(float(r.number), float(r.void)) for r in outcome.rounds]),
        Series(
            "reserved for the next", [(float(r.number), float(r.reserved)) for r in outcome.rounds]
        ),
    )
    return Plot("slots", f"Slots of {outcome.slots}", "round", "slots", series)


def _entropy(outcome: Outcome) -> Plot:
    found = [(float(r.number), r.entropy_bits) for r in outcome.rounds]
    series = (Series("author among participants", found),)
    return Plot("entropy", "Anonymity set of a round", "round", "bits", series)


def _links(outcome: Outcome) -> Plot:
    sent = {k.partition("/")[2]: v for k, v in outcome.links.items() if k.startswith("sent/")}
    received = {
        k.partition("/")[2]: v for k, v in outcome.links.items() if k.startswith("received/")
    }
    names, span = list(sent), max(outcome.seconds, 1e-9)
    rate = 8 / 1e6 / span
    series = (
        Series("sent", [(float(i), sent[n] * rate) for i, n in enumerate(names)]),
        Series("received", [(float(i), received[n] * rate) for i, n in enumerate(names)]),
    )
    return Plot("links", "Mean bandwidth of links", "", "Mbit/s", series, kind="bar", names=names)


def _timeline(outcome: Outcome) -> Plot:
    series = (Series("participants", [(r.sealed, float(r.participants)) for r in outcome.rounds]),)
    marks = [
        Mark(row.at, row.at + row.value, f"{row.note} {row.node}")
        for row in outcome.rows
        if row.event == "fault_began"
    ]
    marks += [
        Mark(r.at, r.at, f"aborted {r.round}") for r in outcome.rows if r.event == "round_aborted"
    ]
    marks += [
        Mark(r.at, r.at, f"leads {r.node}") for r in outcome.rows if r.event == "leader_elected"
    ]
    return Plot(
        "timeline", "Rounds and faults", "seconds", "participants", series, kind="step", marks=marks
    )

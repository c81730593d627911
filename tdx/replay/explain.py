"""Say which event differs when a log's replay is not what the quote holds.

A register is a chain of hashes, so a wrong value alone says nothing about where. But the usual
reasons leave traces that can be tried: the quote was made earlier, one event was logged and not
measured, its data or digest in the log was changed, or two neighbours changed places. With a
reference log the first difference is found directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha384
from itertools import zip_longest
from typing import TYPE_CHECKING

from tdx.quote import extend_all

if TYPE_CHECKING:
    from tdx.replay.ccel import Event, EventLog

__all__ = ["Finding", "compare_logs", "explain"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold what was found about one register.

    Attributes:
        register: 0 to 3.
        text: One line for people, naming the event where one was found.
        event: The event, or None.
    """

    register: int
    text: str
    event: Event | None


def explain(log: EventLog, rtmr: tuple[bytes, ...]) -> list[Finding]:
    """Compare a replay with the registers of a quote; an empty list means all four agree.

    Args:
        log: The parsed log.
        rtmr: RTMR0 to RTMR3 of the quote, 48 bytes each.
    """
    replayed = log.replay()
    return [
        _explain_one(log.of(register), register, wanted)
        for register, wanted in enumerate(rtmr)
        if replayed[register] != wanted
    ]


def compare_logs(log: EventLog, reference: EventLog) -> list[Finding]:
    """Find, register by register, the first event that differs from a reference log."""
    found: list[Finding] = []
    for register in range(4):
        for ours, theirs in zip_longest(log.of(register), reference.of(register)):
            if ours is not None and theirs is not None and ours.digest == theirs.digest:
                continue
            found.append(_difference(register, ours, theirs))
            break
    return found


def _difference(register: int, ours: Event | None, theirs: Event | None) -> Finding:
    name = f"rtmr{register}"
    if ours is None:
        expected = "nothing" if theirs is None else theirs.describe()
        return Finding(register, f"{name}: the log ends where the reference has {expected}", theirs)
    if theirs is None:
        return Finding(register, f"{name}: the reference ends before {ours.describe()}", ours)
    text = f"{name}: {ours.describe()} differs; the reference has {theirs.describe()}"
    return Finding(register, text, ours)


def _explain_one(events: tuple[Event, ...], register: int, wanted: bytes) -> Finding:
    digests = [event.digest for event in events]
    name = f"rtmr{register}"
    for length in range(len(digests)):
        if extend_all(digests[:length]) == wanted:
            return Finding(
                register,
                f"{name}: the quote was made before {events[length].describe()}",
                events[length],
            )
    for place, event in enumerate(events):
        if extend_all(digests[:place] + digests[place + 1 :]) == wanted:
            return Finding(register, f"{name}: {event.describe()} was never measured", event)
        honest = sha384(event.data).digest()
        if extend_all([*digests[:place], honest, *digests[place + 1 :]]) == wanted:
            text = f"{name}: the digest of {event.describe()} was changed in the log"
            return Finding(register, text, event)
        swapped = [*digests[:place], *reversed(digests[place : place + 2]), *digests[place + 2 :]]
        if extend_all(swapped) == wanted:
            return Finding(
                register, f"{name}: {event.describe()} and the next changed places", event
            )
    return _suspect(events, register)


def _suspect(events: tuple[Event, ...], register: int) -> Finding:
    name = f"rtmr{register}"
    for event in events:
        if event.digest_fits is False:
            text = f"{name}: {event.describe()} does not carry the digest of its data"
            return Finding(register, text, event)
    text = f"{name}: no single change of the log's {len(events)} events gives the quote's value"
    return Finding(register, text, None)

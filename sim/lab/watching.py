"""Adversaries that only watch: sizes and timings of all links, and who was there when."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from sim.lab.spy import Spy

if TYPE_CHECKING:
    from sim.model.fabric import Packet

__all__ = ["IntersectingObserver", "PassiveObserver"]


class PassiveObserver(Spy):
    """Sees every packet's ends, time and size, and tries to tell talking rounds from cover.

    After the run, ``samples`` has for each measure the values of talking and of silent rounds.
    """

    def __init__(self, mutant: str | None = None) -> None:
        super().__init__(mutant)
        self._headers: dict[str, list[float]] = defaultdict(list)
        self._sent: dict[str, list[tuple[float, int]]] = defaultdict(list)

    def packet(self, packet: Packet) -> None:
        """Note headers to clients and envelopes from them."""
        if packet.kind == "header" and packet.target.startswith("client-"):
            self._headers[packet.target].append(packet.arrived)
        elif packet.kind == "envelope":
            self._sent[packet.source].append((packet.sent, packet.size))

    def samples(self) -> dict[str, tuple[list[float], list[float]]]:
        """Return, by measure, what was seen in talking rounds and in rounds of cover."""
        assert self.world is not None
        found: dict[str, tuple[list[float], list[float]]] = {
            name: ([], []) for name in ("sent at all", "bytes", "delay after the header")
        }
        for client in self.world.clients:
            spoke = client.machine.spoke
            for number, arrived in enumerate(self._headers[client.name], start=1):
                kind = 0 if number in spoke else 1
                later = self._headers[client.name][number : number + 1] or [math.inf]
                sent = [s for s in self._sent[client.name] if arrived <= s[0] < later[0]]
                found["sent at all"][kind].append(float(bool(sent)))
                if sent:
                    found["bytes"][kind].append(float(sent[0][1]))
                    found["delay after the header"][kind].append(sent[0][0] - arrived)
        return found


class IntersectingObserver(Spy):
    """Knows who took part in each round, and that certain messages have one author.

    With each further round that shows a message of the target, whoever was not there is out.
    """

    def __init__(self, mutant: str | None = None) -> None:
        super().__init__(mutant)
        self._present: dict[int, set[str]] = defaultdict(set)

    def packet(self, packet: Packet) -> None:
        """Note who sends envelopes."""
        if packet.kind == "envelope" and self.world is not None:
            number = max((r for r in self.world.open_rounds()), default=0)
            self._present[number].add(packet.source)

    def candidates(self, target: str) -> list[int]:
        """Return how many candidates are left after each round with a message of the target."""
        assert self.world is not None
        left: set[str] | None = None
        sizes: list[int] = []
        for record in self.records:
            authors = {self.world.truth.get(f.message_id) for f in record.fragments.values()}
            if target not in authors:
                continue
            here = self._present[int(record.round)]
            left = set(here) if left is None else left & here
            sizes.append(max(len(left), 1))
        return sizes

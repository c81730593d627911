"""The trace of each round at one node: a span for the round, one for each of its phases.

The phases of a server, in order: ``fold`` (waiting for an aggregate), ``unblind``, ``collect``
(waiting for the others' partials), ``assemble``, ``store``. They say what a server waited for, and
nothing about who took part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.observe.tracing import round_trace_id

if TYPE_CHECKING:
    from zipnet.observe.tracing import Span, Tracer
    from zipnet.protocol.header import RoundHeader

__all__ = ["RoundTraces"]


class RoundTraces:
    """Follows one round after the other.

    Args:
        tracer: Where spans go.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._round: Span | None = None
        self._phase: Span | None = None
        self._name = ""
        self._number = -1

    def opened(self, header: RoundHeader, phase: str = "fold") -> None:
        """Begin a round's trace."""
        self.closed(self._number, "superseded")
        self._number = int(header.round)
        self._round = self._tracer.begin(
            "round", trace_id=round_trace_id(header.hash), round=self._number
        )
        self.phase(phase)

    def phase(self, name: str) -> None:
        """End the phase before and begin this one; nothing where it goes on, or has no name."""
        if self._round is None or name in ("", self._name):
            return
        if self._phase is not None:
            self._phase.end()
        self._name = name
        self._phase = self._tracer.begin(name, parent=self._round, round=self._number)

    def closed(self, number: int, outcome: str, **attributes: str | int) -> None:
        """End the trace of a round, where it is the one that is followed."""
        if self._round is None or number != self._number:
            return
        if self._phase is not None:
            self._phase.end(outcome)
        self._round.end(outcome, **attributes)
        self._round = self._phase = None
        self._name = ""

"""What happened, in order: the digest that proves two runs alike, and the rows reports are made of.

Every event of the run goes into the digest; packets go into per-link sums and, where somebody
watches, to the watcher. Rows are plain values, ready for JSON and Parquet.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from blake3 import blake3

__all__ = ["Row", "Trace", "Value"]

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Row:
    """One event.

    Attributes:
        at: Virtual seconds.
        event: What happened, in the past tense.
        node: Where.
        round: In which round, 0 for none.
        value: A number that goes with it: bytes, seconds, a count.
        note: A word that goes with it.
    """

    at: float
    event: str
    node: str
    round: int = 0
    value: float = 0.0
    note: str = ""


@dataclass(slots=True)
class Trace:
    """The run's events.

    Attributes:
        rows: Kept events; those of single envelopes are counted only.
        counted: How many events there were of each kind.
    """

    rows: list[Row] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    _hasher: blake3 = field(default_factory=blake3)

    def note(
        self,
        at: float,
        event: str,
        node: str,
        *,
        round_number: int = 0,
        value: float = 0.0,
        note: str = "",
        keep: bool = True,
    ) -> None:
        """Take an event."""
        row = Row(at, event, node, round_number, value, note)
        text = f"{at:.9f}|{event}|{node}|{round_number}|{value:.9f}|{note}\n"
        self._hasher.update(text.encode())
        self.counted[event] = self.counted.get(event, 0) + 1
        if keep:
            self.rows.append(row)

    def digest(self) -> str:
        """Return the digest over all events so far, as 64 hexadecimal digits."""
        return str(self._hasher.hexdigest())

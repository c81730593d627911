"""How long a program waits for ``import zipnet.sdk``, and what it loads on the way.

``python -m benchmarks.imports [--json] [--runs N]`` starts fresh interpreters, alternating between
the statements below, and prints minimum and median of the statement's own time (the interpreter's
start is not in it). The minimum is what compares across busy machines; the goal is 150 ms.

* ``asyncio`` — the floor: every program of the SDK loads it;
* ``zipnet`` — the names alone, whose modules load on first use;
* ``zipnet.sdk`` — publisher, reader, verification;
* ``zipnet.sdk + quic`` — the same, and what the first dialled link loads.

Before and after a client stopped loading numpy, the X.509 parser, quote verification and structlog
(fifteen runs in turn, on two cores with a load of four): 294 → 209 ms at best, 324 → 252 ms in the
median; with a load of two, 169 ms at best. The goal is not reached there: what is left is asyncio
(30), msgspec (18), cryptography's bindings and the making of some two hundred small classes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from statistics import median

__all__ = ["STATEMENTS", "Row", "main", "measure"]

STATEMENTS = {
    "asyncio": "import asyncio",
    "zipnet": "import zipnet",
    "zipnet.sdk": "import zipnet.sdk",
    "zipnet.sdk + quic": "import zipnet.sdk, zipnet.transport.quic",
}
_PROGRAM = """
import sys, time
began = time.perf_counter()
{statement}
took = time.perf_counter() - began
print(took * 1000, len(sys.modules))
"""


@dataclass(frozen=True)
class Row:
    """What one statement costs, in milliseconds and loaded modules."""

    name: str
    runs: int
    min_ms: float
    median_ms: float
    modules: int


def _once(statement: str) -> tuple[float, int]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(statement=statement)],
        capture_output=True,
        text=True,
        check=True,
    )
    took_ms, modules = done.stdout.split()
    return float(took_ms), int(modules)


def measure(runs: int) -> list[Row]:
    """Run every statement ``runs`` times, alternating."""
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in STATEMENTS}
    for _ in range(runs):
        for name, statement in STATEMENTS.items():
            found[name].append(_once(statement))
    return [
        Row(
            name,
            runs,
            min(took for took, _ in rows),
            median(took for took, _ in rows),
            rows[-1][1],
        )
        for name, rows in found.items()
    ]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--runs", type=int, default=11, help="fresh interpreters per statement")
    options = parser.parse_args()
    for row in measure(options.runs):
        if options.json:
            print(json.dumps(asdict(row)))
        else:
            print(
                f"{row.name:<18} min {row.min_ms:6.0f} ms  median {row.median_ms:6.0f} ms"
                f"  {row.modules:4d} modules"
            )


if __name__ == "__main__":
    main()

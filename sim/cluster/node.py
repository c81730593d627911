"""Run ``zipnet`` on a clock that can be put wrong: ``python -m sim.cluster.node SKEW …``.

As long as the file SKEW is there, it holds the seconds that the wall clock of this process is off.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

__all__ = ["skew_by"]


def skew_by(file: Path) -> None:
    """Replace the wall clock of this process by one that reads its error from a file."""

    def error_s() -> float:
        try:
            return float(file.read_text() or 0)
        except (OSError, ValueError):
            return 0.0

    wall, wall_ns = time.time, time.time_ns
    time.time = lambda: wall() + error_s()
    time.time_ns = lambda: wall_ns() + int(error_s() * 1_000_000_000)


if __name__ == "__main__":
    skew_by(Path(sys.argv.pop(1)))
    # Imported afterwards: what takes a function by name takes the replaced one.
    from zipnet.cli import main

    sys.exit(main())

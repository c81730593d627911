"""Run ``zipnet`` on a bad clock and a bad disk, on demand: ``python -m tests.chaos.node DIR …``.

Files in DIR say how, as long as they are there: ``skew`` holds seconds that the wall clock is off,
``slow`` seconds that each fsync of the state takes longer, and where ``full`` is, no write to the
state finds room.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

__all__ = ["misbehave"]


def misbehave(folder: Path) -> None:
    """Replace the clock and the file operations of this process."""
    _skew(folder / "skew")
    _spoil_disk(folder / "slow", folder / "full")


def _number(file: Path) -> float:
    try:
        return float(file.read_text() or 0)
    except (OSError, ValueError):
        return 0.0


def _skew(file: Path) -> None:
    wall, wall_ns = time.time, time.time_ns
    time.time = lambda: wall() + _number(file)
    time.time_ns = lambda: wall_ns() + int(_number(file) * 1_000_000_000)


def _spoil_disk(slow: Path, full: Path) -> None:
    fsync, pwrite = os.fsync, os.pwrite

    def is_state(descriptor: int) -> bool:
        return ".state" in str(Path(f"/proc/self/fd/{descriptor}").readlink())

    def slow_fsync(descriptor: int) -> None:
        if is_state(descriptor):
            time.sleep(_number(slow))
        fsync(descriptor)

    def full_pwrite(descriptor: int, data: bytes | memoryview, offset: int) -> int:
        if full.exists() and is_state(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, offset)

    os.fsync, os.pwrite = slow_fsync, full_pwrite  # type: ignore[assignment]


if __name__ == "__main__":
    misbehave(Path(sys.argv.pop(1)))
    # Imported afterwards: what takes a function by name takes the replaced one.
    from zipnet.cli import main

    sys.exit(main())

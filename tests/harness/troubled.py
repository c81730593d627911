"""Run ``zipnet`` with troubles on demand: ``python -m tests.harness.troubled DIR …``.

Besides what ``tests.chaos.node`` reads from DIR (``skew``, ``slow``, ``full``): while the file
``entropy`` is there, the kernel's generator is not seeded; the file ``version`` holds the version
this node takes itself for.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.chaos.node import misbehave

__all__ = ["trouble"]


def trouble(folder: Path) -> None:
    """Replace what this process asks the kernel and its own build."""
    misbehave(folder)
    from zipnet.node import build

    getrandom, own = os.getrandom, build.build_version()

    def unseeded(size: int, flags: int = 0) -> bytes:
        if flags & os.GRND_NONBLOCK and (folder / "entropy").exists():
            raise BlockingIOError
        return getrandom(size, flags)

    def version() -> str:
        try:
            return (folder / "version").read_text().strip() or own
        except OSError:
            return own

    os.getrandom, build.build_version = unseeded, version


if __name__ == "__main__":
    trouble(Path(sys.argv.pop(1)))
    # Imported afterwards: what takes a function by name takes the replaced one.
    from zipnet.cli import main

    sys.exit(main())

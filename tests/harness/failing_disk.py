"""Run ``zipnet`` on a failing disk: ``python -m tests.harness.failing_disk WORD TRIGGER …``.

From the moment the file TRIGGER exists, an fsync of a file whose path has WORD in it ends in EIO.
What was written stays in the page cache, as the kernel leaves it: a reader of the file sees it.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from zipnet.cli import main

_fsync = os.fsync


def fail_on(word: str, trigger: Path) -> None:
    """Replace ``os.fsync`` for this process."""

    def fsync(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if word in path and trigger.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        _fsync(descriptor)

    os.fsync = fsync  # type: ignore[assignment]


if __name__ == "__main__":
    fail_on(sys.argv[1], Path(sys.argv[2]).resolve())
    del sys.argv[1:3]
    sys.exit(main())

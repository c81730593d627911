"""Run ``zipnet`` as the units and the image run it: no root, no capability, a read-only system.

``python -m tests.harness.boxed server …`` becomes bubblewrap, which becomes ``zipnet server …``:
everything but the working folder is mounted read-only, and there is no other program to start,
least of all one that tells where libraries are.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_UID = "65532"


def command(words: list[str], folder: Path) -> list[str]:
    """Return the words that run ``zipnet words…`` in a box that can write to ``folder``."""
    return [
        *("bwrap", "--die-with-parent", "--unshare-user", "--uid", _UID, "--gid", _UID),
        *("--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        *("--tmpfs", "/usr/sbin", "--setenv", "PATH", "/nowhere"),
        *("--bind", str(folder), str(folder), "--chdir", str(folder)),
        *(sys.executable, *words),
    ]


if __name__ == "__main__":
    os.execvp("bwrap", command(["-m", "zipnet", *sys.argv[1:]], Path.cwd()))  # noqa: S606

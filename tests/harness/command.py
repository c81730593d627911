"""Run the real ``zipnet`` command in a process of its own, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def everything(self) -> str:
        """All it said, for canary searches."""
        return self.out + self.err


def zipnet(
    *words: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    text: str = "",
    program: str = "from zipnet.cli import main; sys.exit(main())",
) -> Done:
    """Run ``zipnet words…`` in ``cwd`` and wait for it, half a minute at most."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        **(env or {}),
    }
    command = [sys.executable, "-c", f"import sys; {program}", *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, env=environ, input=text, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)

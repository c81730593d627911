"""External checkers: run when they are here, skipped with a printed reason when they are not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "ops"


def require_tool(name: str) -> str:
    """Return the path of a checker; without it skip, or fail where it is demanded."""
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"{name} is not installed (make ops-tools installs it where that is possible)"
    if os.environ.get("ZIPNET_REQUIRE_OPS_TOOLS"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(
    *command: str | Path, cwd: Path = ROOT, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a checker to its end, both outputs joined."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )

"""Run every model through spin: right designs must hold, wrong ones must be caught.

Prints the states explored and the promises; exit status 1 when a promise breaks or a wrong design
passes. ``--small`` runs the instances of the test suite, everything otherwise.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
DEADLINE_S = 900
_STATES = re.compile(r"(\d+(?:\.\d+e\+\d+)?) states, stored")
_ERRORS = re.compile(r"errors: (\d+)")


@dataclass(frozen=True)
class Check:
    """One run of one model.

    Attributes:
        model: Name of the model.
        promises: What is held to it.
        defines: Bounds and wrong designs.
        holds: Whether the promises must hold.
        small: Whether it is part of the test suite.
        liveness: Whether the model's LTL property is checked, under weak fairness.
    """

    model: str
    promises: str
    defines: tuple[str, ...] = ()
    holds: bool = True
    small: bool = True
    liveness: bool = False


GUARD, ROUND, READY = (
    "OnePartial Minimum Forward",
    "OnePartial Minimum NoFork AbortHides OnceCommitted OneMask",
    "Thaw Honest",
)
CHECKS = (
    Check("guard", GUARD),
    *(
        Check("guard", GUARD, (wrong,), holds=False)
        for wrong in ("FORGETS", "SENDS_FIRST", "NO_MINIMUM", "GOES_BACK")
    ),
    Check("round", ROUND, ("LEADER=3", "ROUNDS=1", "CRASHES=1")),
    Check("round", ROUND, ("LEADER=5", "ROUNDS=2", "CRASHES=0"), small=False),
    Check("round", ROUND, ("LEADER=4", "ROUNDS=1", "CRASHES=1"), small=False),
    *(
        Check("round", ROUND, (wrong, "LEADER=4", "ROUNDS=1"), holds=False)
        for wrong in ("REVEALS_EARLY", "ABORTS_LATE", "NO_GUARD")
    ),
    Check("readiness", READY, liveness=True),
    *(
        Check("readiness", READY, (wrong,), holds=False, liveness=True)
        for wrong in ("LINKS_NEED_KEYS", "READY_FOREVER")
    ),
)


def tools_missing() -> str | None:
    """Return what is needed and not there, None when everything is."""
    missing = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]
    return f"{', '.join(missing)} not installed: see `make model-tools`" if missing else None


def run(check: Check) -> tuple[bool, str]:
    """Run one check; returns whether it went as it should, and a line about it."""
    with tempfile.TemporaryDirectory(prefix="zipnet-model-") as name:
        folder = Path(name)
        defines = [f"-D{define}" for define in check.defines]
        _call(["spin", *defines, "-a", str(FOLDER / f"{check.model}.pml")], folder)
        built = ["-DNFAIR=6"] if check.liveness else ["-DSAFETY"]
        _call(["gcc", "-O2", "-w", "-DCOLLAPSE", *built, "-o", "pan", "pan.c"], folder)
        how = ["-a", "-f"] if check.liveness else ["-E"]
        began = time.monotonic()
        said = _call(["./pan", *how, "-m500000"], folder)
    errors, states = _ERRORS.search(said), _STATES.search(said)
    if errors is None or states is None or "max search depth too small" in said:
        return False, f"FAILED {check.model}: spin did not finish: {said[-300:]}"
    held = errors[1] == "0"
    design = " ".join(check.defines) or "as it is"
    verdict = "holds" if held else "broken"
    line = (
        f"{check.model:<10} {design:<38} {int(float(states[1])):>10,} states  {verdict:<6} "
        f"{time.monotonic() - began:5.1f} s  {check.promises}"
    )
    return held == check.holds, line if held == check.holds else f"WRONG  {line}"


def _call(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    if done.returncode and not command[0].startswith("./"):
        raise RuntimeError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def main() -> int:
    """Run the checks asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--small", action="store_true", help="the instances of the test suite")
    options = parser.parse_args()
    missing = tools_missing()
    if missing:
        print(f"models not checked: {missing}", file=sys.stderr)
        return 2
    right = True
    for check in CHECKS:
        if options.small and not check.small:
            continue
        went_right, line = run(check)
        print(line, flush=True)
        right = right and went_right
    print("model ok" if right else "model failed")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

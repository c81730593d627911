"""``make fuzz MINUTES=…``: every coverage-guided fuzzer, one after the other, from good inputs.

What was found is kept below ``out/fuzz``: the corpus as it grew, any input that broke something.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from tests.fuzz.fuzz_parsers import PARSERS as PROTOCOL
from tests.fuzz.fuzz_stored import PARSERS as STORED
from tests.fuzz.seeds import make_seeds
from tests.fuzz.test_parsers_fuzz import GOOD
from tests.fuzz.test_stored_fuzz import frame, name_for

__all__ = ["main"]

_LIMITS = ("-max_len=32768", "-timeout=10", "-rss_limit_mb=2048")
_FRAMES = Path(__file__).parent / "corpus" / "frames"


def _fill(program: str, corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    if program == "fuzz_frames":
        for file in _FRAMES.iterdir():
            shutil.copy(file, corpus)
    elif program == "fuzz_parsers":
        for name, good in GOOD.items():
            prefix = bytes([list(PROTOCOL).index(name)])
            (corpus / name.replace(" ", "-")).write_bytes(prefix + good)
    else:
        for seed, good in make_seeds().items():
            (corpus / seed.replace(" ", "-")).write_bytes(frame(name_for(seed), good))


def main() -> int:
    """Run each fuzzer for its share of the time; 1 when one found something."""
    parser = argparse.ArgumentParser(description="fuzz every parser")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--out", type=Path, default=Path("out") / "fuzz")
    options = parser.parse_args()
    print(f"fuzz: {len(PROTOCOL)} + {len(STORED)} parsers and the frames", flush=True)
    failed = 0
    programs = ("fuzz_frames", "fuzz_parsers", "fuzz_stored")
    for program in programs:
        corpus = options.out / program
        _fill(program, corpus)
        seconds = max(1, int(options.minutes * 60 / len(programs)))
        limits = [
            f"-max_total_time={seconds}",
            "-max_len=32768",
            "-timeout=10",
            "-rss_limit_mb=2048",
        ]
        done = subprocess.run(
            [
                *(sys.executable, "-m", f"tests.fuzz.{program}", *limits),
                *(f"-artifact_prefix={options.out}/{program}-", str(corpus)),
            ],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        last = [line for line in done.stderr.splitlines() if line.startswith(("#", "Done"))][-1:]
        print(f"{program}: {'ok' if done.returncode == 0 else 'FOUND'} {''.join(last)}", flush=True)
        if done.returncode != 0:
            failed += 1
            print(done.stderr[-3000:], flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Time a full quote verification, beside the ``dcap-qvl`` wheel in the same run.

Both verify the same emulated quote from bytes to verdict, turn by turn, so that a busy machine
slows both. With the real vectors at hand (``ZIPNET_TDX_VECTORS``) it times a real quote as well.

Run: ``python -m benchmarks.tdx_verify [--rounds 200]``
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import dcap_qvl

from tdx.collateral import Bundle
from tdx.emulator import Emulator
from tdx.policy import Policy
from tdx.trust import TrustRoot
from tdx.verify import verify

LIMIT_MS = 1.5
EMULATED_AT = 1_790_000_000
REAL_AT = 1_769_507_459


def interleaved(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    """Time both calls ``rounds`` times, alternating; milliseconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, found in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            call()
            found.append((time.perf_counter() - start) * 1e3)
    return times


def report(title: str, ours: list[float], theirs: list[float]) -> None:
    """Print medians and the fastest of both."""
    for name, found in (("tdx", ours), ("dcap-qvl", theirs)):
        print(
            f"{title:<14} {name:<9} median {statistics.median(found):6.3f} ms   "
            f"fastest {min(found):6.3f} ms"
        )


def emulated(rounds: int) -> None:
    """Time an emulated version 5 quote."""
    emulator = Emulator(now=EMULATED_AT)
    quote, bundle = emulator.quote(bytes(64), version=5), emulator.bundle()
    root, policy = emulator.trust_root, Policy(allow_emulated=True)
    collateral = dcap_qvl.QuoteCollateralV3.from_json(bundle.to_json())
    der = emulator.root_der
    ours, theirs = interleaved(
        lambda: verify(quote, bundle, root=root, now=EMULATED_AT, policy=policy),
        lambda: dcap_qvl.verify_with_root_ca(quote, collateral, der, EMULATED_AT),
        rounds,
    )
    report("emulated v5", ours, theirs)


def real(rounds: int, vectors: Path) -> None:
    """Time a real version 4 quote."""
    quote = (vectors / "quotes" / "fb_gcp_2025.bin").read_bytes()
    text = (vectors / "collateral" / "fb_gcp_2025.json").read_text()
    bundle, root = Bundle.from_json(text), TrustRoot.intel()
    collateral = dcap_qvl.QuoteCollateralV3.from_json(text)
    ours, theirs = interleaved(
        lambda: verify(quote, bundle, root=root, now=REAL_AT),
        lambda: dcap_qvl.verify(quote, collateral, REAL_AT),
        rounds,
    )
    report("real v4", ours, theirs)


def main() -> None:
    """Run both and say whether the target was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    emulated(rounds)
    default = Path(__file__).resolve().parents[2] / "shared" / "tdx-data"
    vectors = Path(os.environ.get("ZIPNET_TDX_VECTORS", default))
    if (vectors / "INDEX.md").is_file():
        real(rounds, vectors)
    else:
        print("real v4        skipped: set ZIPNET_TDX_VECTORS to the vectors' directory")
    print(f"target: at most {LIMIT_MS} ms for a full verification on an idle machine")


if __name__ == "__main__":
    main()

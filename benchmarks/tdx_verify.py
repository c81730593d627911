"""Time a full quote verification, beside the ``dcap-qvl`` wheel in the same run.

Three verify the same quote from bytes to verdict, turn by turn, so that a busy machine slows all:
``tdx`` with a memo its caller keeps (certificates and collateral are parsed once, as they are in
the collateral object the wheel is given; every signature, date, revocation and policy is checked
again), ``tdx first`` reading everything anew, and the wheel. The first column is the median, the
second the median of each turn's ratio to the wheel.

With the real vectors at hand (``ZIPNET_TDX_VECTORS``) it times real quotes as well.

Run: ``python -m benchmarks.tdx_verify [--rounds 300]``
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import dcap_qvl

from tdx.collateral import Bundle
from tdx.emulator import Emulator
from tdx.policy import Policy
from tdx.trust import TrustRoot
from tdx.verify import Memo, verify

LIMIT_MS = 1.5
EMULATED_AT = 1_790_000_000
# Quote, collateral and time at which the pair is up to date.
REAL = {
    "real v4": ("fb_gcp_2025", "fb_gcp_2025", 1_769_507_459),
    "real v5": ("gotdx_v5", "dcapqvl_tdx_quote_outdated", 1_771_412_391),
}
WHEEL = "dcap-qvl"


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each call ``rounds`` times, in turns; milliseconds by name."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def compare(
    title: str,
    ours: Callable[[Memo | None], object],
    theirs: Callable[[], object],
    rounds: int,
) -> float:
    """Print medians, paired ratios and the fastest; return the median with a memo."""
    memo = Memo()
    ours(memo)
    times = interleaved(
        {"tdx": lambda: ours(memo), "tdx first": lambda: ours(None), WHEEL: theirs}, rounds
    )
    for name, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, times[WHEEL], strict=True))
        print(
            f"{title:<12} {name:<10} median {statistics.median(found):6.3f} ms   "
            f"{ratio:5.2f} x   fastest {min(found):6.3f} ms"
        )
    return statistics.median(times["tdx"])


def emulated(version: int, rounds: int) -> float:
    """Time an emulated quote."""
    emulator = Emulator(now=EMULATED_AT)
    quote, bundle = emulator.quote(bytes(64), version=version), emulator.bundle()
    root, policy = emulator.trust_root, Policy(allow_emulated=True)
    collateral = dcap_qvl.QuoteCollateralV3.from_json(bundle.to_json())
    der = emulator.root_der
    return compare(
        f"emulated v{version}",
        lambda memo: verify(quote, bundle, root=root, now=EMULATED_AT, policy=policy, memo=memo),
        lambda: dcap_qvl.verify_with_root_ca(quote, collateral, der, EMULATED_AT),
        rounds,
    )


def real(title: str, rounds: int, vectors: Path) -> float:
    """Time a real quote."""
    name, pair, now = REAL[title]
    quote = (vectors / "quotes" / f"{name}.bin").read_bytes()
    text = (vectors / "collateral" / f"{pair}.json").read_text()
    bundle, root = Bundle.from_json(text), TrustRoot.intel()
    collateral = dcap_qvl.QuoteCollateralV3.from_json(text)
    return compare(
        title,
        lambda memo: verify(quote, bundle, root=root, now=now, memo=memo),
        lambda: dcap_qvl.verify(quote, collateral, now),
        rounds,
    )


def main() -> None:
    """Run all and say whether the target was met; exit 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    medians = [emulated(version, rounds) for version in (4, 5)]
    default = Path(__file__).resolve().parents[2] / "shared" / "tdx-data"
    vectors = Path(os.environ.get("ZIPNET_TDX_VECTORS", default))
    if (vectors / "INDEX.md").is_file():
        medians += [real(title, rounds, vectors) for title in REAL]
    else:
        print("real quotes  skipped: set ZIPNET_TDX_VECTORS to the vectors' directory")
    met = max(medians) <= LIMIT_MS
    print(f"target {'met' if met else 'MISSED'}: {max(medians):.3f} of at most {LIMIT_MS} ms")
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()

"""What folding costs: one envelope checked and XORed, and its parts, in one interleaved run.

``python -m benchmarks.fold`` prints medians in µs for bodies of 18 kB (default parameters) and
180 kB (the paper's evaluation point). Ratios within one run mean something; absolute figures
depend on the machine. ``--quick`` is for the test that runs it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from zipnet.machines.fold import Fold
from zipnet.protocol.envelope import admit_envelope, seal_envelope
from zipnet.protocol.header import RoundHeader, SignedHeader
from zipnet.protocol.identity import Identity, verify_ed25519
from zipnet.protocol.ids import (
    Digest,
    GroupId,
    RegistryIndex,
    RoundNumber,
    ServerIndex,
    content_digest,
)
from zipnet.protocol.params import RoundParams
from zipnet.protocol.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["main", "measure"]

PARAMS = {
    "18 kB": RoundParams(),
    "180 kB": RoundParams(num_slots=1024, slot_bytes=160),
}
_CLIENTS = 1000
_ZERO = Digest(bytes(32))


def _header() -> RoundHeader:
    return RoundHeader(
        group=GroupId(bytes(32)),
        round=RoundNumber(1),
        descriptor_version=1,
        previous_final=RoundNumber(0),
        previous_record=_ZERO,
        schedule=_ZERO,
        registry_version=0,
        registry_digest=_ZERO,
        roster=(ServerIndex(0),),
        opener=ServerIndex(0),
        opened_at_ms=0,
    )


def _cases(params: RoundParams) -> Mapping[str, Callable[[], object]]:
    """The whole step of the machine, then its parts."""
    identity = Identity.from_secret(Secret(os.urandom(32)))
    key, header = identity.public.ed25519, _header()
    envelope = seal_envelope(header, RegistryIndex(0), os.urandom(params.body_bytes), identity)
    message = os.urandom(112)
    signature = identity.sign_ed25519("envelope", message)
    signed = SignedHeader(header, bytes(64))
    fold, following = Fold(signed, params.body_bytes, 0.0), 0
    sums = np.zeros(params.body_bytes, dtype=np.uint8)

    def whole() -> None:
        nonlocal fold, following
        admitted = admit_envelope(
            envelope,
            header_hash=header.hash,
            round_number=header.round,
            params=params,
            sender_key=key,
        )
        if following == _CLIENTS:
            fold, following = Fold(signed, params.body_bytes, 0.0), 0
        digest = content_digest(envelope.body)
        fold.add_envelope(RegistryIndex(following), admitted.body, digest, envelope.signature)
        following += 1

    return {
        "check and fold": whole,
        "signature": lambda: verify_ed25519(key, "envelope", message, signature),
        "body digest": lambda: content_digest(envelope.body),
        "xor": lambda: np.bitwise_xor(sums, np.frombuffer(envelope.body, np.uint8), out=sums),
        "copy, for scale": lambda: bytearray(envelope.body),
    }


def measure(params: RoundParams, rounds: int) -> dict[str, float]:
    """Return the median of each case in µs; cases take turns, so that noise hits all alike."""
    cases = _cases(params)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            began = time.perf_counter_ns()
            case()
            times[name].append((time.perf_counter_ns() - began) / 1000)
    return {name: statistics.median(found) for name, found in times.items()}


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fold", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, for the test")
    rounds = 20 if parser.parse_args(arguments).quick else 3000
    for size, params in PARAMS.items():
        found = measure(params, rounds)
        print(f"body {size} ({params.body_bytes} bytes), medians of {rounds}")
        for name, took_us in found.items():
            share = took_us / found["check and fold"]
            print(f"  {name:<16} {took_us:8.1f} µs  {share:5.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Microseconds per client of the pad path, beside ``openssl speed`` and a naive path.

``python -m benchmarks.pads [--quick] [--json]`` measures three ways to blind one client's body:

* *shipped* — step the chain, derive the pad key, apply the calibrated engine in place;
* *naive* — HKDF for the pad key, the pad made as bytes with AES-CTR, XORed with numpy;
* *openssl* — ``openssl speed -evp aes-256-ctr`` at the same length: the cipher and nothing else.

Shipped and naive runs alternate within every sample, openssl runs between sizes, so a change of
clock speed shifts all of them alike. Printed are medians and ratios; absolute figures belong to the
machine, ratios to the code.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from zipnet.protocol.ids import derive
from zipnet.protocol.pads import PadEngine
from zipnet.protocol.ratchet import pad_key, step

SIZES_KIB = (1, 16, 64, 176, 1024)
_HEADER_HASH = derive("header", b"benchmark")
_BUDGET_S = 3.0
_QUICK_BUDGET_S = 0.05
_OPENSSL_TIMEOUT_S = 20
_MAX_SAMPLES = 4000
_BATCH_BYTES = 64 * 1024


@dataclass(frozen=True)
class Row:
    """Medians at one body length, in microseconds; ``openssl_us`` is None where it did not run."""

    kib: int
    samples: int
    shipped_us: float
    naive_us: float
    openssl_us: float | None

    @property
    def naive_ratio(self) -> float:
        """How many times longer the naive path takes."""
        return self.naive_us / self.shipped_us

    @property
    def openssl_ratio(self) -> float | None:
        """Shipped time over the bare cipher's; 1.0 means that nothing is added to it."""
        return None if self.openssl_us is None else self.shipped_us / self.openssl_us


def shipped_client(engine: PadEngine, chain_key: bytearray, body: bytearray) -> None:
    """Do what a server does for one client in one round."""
    engine.apply(body, pad_key(chain_key, _HEADER_HASH))
    step(chain_key)


def naive_client(chain_key: bytes, body: bytearray) -> bytes:
    """Derive with HKDF, make the pad as bytes, XOR it with numpy; return the next chain key."""
    key = HKDF(hashes.SHA256(), 32, salt=None, info=b"pad" + _HEADER_HASH).derive(chain_key)
    following = HKDF(hashes.SHA256(), 32, salt=None, info=b"ratchet").derive(chain_key)
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(15) + b"\2")).encryptor()
    pad = encryptor.update(bytes(len(body))) + encryptor.finalize()
    target = np.frombuffer(body, dtype=np.uint8)
    np.bitwise_xor(target, np.frombuffer(pad, dtype=np.uint8), out=target)
    return following


def openssl_us(size: int, *, seconds: int) -> float | None:
    """Ask ``openssl speed`` for the time of one call at this length, or None if it cannot tell."""
    command = ["openssl", "speed", "-seconds", str(seconds), "-bytes", str(size)]
    try:
        done = subprocess.run(
            [*command, "-mr", "-evp", "aes-256-ctr"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_OPENSSL_TIMEOUT_S,
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return parse_openssl(done.stdout, size)


def parse_openssl(output: str, size: int) -> float | None:
    """Read the machine-readable line ``+F:22:AES-256-CTR:<bytes per second>``."""
    found = re.search(r"^\+F:[^:]*:aes-256-ctr:([0-9.]+)\s*$", output, re.MULTILINE | re.IGNORECASE)
    speed = float(found.group(1)) if found else 0.0
    return 1e6 * size / speed if speed else None


def measure(size: int, *, budget_s: float, openssl_s: int | None) -> Row:
    """Measure one length, alternating shipped and naive batches until the budget is spent."""
    engine = PadEngine.calibrate(time.perf_counter, body_bytes=size)
    shipped_body, naive_body = bytearray(size), bytearray(size)
    shipped_chain, naive_chain = bytearray(32), bytes(32)
    batch = max(1, _BATCH_BYTES // size)
    shipped: list[float] = []
    naive: list[float] = []
    end = time.perf_counter() + budget_s
    while len(shipped) < _MAX_SAMPLES and (not shipped or time.perf_counter() < end):
        begin = time.perf_counter()
        for _ in range(batch):
            shipped_client(engine, shipped_chain, shipped_body)
        middle = time.perf_counter()
        for _ in range(batch):
            naive_chain = naive_client(naive_chain, naive_body)
        shipped.append((middle - begin) / batch)
        naive.append((time.perf_counter() - middle) / batch)
    bare = None if openssl_s is None else openssl_us(size, seconds=openssl_s)
    return Row(size // 1024, len(shipped), 1e6 * median(shipped), 1e6 * median(naive), bare)


def print_table(rows: list[Row]) -> None:
    """Print one line per length."""
    print(f"{'KiB':>5} {'shipped µs':>11} {'openssl µs':>11} {'naive µs':>10}", end=" ")
    print(f"{'shipped/openssl':>16} {'naive/shipped':>14}")
    for row in rows:
        bare = "-" if row.openssl_us is None else f"{row.openssl_us:.2f}"
        ratio = "-" if row.openssl_ratio is None else f"{row.openssl_ratio:.2f}"
        print(f"{row.kib:>5} {row.shipped_us:>11.2f} {bare:>11} {row.naive_us:>10.2f}", end=" ")
        print(f"{ratio:>16} {row.naive_ratio:>14.2f}")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; about 25 s, or 5 s with ``--quick``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pads")
    parser.add_argument("--quick", action="store_true", help="a short run, for tests")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(arguments)
    budget_s = _QUICK_BUDGET_S if options.quick else _BUDGET_S
    has_openssl = shutil.which("openssl") is not None
    engine = PadEngine.calibrate(time.perf_counter)
    rows = [
        measure(kib * 1024, budget_s=budget_s, openssl_s=1 if has_openssl else None)
        for kib in SIZES_KIB
    ]
    if options.json:
        print(json.dumps({"engine": engine.name, "rows": [asdict(row) for row in rows]}))
        return 0
    print(f"pad engine at the default body: {engine.name}; medians of one interleaved run")
    if not has_openssl:
        print("openssl is not installed: its column is skipped")
    print_table(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

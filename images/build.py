"""Build the container image of both roles without a daemon: `images/build.py --out out/image`.

Writes `rootfs/` (to look at), `oci/` (to push or load) and `inputs` (a digest of everything the
image is made from; with `--if-changed` a finished build with the same inputs is kept).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from oci import ImageConfig, write_layout
from rootfs import SITE, SUITE, BuildError, make_rootfs
from statements import provenance, sign_statement

CHECKOUT: Final = Path(__file__).resolve().parents[1]
_INPUTS: Final = (
    "images/*.py",
    "requirements/node.txt",
    "requirements/build.txt",
    "pyproject.toml",
)
_SOURCES: Final = ("zipnet", "tdx")
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def main() -> int:
    """Build what the arguments ask for; return the exit status."""
    parser = argparse.ArgumentParser(description="Build the zipnet image as an OCI layout.")
    parser.add_argument("--out", type=Path, required=True, help="folder for rootfs/ and oci/")
    parser.add_argument("--sign", type=Path, help="PEM of an Ed25519 key to sign the provenance")
    parser.add_argument("--if-changed", action="store_true", help="keep a build of the same inputs")
    arguments = parser.parse_args()
    inputs = _inputs_digest()
    stamp = arguments.out / "inputs"
    if arguments.if_changed and stamp.is_file() and stamp.read_text("utf-8") == inputs:
        print(f"image: unchanged in {arguments.out}")
        return 0
    started = time.monotonic()
    try:
        key = None if arguments.sign is None else _signing_key(arguments.sign)
        digest = _build(arguments.out)
        _write_statements(arguments.out, digest, key)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    stamp.write_text(inputs, "utf-8")
    print(f"image: {digest} in {arguments.out}/oci, {time.monotonic() - started:.0f} s")
    return 0


def _build(out: Path) -> str:
    epoch = _epoch()
    for old in (out / "rootfs", out / "oci"):
        shutil.rmtree(old, ignore_errors=True)
    (out / "inputs").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        make_rootfs(CHECKOUT, out / "rootfs", Path(scratch), epoch=epoch)
    return write_layout(
        out / "rootfs",
        out / "oci",
        _config(epoch),
        layer_of=_layer_of,
        layers=2,
        epoch=epoch,
        tag="zipnet",
    )


def _write_statements(out: Path, digest: str, key: Ed25519PrivateKey | None) -> None:
    """Put beside the image what it is made of and how; signed where there is a key."""
    bill = (out / "rootfs/usr/share/zipnet/sbom.cdx.json").read_bytes()
    (out / "sbom.cdx.json").write_bytes(bill)
    inputs = {
        path.relative_to(CHECKOUT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in _input_files()
    }
    inputs["sbom.cdx.json"] = hashlib.sha256(bill).hexdigest()
    statement = provenance(
        image=digest,
        commit=_git("rev-parse", "HEAD"),
        inputs=inputs,
        environment={"python": platform.python_version(), "suite": SUITE, "epoch": str(_epoch())},
    )
    (out / "provenance.json").write_text(json.dumps(statement, indent=1) + "\n", "utf-8")
    envelope = out / "provenance.dsse.json"
    envelope.unlink(missing_ok=True)
    if key is not None:
        envelope.write_text(json.dumps(sign_statement(statement, key)) + "\n", "utf-8")


def _signing_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise BuildError(f"{path} holds no private key that can be used") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BuildError(f"{path} holds no Ed25519 key")
    return key


def _layer_of(path: str) -> int:
    """Put Debian's part lowest: it changes least."""
    pure = PurePosixPath(path)
    ours = pure.is_relative_to(SITE.as_posix()) or pure.name.startswith(("zipnet", "tdx"))
    return 1 if ours or pure.is_relative_to("usr/share/zipnet") else 0


def _config(epoch: int) -> ImageConfig:
    machine = platform.machine()
    return ImageConfig(
        architecture=_ARCHITECTURES.get(machine, machine),
        created=datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z"),
        entrypoint=("/usr/bin/zipnet",),
        health=("/usr/bin/zipnet", "health", "127.0.0.1:9464"),
        environment=(
            "PATH=/usr/bin",
            "LANG=C.UTF-8",
            "PYTHONDONTWRITEBYTECODE=1",
            *_build_facts(epoch),
        ),
        labels={
            "org.opencontainers.image.title": "zipnet",
            "org.opencontainers.image.description": "Anonymous broadcast: nodes and clients",
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.revision": _git("rev-parse", "HEAD") or "unknown",
        },
    )


def _build_facts(epoch: int) -> list[str]:
    """Tell what runs in the image which commit it is, and how old it and its inputs are."""
    facts = {
        "ZIPNET_BUILD_COMMIT": _git("rev-parse", "HEAD"),
        "ZIPNET_BUILD_TIME": str(epoch),
        "ZIPNET_INPUTS_TIME": _git("log", "-1", "--format=%ct", "--", "requirements/node.txt"),
    }
    return [f"{name}={value}" for name, value in facts.items() if value]


def _epoch() -> int:
    return int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct") or 0)


def _git(*arguments: str) -> str:
    if shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(CHECKOUT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _input_files() -> list[Path]:
    """Return every file that decides what goes into the image."""
    files = [path for pattern in _INPUTS for path in CHECKOUT.glob(pattern)]
    files += [path for package in _SOURCES for path in (CHECKOUT / package).rglob("*.py")]
    return sorted(files)


def _inputs_digest() -> str:
    digest = hashlib.sha256()
    for path in _input_files():
        digest.update(f"{path.relative_to(CHECKOUT)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())

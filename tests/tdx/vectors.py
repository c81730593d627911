"""Where the real quotes and collateral lie, and how tests load them."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "ZIPNET_TDX_VECTORS"


def directory() -> Path:
    """The vectors' directory; skips the calling test, saying so, where it is absent."""
    path = Path(os.environ.get(VARIABLE, ROOT.parent / "shared" / "tdx-data"))
    if not (path / "INDEX.md").is_file():
        pytest.skip(f"TDX vectors are absent: set {VARIABLE} to their directory")
    return path


@cache
def _read(path: Path) -> bytes:
    return path.read_bytes()


def quote(name: str) -> bytes:
    """The bytes of ``quotes/<name>.bin``."""
    return _read(directory() / "quotes" / f"{name}.bin")


def collateral(name: str) -> bytes:
    """The bytes of ``collateral/<name>.json``."""
    return _read(directory() / "collateral" / f"{name}.json")


def other(name: str) -> bytes:
    """The bytes of any other file below the vectors' directory."""
    return _read(directory() / name)

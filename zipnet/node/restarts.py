"""How often a server was started on its state folder (row A3), for somebody who watches it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["count_start"]

_FILE: Final = "starts"
_MOST_BYTES: Final = 20


def count_start(folder: Path) -> int:
    """Count a start and return how many there were before.

    It is a figure for operators: a file that cannot be read or written counts as none, and nothing
    waits until it is durable.
    """
    path = folder / _FILE
    before = _read(path)
    written = folder / f".{_FILE}"
    try:
        descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, f"{before + 1}\n".encode())
        finally:
            os.close(descriptor)
        written.replace(path)
    except OSError:
        return before
    return before


def _read(path: Path) -> int:
    try:
        text = path.read_bytes()[:_MOST_BYTES].decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdecimal() else 0

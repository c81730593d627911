"""Talk of the command line: data on stdout, a flushed line at a time; the rest on stderr."""

from __future__ import annotations

import getpass
import json
import sys
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["ask_pin", "data", "json_line", "note", "table", "write_whole"]


def data(line: str) -> None:
    """Write one line of data; flushed, so that a pipe sees it at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def json_line(value: Mapping[str, object]) -> None:
    """Write one JSON object as one line of data."""
    data(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def note(line: str) -> None:
    """Write one line for a person."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def ask_pin(prompt: str) -> str:
    """Ask the person at the terminal for a token's PIN, without showing it.

    Raises:
        ConfigError: When there is no terminal.
    """
    if not sys.stdin.isatty():
        raise ConfigError(
            "nobody is there to ask for the token's PIN",
            hint="name a file of mode 0600: --pin-file, or pin_file in the key's file",
        )
    return getpass.getpass(prompt, stream=sys.stderr)


def table(rows: Iterable[tuple[str, ...]]) -> None:
    """Write rows as data, columns aligned; the last column is not padded."""
    cells = list(rows)
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))] if cells else []
    for row in cells:
        data("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def write_whole(file: Path, pieces: Iterable[bytes]) -> None:
    """Write a new file, all of it or nothing.

    Raises:
        ConfigError: When there is one of that name, or it cannot be written.
    """
    try:
        with file.open("xb") as opened:
            try:
                opened.writelines(pieces)
                opened.flush()
            except BaseException:
                file.unlink()
                raise
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be written: {error.strerror}", hint="name a new file"
        ) from error

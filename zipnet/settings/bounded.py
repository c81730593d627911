"""Files of settings, read whole and never beyond a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_bounded"]


def read_bounded(path: Path, limit: int, *, what: str) -> bytes:
    """Read a file of at most ``limit`` bytes.

    Raises:
        ConfigError: When it cannot be read or is larger. The line names the file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise ConfigError(f"{what} {path} is larger than {limit} bytes")
    return data

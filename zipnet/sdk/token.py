"""From a token's file to what a publisher or a reader shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zipnet.access.tokentext import MAX_TOKEN_BYTES, parse_token
from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["load_token"]


def load_token(path: str | PathLike[str]) -> bytes:
    """Read a capability token for ``Publisher(capability=…)`` or ``Reader(capability=…)``.

    Args:
        path: The file ``zipnet token mint`` or ``zipnet token attenuate`` wrote.

    Raises:
        ConfigError: When it cannot be read or holds no token.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(2 * MAX_TOKEN_BYTES)
    except OSError as error:
        raise ConfigError(
            f"cannot read token {path}: {error.strerror}",
            hint="give the path of the file `zipnet token mint` wrote",
        ) from error
    token, _issuer = parse_token(data.decode("ascii", "replace"))
    return token

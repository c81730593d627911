"""Files of tokens, revocations and warrants: one line of text each.

Tokens are secrets of a kind, so they are written for their owner only; revocations and warrants
are public.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from zipnet.access.tokentext import MAX_TOKEN_BYTES, format_token, parse_token
from zipnet.errors import ConfigError
from zipnet.settings.bounded import read_bounded
from zipnet.settings.keyfiles import write_new, write_over

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "read_statement_file",
    "read_token_file",
    "read_warrant_file",
    "write_over_token_file",
    "write_statement_file",
    "write_token_file",
    "write_warrant_file",
]

_STATEMENT: Final = "zipnet-revocation-1."
_WARRANT: Final = "zipnet-warrant-1."
_MAX_LINE: Final = 4096
_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644


def read_token_file(path: Path) -> tuple[bytes, bytes]:
    """Return a token and its issuer's key, neither of them checked.

    Raises:
        ConfigError: When the file cannot be read or holds no token.
    """
    data = read_bounded(path, 2 * MAX_TOKEN_BYTES, what="token")
    try:
        return parse_token(data.decode("ascii"))
    except (UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(
            f"{path} holds no token", hint="name the file `zipnet token mint` wrote"
        ) from error


def write_token_file(path: Path, token: bytes, issuer: bytes) -> None:
    """Write a token to a new file of mode 0600.

    Raises:
        ConfigError: When it exists or cannot be written.
    """
    write_new(path, format_token(token, issuer) + "\n", mode=_PRIVATE)


def write_over_token_file(path: Path, token: bytes, issuer: bytes) -> None:
    """Put a token in the place of another one, in one step.

    Raises:
        ConfigError: When it cannot be written.
    """
    write_over(path, format_token(token, issuer) + "\n", mode=_PRIVATE)


def read_statement_file(path: Path) -> bytes:
    """Return a revocation that :func:`write_statement_file` wrote; not checked.

    Raises:
        ConfigError: When the file cannot be read or holds none.
    """
    return _read(path, _STATEMENT, "revocation", "write one with `zipnet token revoke`")


def write_statement_file(path: Path, statement: bytes) -> None:
    """Write a revocation to a new file.

    Raises:
        ConfigError: When it exists or cannot be written.
    """
    write_new(path, f"{_STATEMENT}{base64.b64encode(statement).decode()}\n", mode=_PUBLIC)


def read_warrant_file(path: Path) -> bytes:
    """Return a warrant that :func:`write_warrant_file` wrote; not checked.

    Raises:
        ConfigError: When the file cannot be read or holds none.
    """
    return _read(path, _WARRANT, "warrant", "have the operator write one: `zipnet token warrant`")


def write_warrant_file(path: Path, warrant: bytes) -> None:
    """Write a warrant to a new file.

    Raises:
        ConfigError: When it exists or cannot be written.
    """
    write_new(path, f"{_WARRANT}{base64.b64encode(warrant).decode()}\n", mode=_PUBLIC)


def _read(path: Path, prefix: str, what: str, hint: str) -> bytes:
    data = read_bounded(path, _MAX_LINE, what=what)
    try:
        line = data.decode("ascii").strip()
        if not line.startswith(prefix):
            raise ValueError(prefix)
        return base64.b64decode(line.removeprefix(prefix), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ConfigError(f"{path} holds no {what}", hint=hint) from error

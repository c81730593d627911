"""A capability token as a line of text; whoever only shows tokens needs no more than this.

``zipnet-token-1.`` and, with a dot between them, the issuer's key in hexadecimal and the token in
base64. The key is there for whoever narrows the token; nobody believes it.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from zipnet.errors import ConfigError

__all__ = ["MAX_TOKEN_BYTES", "format_token", "parse_token"]

MAX_TOKEN_BYTES: Final = 4096
_KEY_BYTES: Final = 32
_PREFIX: Final = "zipnet-token-1."


def format_token(token: bytes, issuer: bytes) -> str:
    """Return a token as a line of text: the issuer's key in front, then the token."""
    return f"{_PREFIX}{issuer.hex()}.{urlsafe_b64encode(token).decode()}"


def parse_token(text: str) -> tuple[bytes, bytes]:
    """Read :func:`format_token`'s line; returns token and issuer's key, neither of them checked.

    Raises:
        ConfigError: When it is no such line.
    """
    issuer, _, encoded = text.strip().removeprefix(_PREFIX).partition(".")
    try:
        key = bytes.fromhex(issuer)
        token = urlsafe_b64decode(encoded.encode("ascii"))
    except (ValueError, UnicodeEncodeError):
        key, token = b"", b""
    if len(key) != _KEY_BYTES or not 0 < len(token) <= MAX_TOKEN_BYTES:
        raise ConfigError(
            "this is no token", hint="name the file `zipnet token mint` wrote"
        ) from None
    return token, key

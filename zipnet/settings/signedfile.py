"""Settings files that an operator signs, numbered so that an old one is not taken again (row A9).

The signature is the file's last line, a comment: a signed file stays an ordinary TOML file. It
covers every byte before it.

Rules:

1. Who may sign is said outside the file, by a flag or the environment.
2. A signed file has a number, ``config_version``. A server with a state folder takes no file with a
   lower number than the highest it ran with.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError, VerificationError
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES, verify_hybrid
from zipnet.settings.publicfile import read_public_file

if TYPE_CHECKING:
    from pathlib import Path

    from zipnet.protocol.identity import Identity

__all__ = ["require_signed_file", "sign_settings"]

_PREFIX: Final = b"# signature "
_USE: Final = "settings-file"


def sign_settings(data: bytes, signer: Identity) -> bytes:
    """Return a settings file with its signature as the last line; an old one is replaced."""
    body, _ = _split(data)
    if not body.endswith(b"\n"):
        body += b"\n"
    return body + _PREFIX + base64.b64encode(signer.sign(_USE, body)) + b"\n"


def require_signed_file(config: Path, data: bytes, key: Path) -> None:
    """Check a settings file's signature against a signer's public file.

    Args:
        config: The settings file, for the error.
        data: Its bytes.
        key: The signer's public file.

    Raises:
        ConfigError: When the public file cannot be used, or the settings are not signed with it.
    """
    signer = read_public_file(key, kind="operator").identity
    body, text = _split(data)
    if text is None:
        raise ConfigError(
            f"configuration file {config} is not signed", hint="run `zipnet config sign`"
        )
    try:
        signature = base64.b64decode(text, validate=True)
        if len(signature) != HYBRID_SIGNATURE_BYTES:
            raise ValueError("not the size of a signature")
        verify_hybrid(signer, _USE, body, signature)
    except (binascii.Error, ValueError, VerificationError):
        raise ConfigError(
            f"configuration file {config} was altered, or somebody else signed it",
            hint="get it again from the operator, or sign it: zipnet config sign",
        ) from None


def _split(data: bytes) -> tuple[bytes, bytes | None]:
    """Return the signed bytes, and the signature's text where the last line is one."""
    start = data.rfind(b"\n" + _PREFIX)
    line = data[start + 1 :]
    if start < 0 or not line.endswith(b"\n") or line.count(b"\n") != 1:
        return data, None
    return data[: start + 1], line[len(_PREFIX) : -1]

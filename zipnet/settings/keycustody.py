"""Adapters of the key-custody port for memory and files, and the choice by what a file holds.

A file that `zipnet keygen` wrote holds either the secret both keys are derived from, or says in
which token the Ed25519 key is (:mod:`zipnet.settings.tokencustody`). Whoever signs takes the same
``--key FILE`` for both.

Nodes are not kept in tokens: TLS signs with a node's Ed25519 key inside of OpenSSL, which Python
lets have no key but one in this process's memory. A node's identity stays in a file, a credential
or a store (:mod:`zipnet.settings.secretsources`).
"""

from __future__ import annotations

import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zipnet.protocol.identity import Identity
from zipnet.settings.bounded import read_bounded
from zipnet.settings.secretsources import MAX_SECRET_BYTES, read_secret_file
from zipnet.settings.tokencustody import TokenCustody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from zipnet.ports import KeyCustody
    from zipnet.protocol.secret import Secret

__all__ = ["FileCustody", "MemoryCustody", "custody_of", "signer"]


class MemoryCustody:
    """Keys derived from a secret that is in memory; the secret stays its owner's.

    Args:
        secret: 32 bytes; not wiped here.
    """

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._lent: Identity | None = None

    @property
    def described(self) -> str:
        """Say that they are in memory."""
        return "in memory"

    def open(self) -> Identity:
        """Derive the identity.

        Raises:
            LocalProtocolError: When the secret has been wiped.
        """
        if self._lent is None:
            self._lent = Identity.from_secret(self._secret)
        return self._lent

    def close(self) -> None:
        """Drop the keys."""
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.close()


class FileCustody:
    """Keys derived from a secret in a file, which is read for each loan and wiped at once.

    Args:
        path: The file.
        what: What to call it in an error.
    """

    def __init__(self, path: Path, *, what: str) -> None:
        self._path = path
        self._what = what
        self._lent: Identity | None = None

    @property
    def described(self) -> str:
        """Name the file."""
        return f"in file {self._path}"

    def open(self) -> Identity:
        """Read the file and derive the identity.

        Raises:
            ConfigError: When the file cannot be read or holds no secret.
        """
        if self._lent is None:
            secret, _ = read_secret_file(self._path, what=self._what)
            with secret:
                self._lent = Identity.from_secret(secret)
        return self._lent

    def close(self) -> None:
        """Drop the keys."""
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.close()


def custody_of(path: Path, *, what: str, ask_pin: Callable[[str], str] | None = None) -> KeyCustody:
    """Return the keeper a key file speaks of.

    Args:
        path: What `zipnet keygen` wrote.
        what: What to call it in an error.
        ask_pin: Asks a person for a token's PIN; None where there is nobody to ask.

    Raises:
        ConfigError: When it cannot be read, or says something about a token that is incomplete.
    """
    # Everything that is no token's key file is left to the reader of secrets and its errors.
    data = read_bounded(path, MAX_SECRET_BYTES, what=what) if _is_small_file(path) else b""
    if b"\nmodule = " not in data:
        return FileCustody(path, what=what)
    return TokenCustody.from_file(path, data, what=what, ask_pin=ask_pin)


def _is_small_file(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size <= MAX_SECRET_BYTES


@contextmanager
def signer(
    path: Path, *, what: str, ask_pin: Callable[[str], str] | None = None
) -> Iterator[Identity]:
    """Lend the identity a key file speaks of for the length of a block; arguments as above.

    Raises:
        ConfigError: When the keeper is not there or not ours to use.
    """
    custody = custody_of(path, what=what, ask_pin=ask_pin)
    try:
        yield custody.open()
    finally:
        custody.close()

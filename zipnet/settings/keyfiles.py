"""Write new key files: a secret readable by its owner only, and the public half beside it.

Rules:

1. Nothing is overwritten: an existing file is refused before anything is written.
2. The secret's file has mode 0600 from the moment it exists, and both files are on disk (fsync)
   when :func:`create_node_files` returns.
3. When the second file cannot be written the first is removed again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError
from zipnet.protocol.identity import Identity, PublicIdentity, mldsa65_key
from zipnet.protocol.secret import Secret, format_secret_text
from zipnet.settings.publicfile import PublicFile, format_public_file
from zipnet.settings.tokencustody import TokenPlace, format_key_file, make_token_key
from zipnet.transport.certificate import node_certificate

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "create_identity_files",
    "create_secret_file",
    "create_token_files",
    "public_path",
    "write_new",
    "write_over",
]

_PRIVATE = 0o600
_PUBLIC = 0o644


def public_path(path: Path) -> Path:
    """Return where the public half of a secret file goes: the same name with ``.pub``."""
    return path.with_name(path.name + ".pub")


def create_secret_file(path: Path, draw: Callable[[int], bytes]) -> None:
    """Draw a secret and write it to a new file.

    Raises:
        ConfigError: When the file exists or cannot be written.
    """
    with Secret.random(draw) as secret:
        write_new(path, format_secret_text(secret) + "\n", mode=_PRIVATE)


def create_identity_files(path: Path, kind: str, draw: Callable[[int], bytes]) -> PublicFile:
    """Draw an identity and write secret and public half to two new files.

    Args:
        path: Where the secret goes; the public half goes to :func:`public_path`.
        kind: ``node`` or ``operator``.
        draw: Source of randomness, such as ``os.urandom``.

    Raises:
        ConfigError: When either file exists or cannot be written; then neither is left behind.
    """
    beside = public_path(path)
    if os.path.lexists(beside):
        raise ConfigError(f"file {beside} exists", hint="choose another name; nothing was written")
    with Secret.random(draw) as secret:
        identity = Identity.from_secret(secret)
        text = format_secret_text(secret) + "\n"
    certificate = b""
    if kind == "node":
        certificate = node_certificate(identity.ed25519_private_key()).der
    public = PublicFile(kind, identity.public, certificate)
    write_new(path, text, mode=_PRIVATE)
    try:
        write_new(beside, format_public_file(public), mode=_PUBLIC)
    except ConfigError:
        path.unlink()
        raise
    finally:
        identity.close()
    return public


def create_token_files(
    path: Path, place: TokenPlace, pin: str, pin_file: Path | None, draw: Callable[[int], bytes]
) -> PublicFile:
    """Make an operator's identity whose Ed25519 key is in a token, and write its three files.

    Args:
        path: The key file, which says where the key is; ``.mldsa`` behind it is the secret of the
            other half, ``.pub`` the public identity.
        place: Where the key goes.
        pin: PIN of the token.
        pin_file: File the PIN is read from later; None has it asked for.
        draw: Source of randomness, such as ``os.urandom``.

    Raises:
        ConfigError: When a file exists or cannot be written, or the token makes no such key.
    """
    half = path.with_name(path.name + ".mldsa")
    for file in (path, half, public_path(path)):
        if os.path.lexists(file):
            raise ConfigError(f"file {file} exists", hint="choose another name; nothing was made")
    later = None if pin_file is None else str(pin_file.resolve())
    format_key_file(place, bytes(32), half.name, later)  # refuses names before a key is made
    ed25519 = make_token_key(place, pin)
    with Secret.random(draw) as secret:
        mldsa65 = mldsa65_key(secret).public_key().public_bytes_raw()
        write_new(half, format_secret_text(secret) + "\n", mode=_PRIVATE)
    public = PublicFile("operator", PublicIdentity(ed25519, mldsa65), b"")
    write_new(path, format_key_file(place, ed25519, half.name, later), mode=_PRIVATE)
    write_new(public_path(path), format_public_file(public), mode=_PUBLIC)
    return public


def write_new(path: Path, text: str, *, mode: int) -> None:
    """Write a file that must not exist yet; durable on return.

    Raises:
        ConfigError: When it exists, also as a dangling link, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError:
        raise ConfigError(
            f"file {path} exists", hint="choose another name; nothing was written"
        ) from None
    except OSError as error:
        raise ConfigError(f"file {path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ConfigError(f"file {path} cannot be written: {error.strerror}") from error
    _sync_folder(path.parent)


def write_over(path: Path, text: str, *, mode: int = _PUBLIC) -> None:
    """Replace a file in one step: it holds the old text or the new, never a part.

    Where root replaces somebody's file it stays theirs.

    Raises:
        ConfigError: When it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    # What a process of this number left when it was killed: in a container every one has it.
    beside.unlink(missing_ok=True)
    write_new(beside, text, mode=mode)
    try:
        if os.geteuid() == 0 and path.exists():
            was = path.stat()
            os.chown(beside, was.st_uid, was.st_gid)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"file {path} cannot be written: {error.strerror}") from error
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

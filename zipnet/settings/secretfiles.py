"""Secrets: where they may come from, how their files must look, and what becomes of them.

A secret is a :class:`~zipnet.protocol.secret.Secret` from the moment it is read. Routes, strongest
first, for ``SECRET`` and ``COMMITTEE_SECRET`` alike:

1. flag ``--secret-file FILE``
2. environment ``ZIPNET_SECRET_FILE`` or ``ZIPNET_SECRET`` (one of them, never both)
3. systemd credential ``$CREDENTIALS_DIRECTORY/zipnet-secret``
4. configuration file, key ``secret_file``

Under ``production`` a secret in the environment itself, one readable by group or others, owned by
somebody else, or kept inside a git checkout is refused; under ``development`` this warns.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zipnet.errors import ConfigError
from zipnet.protocol.secret import parse_secret_text
from zipnet.settings.sources import shape_of

if TYPE_CHECKING:
    from zipnet.protocol.secret import Secret
    from zipnet.settings.sources import Sources

__all__ = ["LoadedSecret", "SecretRoute", "find_secret", "load_secret", "read_secret_file"]

_MAX_SECRET_BYTES = 4096
_Kind = Literal["file", "credential", "environment"]


@dataclass(frozen=True, slots=True)
class SecretRoute:
    """One way a secret was given; it has not been read yet.

    Attributes:
        setting: ``SECRET`` or ``COMMITTEE_SECRET``.
        origin: The source, in words.
        kind: What holds the secret.
        path: The file, None when the environment itself holds the secret.
        text: The secret's text, when the environment itself holds it.
    """

    setting: str
    origin: str
    kind: _Kind
    path: Path | None = None
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class LoadedSecret:
    """A secret, how to speak of it (``set (file, 0600)``), and what is unsafe about its keeping."""

    secret: Secret
    shown: str
    warnings: tuple[str, ...]


def find_secret(name: str, sources: Sources) -> SecretRoute | None:
    """Return the strongest route by which a secret was given, None when there is none.

    Args:
        name: ``secret`` or ``committee_secret``.
        sources: All sources of settings.

    Raises:
        ConfigError: When the environment gives both the secret and a file, or a file name is not
            text.
    """
    setting, key = name.upper(), f"{name}_file"
    variable = f"ZIPNET_{setting}"
    environ = sources.environ
    if key in sources.flags:
        origin = f"flag --{key.replace('_', '-')}"
        return SecretRoute(setting, origin, "file", _path(sources.flags[key], setting, origin))
    literal, file = environ.get(variable), environ.get(f"{variable}_FILE")
    if literal and file:
        raise ConfigError(
            f"setting {setting}: both {variable} and {variable}_FILE are set",
            hint=f"unset {variable}",
        )
    if file:
        return SecretRoute(setting, f"environment {variable}_FILE", "file", Path(file))
    if literal:
        return SecretRoute(setting, f"environment {variable}", "environment", text=literal)
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials:
        path = Path(credentials) / f"zipnet-{name.replace('_', '-')}"
        if path.exists():
            return SecretRoute(setting, f"credential {path.name}", "credential", path)
    if key in sources.table:
        origin = f"file {sources.config}"
        return SecretRoute(setting, origin, "file", _path(sources.table[key], setting, origin))
    return None


def _path(value: object, setting: str, origin: str) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(
            f"setting {setting}_FILE: got {shape_of(value)} from {origin}, not a file name",
            hint="write the path of the file `zipnet keygen` wrote",
        )
    return Path(value)


def load_secret(route: SecretRoute, *, production: bool) -> LoadedSecret:
    """Read a secret and judge how it is kept.

    Raises:
        ConfigError: When it cannot be read, has another shape, or, under production, is kept where
            others can get at it.
    """
    if route.path is None:
        unsafe = [
            _Unsafe("is in the environment itself", f"name a file in ZIPNET_{route.setting}_FILE")
        ]
        secret = parse_secret_text(route.text, what=f"setting {route.setting} ({route.origin})")
        shown = "set (environment)"
    else:
        secret, status = read_secret_file(route.path, what=f"setting {route.setting}")
        unsafe = _unsafe_keeping(route, route.path, status)
        shown = f"set ({route.kind}, {stat.S_IMODE(status.st_mode):04o})"
    if production and unsafe:
        secret.wipe()
        raise ConfigError(
            f"setting {route.setting}: the secret {unsafe[0].problem}, which production refuses",
            hint=unsafe[0].fix,
        )
    warnings = tuple(f"{route.setting}: the secret {it.problem} — {it.fix}" for it in unsafe)
    return LoadedSecret(secret, shown, warnings)


def read_secret_file(path: Path, *, what: str) -> tuple[Secret, os.stat_result]:
    """Read the one secret a file holds; the buffer it passed through is wiped.

    Raises:
        ConfigError: When the file is missing, no regular file, too large, or holds no secret.
    """
    hint = "write one with `zipnet keygen`"
    buffer = bytearray(_MAX_SECRET_BYTES + 1)
    try:
        # O_NONBLOCK: opening a pipe by mistake must end in an error, not in waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{what}: {path} is not a regular file", hint=hint)
            size = os.readv(descriptor, [buffer])
        finally:
            os.close(descriptor)
        if size > _MAX_SECRET_BYTES:
            raise ConfigError(f"{what}: file {path} is too large for a secret", hint=hint)
        text = buffer[:size].decode("ascii")
        return parse_secret_text(text, what=f"{what}: file {path}"), status
    except OSError as error:
        raise ConfigError(
            f"{what}: file {path} cannot be read: {error.strerror}", hint=hint
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what}: file {path} does not hold text", hint=hint) from None
    finally:
        buffer[:] = bytes(len(buffer))


@dataclass(frozen=True, slots=True)
class _Unsafe:
    problem: str
    fix: str


def _unsafe_keeping(route: SecretRoute, path: Path, status: os.stat_result) -> list[_Unsafe]:
    found: list[_Unsafe] = []
    # systemd shows the ACL it grants the service as group bits; its folder is closed to others.
    forbidden = 0o007 if route.kind == "credential" else 0o077
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        found.append(
            _Unsafe(f"file {path} is open to others (mode {mode:04o})", f"run: chmod 600 {path}")
        )
    if status.st_uid not in (0, os.geteuid()):
        found.append(
            _Unsafe(f"file {path} belongs to another user", f"run: chown {os.geteuid()} {path}")
        )
    if any((folder / ".git").exists() for folder in path.resolve().parents):
        found.append(
            _Unsafe(f"file {path} is inside a git checkout", "move it out of the checkout")
        )
    return found

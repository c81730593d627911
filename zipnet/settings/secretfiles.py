"""Secrets: which source each was given by, and what is refused of its keeping.

A secret is a :class:`~zipnet.protocol.secret.Secret` from the moment it is read. Routes, strongest
first, for ``SECRET``, ``COMMITTEE_SECRET`` and ``NEXT_COMMITTEE_SECRET`` alike:

1. flag ``--secret-file FILE``
2. environment ``ZIPNET_SECRET_FILE``, ``ZIPNET_SECRET_PROGRAM`` or ``ZIPNET_SECRET`` (one of them)
3. systemd credential ``$CREDENTIALS_DIRECTORY/zipnet-secret``
4. configuration file, key ``secret_file`` or ``secret_program`` (one of them)

Under ``production`` a secret in the environment itself, one that others can read or replace, owned
by somebody else, or kept inside a git checkout is refused; under ``development`` this warns.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError
from zipnet.settings.secretsources import (
    EnvironmentSource,
    FileSource,
    ProgramSource,
    read_secret_file,
)
from zipnet.settings.sources import shape_of

if TYPE_CHECKING:
    from zipnet.protocol.secret import Secret
    from zipnet.settings.secretsources import SecretSource
    from zipnet.settings.sources import Sources

__all__ = [
    "NO_LATER_SECRET",
    "LaterSecret",
    "LoadedSecret",
    "SecretRoute",
    "find_later_secret",
    "find_secret",
    "load_secret",
    "read_secret_file",
]

_MAX_WORDS: Final = 32


@dataclass(frozen=True, slots=True)
class SecretRoute:
    """One way a secret was given; it has not been read yet.

    Attributes:
        setting: ``SECRET`` or ``COMMITTEE_SECRET``.
        origin: Who gave it, in words.
        source: What holds the secret.
    """

    setting: str
    origin: str
    source: SecretSource = field(repr=False)


@dataclass(frozen=True, slots=True)
class LoadedSecret:
    """A secret, how to speak of it (``set (file, 0600)``), and what is unsafe about its keeping."""

    secret: Secret
    shown: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LaterSecret:
    """A secret that may not be there yet, and is looked for again.

    Attributes:
        route: Where it will be; None where none was named.
        production: Whether it is judged as production demands.
    """

    route: SecretRoute | None
    production: bool

    def look(self) -> LoadedSecret | None:
        """Read it; None while it is not there.

        Raises:
            ConfigError: What is there is no secret, or, under production, kept unsafely.
        """
        if self.route is None:
            return None
        source = self.route.source
        if isinstance(source, FileSource) and not source.path.exists():
            return None
        return load_secret(self.route, production=self.production)


NO_LATER_SECRET: Final = LaterSecret(None, production=True)
"""Nothing was named."""


def find_later_secret(name: str, sources: Sources, *, beside: str, production: bool) -> LaterSecret:
    """Return where a secret will be: as it is named, else in ``….next`` beside another's file.

    Args:
        name: Of the setting, such as ``next_committee_secret``.
        sources: All sources of settings.
        beside: The setting whose file it is beside.
        production: Whether it is judged as production demands.

    Raises:
        ConfigError: When one place gives it in two ways, or what it gives has another shape.
    """
    route = find_secret(name, sources)
    other = find_secret(beside, sources)
    if route is None and other is not None and isinstance(other.source, FileSource):
        path = other.source.path
        if not other.source.credential:
            route = SecretRoute(
                name.upper(), "the file beside", FileSource(path.with_name(f"{path.name}.next"))
            )
    return LaterSecret(route, production)


def find_secret(name: str, sources: Sources) -> SecretRoute | None:
    """Return the strongest route by which a secret was given, None when there is none.

    Args:
        name: ``secret`` or ``committee_secret``.
        sources: All sources of settings.

    Raises:
        ConfigError: When one place gives it in two ways, or what it gives has another shape.
    """
    setting, key = name.upper(), f"{name}_file"
    if key in sources.flags:
        origin = f"flag --{key.replace('_', '-')}"
        path = _path(sources.flags[key], setting, origin)
        return SecretRoute(setting, origin, FileSource(path))
    found = _from_environment(setting, sources)
    if found is not None:
        return found
    credentials = sources.environ.get("CREDENTIALS_DIRECTORY")
    if credentials:
        path = Path(credentials) / f"zipnet-{name.replace('_', '-')}"
        if path.exists():
            return SecretRoute(
                setting, f"credential {path.name}", FileSource(path, credential=True)
            )
    return _from_file(name, sources)


def _from_environment(setting: str, sources: Sources) -> SecretRoute | None:
    variable = f"ZIPNET_{setting}"
    given = {
        name: value
        for name in (variable, f"{variable}_FILE", f"{variable}_PROGRAM")
        if (value := sources.environ.get(name))
    }
    if not given:
        return None
    _require_one(setting, list(given))
    ((name, value),) = given.items()
    origin = f"environment {name}"
    if name.endswith("_FILE"):
        return SecretRoute(setting, origin, FileSource(Path(value)))
    if name.endswith("_PROGRAM"):
        return SecretRoute(setting, origin, _program(value, setting, origin))
    return SecretRoute(setting, origin, EnvironmentSource(variable, value))


def _from_file(name: str, sources: Sources) -> SecretRoute | None:
    setting, origin = name.upper(), f"file {sources.config}"
    given = [key for key in (f"{name}_file", f"{name}_program") if key in sources.table]
    if not given:
        return None
    _require_one(setting, given)
    value = sources.table[given[0]]
    if given[0].endswith("_program"):
        return SecretRoute(setting, origin, _program(value, setting, origin))
    return SecretRoute(setting, origin, FileSource(_path(value, setting, origin)))


def _require_one(setting: str, given: list[str]) -> None:
    if len(given) > 1:
        raise ConfigError(
            f"setting {setting}: both {given[0]} and {given[1]} are set", hint=f"unset {given[0]}"
        )


def _path(value: object, setting: str, origin: str) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(
            f"setting {setting}_FILE: got {shape_of(value)} from {origin}, not a file name",
            hint="write the path of the file `zipnet keygen` wrote",
        )
    return Path(value)


def _program(value: object, setting: str, origin: str) -> ProgramSource:
    words: object = value
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError:
            words = None
    if (
        not isinstance(words, list)
        or not 0 < len(words) <= _MAX_WORDS
        or not all(isinstance(word, str) and word and "\0" not in word for word in words)
    ):
        raise ConfigError(
            f"setting {setting}_PROGRAM: got {shape_of(value)} from {origin}, not a command",
            hint='write the program and its arguments: ["/usr/local/bin/from-vault", "acme"]',
        )
    return ProgramSource(tuple(words))


def load_secret(route: SecretRoute, *, production: bool) -> LoadedSecret:
    """Read a secret and judge how it is kept.

    Raises:
        ConfigError: When it cannot be read, has another shape, or, under production, is kept where
            others can get at it.
    """
    read = route.source.read(f"setting {route.setting}")
    if production and read.unsafe:
        read.secret.wipe()
        raise ConfigError(
            f"setting {route.setting}: the secret {read.unsafe[0].problem}, "
            "which production refuses",
            hint=read.unsafe[0].fix,
        )
    warnings = tuple(f"{route.setting}: the secret {it.problem} — {it.fix}" for it in read.unsafe)
    return LoadedSecret(read.secret, f"set ({read.shown})", warnings)

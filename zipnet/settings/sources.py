"""Where settings come from: flag, then environment, then file; and errors that quote no value.

Rules:

1. A stronger source wins setting by setting. Where each value came from is kept.
2. An error is one line: the setting, the shape of what was got (type and length) and from where,
   what is wrong with it, and what to write. The value itself never appears.
3. Keys of the file that are no settings are refused, with the nearest setting's name. A secret
   itself is refused in a file and as a flag; both are too easily read by others.
4. Relative paths in the file are relative to the file's folder.
5. Where a key is named, the file must be signed with it before anything of it is used.
6. A variable that is no setting and is spelt almost like one is a mistake; others with our prefix
   are not ours to judge.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
)

from zipnet.errors import ConfigError
from zipnet.settings.bounded import read_bounded
from zipnet.settings.model import (
    AggregatorInput,
    BaseInput,
    ClientInput,
    GatewayInput,
    MicroInput,
    ServerInput,
    fix_of,
)
from zipnet.settings.signedfile import require_signed_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_core import ErrorDetails

__all__ = [
    "MAX_CONFIG_BYTES",
    "SECRET_NAMES",
    "Sources",
    "parse_table",
    "shape_of",
]

SECRET_NAMES = ("secret", "committee_secret", "next_committee_secret")
MAX_CONFIG_BYTES = 64 * 1024
_PATH_KEYS = (
    "descriptor",
    "state",
    "secret_file",
    "committee_secret_file",
    "next_committee_secret_file",
    "admin",
    "token",
    "trace_file",
    "tdx_collateral",
    "tdx_policy",
    "tdx_emulator",
)
_CONFIG_KEY = "config_key"
_ENV_PREFIX = "ZIPNET_"
_ALMOST = 0.8

_Input = TypeVar("_Input", bound=BaseInput)


class _Environment(EnvSettingsSource):
    """The environment as it was handed in, not the one of this process."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._given = {name.lower(): value for name, value in environ.items() if value}
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._given


@dataclass(frozen=True, slots=True)
class Sources:
    """The three sources of settings, as found.

    Attributes:
        flags: Values of command line options by setting name; None means not given.
        environ: The environment.
        table: Top-level keys of the configuration file.
        config: Path of that file, if one was named.
        signed: Whether that file is signed with the key that flags or environment name.
    """

    flags: Mapping[str, object]
    environ: Mapping[str, str] = field(repr=False)
    table: Mapping[str, object] = field(repr=False)
    config: Path | None
    signed: bool = False

    @classmethod
    def gather(
        cls, flags: Mapping[str, object], environ: Mapping[str, str], config: Path | None
    ) -> Sources:
        """Read the configuration file and put the sources side by side.

        Raises:
            ConfigError: When the file cannot be read, is no TOML, is not signed as asked, or a
                secret stands in it or in a flag.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        key = given.get(_CONFIG_KEY) or environ.get(_ENV_PREFIX + _CONFIG_KEY.upper())
        table: dict[str, object] = {}
        signed = False
        if config is not None:
            data = read_bounded(config, MAX_CONFIG_BYTES, what="configuration file")
            if key:
                require_signed_file(config, data, Path(str(key)))
                signed = True
            table = parse_table(config, data)
        if _CONFIG_KEY in table:
            raise ConfigError(
                f"setting CONFIG_KEY stands in {config}: a file cannot say who may sign it",
                hint="give it as --config-key or ZIPNET_CONFIG_KEY",
            )
        for name in SECRET_NAMES:
            if name in given or name in table:
                where = "a flag" if name in given else f"file {config}"
                raise ConfigError(
                    f"setting {name.upper()}: the secret itself was given by {where}",
                    hint=f"put it in a file of its own and name that file as {name}_file",
                )
        return cls(given, environ, table, config, signed)

    def origin(self, name: str) -> str | None:
        """Return which source a setting's value comes from, None when none gives it."""
        if name in self.flags:
            return f"flag --{name.replace('_', '-')}"
        variable = _ENV_PREFIX + name.upper()
        if self.environ.get(variable):
            return f"environment {variable}"
        if name in self.table:
            return f"file {self.config}"
        return None

    def mistyped(self) -> list[str]:
        """Return what is wrong with variables that look like settings of some role (rule 6)."""
        models = (ServerInput, AggregatorInput, ClientInput, GatewayInput, MicroInput)
        known = {name for model in models for name in model.model_fields}
        known |= {*SECRET_NAMES, *_secret_keys()}
        found = []
        for variable in sorted(self.environ):
            name = variable.removeprefix(_ENV_PREFIX).lower()
            if not variable.startswith(_ENV_PREFIX) or name in known:
                continue
            near = difflib.get_close_matches(name, known, n=1, cutoff=_ALMOST)
            if near:
                found.append(f"{variable} is no setting: {_ENV_PREFIX}{near[0].upper()} is one")
        return found

    def read(self, model: type[_Input]) -> _Input:
        """Validate all settings of a role.

        Raises:
            ConfigError: For the first setting that cannot be used; the line says how many more.
        """
        flags, environ, table = self.flags, self.environ, self.table

        class Bound(model):  # type: ignore[valid-type,misc]
            @classmethod
            def settings_customise_sources(
                cls, settings_cls: type[BaseSettings], **_: PydanticBaseSettingsSource
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return (
                    InitSettingsSource(settings_cls, init_kwargs=_without_secrets(flags)),
                    _Environment(settings_cls, environ),
                    InitSettingsSource(settings_cls, init_kwargs=_without_secrets(table)),
                )

        try:
            bound: _Input = Bound()
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            # `from None`: the validation error would carry the input into a traceback.
            raise self._explain(model, details) from None
        return bound

    def _explain(self, model: type[BaseInput], details: list[ErrorDetails]) -> ConfigError:
        name = str(details[0]["loc"][0])
        more = len({detail["loc"][0] for detail in details}) - 1
        suffix = f" (and {more} more)" if more else ""
        if details[0]["type"] == "extra_forbidden":
            return self._unknown(name, (*model.model_fields, *_secret_keys()), suffix)
        problem = details[0]["msg"].removeprefix("Value error, ")
        got = shape_of(self._value(name))
        return ConfigError(
            f"setting {name.upper()}: got {got} from {self.origin(name)}, {problem}{suffix}",
            hint=fix_of(model.model_fields[name]),
        )

    def _unknown(self, name: str, known: Iterable[str], suffix: str) -> ConfigError:
        shown = name if name.isidentifier() and len(name) <= 40 else "of that name"  # noqa: PLR2004
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]}?" if near else "see docs/reference/settings.md"
        where = self.origin(name) or "a source"
        return ConfigError(f"no setting {shown} for this role, from {where}{suffix}", hint=hint)

    def _value(self, name: str) -> object:
        if name in self.flags:
            return self.flags[name]
        return self.environ.get(_ENV_PREFIX + name.upper()) or self.table.get(name)


def shape_of(value: object) -> str:
    """Describe a value without showing it: its type, and its length where it has one."""
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    names = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "dict": "a table",
    }
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def _secret_keys() -> list[str]:
    return [f"{name}_{way}" for name in SECRET_NAMES for way in ("file", "program")]


def _without_secrets(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in _secret_keys()}


def parse_table(config: Path, data: bytes) -> dict[str, object]:
    """Parse a settings file's bytes; relative paths become relative to its folder.

    Raises:
        ConfigError: When they are no TOML. Nothing of them is quoted.
    """
    try:
        table: dict[str, object] = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"configuration file {config} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        # Only the position is kept: the parser's text may quote what it met.
        _, _, place = str(error).rpartition("(")
        where = place.removesuffix(")") or "somewhere"
        raise ConfigError(
            f"configuration file {config} is not TOML, {where}",
            hint='write lines such as instance = "acme.mainnet"',
        ) from None
    for name in _PATH_KEYS:
        value = table.get(name)
        if isinstance(value, str) and value:
            table[name] = str(config.parent / value)
    return table

"""``zipnet config``: a role's settings, where each comes from, whether they hold; signed files."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.errors import ConfigError
from zipnet.protocol.ids import format_peer_id
from zipnet.settings import load_aggregator, load_client, load_gateway, load_server
from zipnet.settings.bounded import read_bounded
from zipnet.settings.keycustody import signer
from zipnet.settings.keyfiles import write_over
from zipnet.settings.signedfile import require_signed_file, sign_settings
from zipnet.settings.sources import MAX_CONFIG_BYTES, parse_table

if TYPE_CHECKING:
    from zipnet.settings import CommonSettings

app = new_app("Check and show settings with where they come from; sign settings files.")


class Role(StrEnum):
    """Whose settings."""

    SERVER = "server"
    AGGREGATOR = "aggregator"
    CLIENT = "client"
    GATEWAY = "gateway"


_LOADERS = {
    Role.SERVER: load_server,
    Role.AGGREGATOR: load_aggregator,
    Role.CLIENT: load_client,
    Role.GATEWAY: load_gateway,
}

_Role = Annotated[Role, typer.Option(help="Whose settings.", show_default=False)]
_Config = Annotated[Path | None, typer.Option("--config", "-c", help="TOML file of settings.")]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="NAME=VALUE as a flag of that name would set it; repeatable."),
]


@app.command()
def check(role: _Role, config: _Config = None, given: _Set = None) -> None:
    """Load everything a role would load and say whether it could start; exit code 2 if not."""
    settings = _load(role, config, given)
    _warn(settings)
    output.data(f"settings ok: {role.value} of {settings.instance}")


@app.command()
def show(
    role: _Role,
    config: _Config = None,
    given: _Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Print each setting with its value and its source; secrets show as `set (file, 0600)`."""
    settings = _load(role, config, given)
    _warn(settings)
    if as_json:
        for item in settings.effective:
            output.json_line({"name": item.name, "value": item.value, "origin": item.origin})
        return
    output.table((item.name, item.value, item.origin) for item in settings.effective)


@app.command()
def sign(
    file: Annotated[Path, typer.Argument(help="TOML file of settings.", show_default=False)],
    key: Annotated[Path, typer.Option(help="The signer's key file.", show_default=False)],
) -> None:
    """Sign a settings file in place; it must have a config_version. An old signature goes."""
    data = read_bounded(file, MAX_CONFIG_BYTES, what="configuration file")
    if "config_version" not in parse_table(file, data):
        raise ConfigError(
            f"{file} has no config_version", hint="write config_version = 1, and more each time"
        )
    with signer(key, what="--key", ask_pin=output.ask_pin) as identity:
        write_over(file, sign_settings(data, identity).decode())
    output.note(f"signed {file}")
    output.data(format_peer_id(identity.peer_id))


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="TOML file of settings.", show_default=False)],
    key: Annotated[Path, typer.Option(help="The signer's public file.", show_default=False)],
) -> None:
    """Say whether a settings file is signed with this key; exit code 2 if not."""
    require_signed_file(file, read_bounded(file, MAX_CONFIG_BYTES, what="file"), key)
    output.data(f"signature ok: {file}")


def _load(role: Role, config: Path | None, given: list[str] | None) -> CommonSettings:
    flags: dict[str, object] = {}
    for assignment in given or []:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise ConfigError("--set is not NAME=VALUE", hint="write --set listen=127.0.0.1:4433")
        flags[name.lower().replace("-", "_")] = value
    return _LOADERS[role](flags, os.environ, config)


def _warn(settings: CommonSettings) -> None:
    for line in settings.warnings:
        output.note(f"warning: {line}")

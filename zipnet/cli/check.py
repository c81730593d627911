"""``zipnet check``: hold a settings file, and this host, to a profile before anything starts."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.errors import ConfigError
from zipnet.posture import Finding, Subject, examine, probe_host
from zipnet.posture.subject import State
from zipnet.settings import (
    load_aggregator,
    load_client,
    load_gateway,
    load_micro,
    load_server,
)
from zipnet.settings.bounded import read_bounded
from zipnet.settings.envfile import read_env_file
from zipnet.settings.secretfiles import find_secret
from zipnet.settings.sources import MAX_CONFIG_BYTES, SECRET_NAMES, Sources, parse_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zipnet.settings.types import CommonSettings, MicroSettings

app = new_app("Hold a settings file and this host to a profile.")

_ALLOWED = 1
_VIOLATED = 2
_LOADERS = {
    "server": load_server,
    "aggregator": load_aggregator,
    "client": load_client,
    "gateway": load_gateway,
}
_NAME = re.compile(r"\b(?:ZIPNET_)?([A-Z][A-Z_]{2,})\b")


class ProfileName(StrEnum):
    """What to hold the settings to."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"
    MICRO = "micro"


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="TOML file of settings.", show_default=False)],
    profile: Annotated[
        ProfileName, typer.Option(help="What to hold them to.")
    ] = ProfileName.PRODUCTION,
    role: Annotated[
        str | None, typer.Option(help="Whose settings, where the file has no role.")
    ] = None,
    config_key: Annotated[
        Path | None, typer.Option(help="Public file of who must have signed the settings.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> int:
    """Print one line for each check: what holds, what does not, the key, and what to do.

    Exit code 0: all holds. 1: it would start, weaker than production by a key that says so. 2: it
    would not start. Secrets that no setting names, and a file of ZIPNET_ variables, are looked for
    beside the settings, as the systemd units have them. Nothing is started and nothing is written.
    """
    flags: dict[str, object] = {"config_key": config_key}
    findings = _judge(config, profile, role or _role_of(config), flags)
    for finding in findings:
        _print(finding, as_json=as_json)
    states = {finding.state for finding in findings}
    if State.VIOLATED in states:
        return _VIOLATED
    return _ALLOWED if State.ALLOWED in states else 0


def _role_of(config: Path) -> str:
    table = parse_table(config, read_bounded(config, MAX_CONFIG_BYTES, what="configuration file"))
    role = table.get("role")
    if not isinstance(role, str):
        raise ConfigError(
            f"{config} does not say its role", hint='write role = "server", or --role'
        )
    return role


def _judge(
    config: Path, profile: ProfileName, role: str, flags: Mapping[str, object]
) -> list[Finding]:
    """Load as the program would, then examine; what cannot be loaded is one violation."""
    try:
        own = _load(config, role, flags)
        held = own
        if role != "micro" and own.profile != profile.value:
            held = _load(config, role, {**flags, "profile": profile.value})
    except ConfigError as error:
        text = str(error)
        return [Finding("settings", State.VIOLATED, _key_in(error), text, error.hint or "")]
    subject = Subject(held, probe_host(held), starting=False)
    findings = [Finding("settings", State.OK, "", f"the settings of a {role} load")]
    findings += examine(subject, profile.value)
    for warning in getattr(held, "warnings", ()):
        key = _key_in(ConfigError(warning))
        findings.append(Finding("settings", State.ADVICE, key, warning, "put it right"))
    if own.profile != profile.value and held is not own:
        text = f"the settings are for {own.profile}"
        findings[1] = Finding(
            "profile", State.VIOLATED, "profile", text, f'write profile = "{profile.value}"'
        )
    return findings


def _load(config: Path, role: str, flags: Mapping[str, object]) -> CommonSettings | MicroSettings:
    if role == "micro":
        return load_micro({}, {}, config)
    if role not in _LOADERS:
        raise ConfigError(
            f"setting ROLE: there is no role {role[:20]!r}", hint=f"write one of {list(_LOADERS)}"
        )
    return _LOADERS[role](flags, _environment(config, role, flags), config)


def _environment(config: Path, role: str, flags: Mapping[str, object]) -> dict[str, str]:
    """Return the environment the unit would give: its file, and the secrets beside the settings."""
    environ = dict(os.environ)
    beside = config.with_suffix(".env")
    if beside.exists():
        environ |= read_env_file(beside)
    if role not in ("server", "aggregator"):
        return environ
    sources = Sources.gather(flags, environ, config)
    for name in SECRET_NAMES:
        beside = config.with_suffix(f".{name.replace('_', '-')}")
        if find_secret(name, sources) is None and beside.exists():
            environ[f"ZIPNET_{name.upper()}_FILE"] = str(beside)
    return environ


def _key_in(error: ConfigError) -> str:
    """Return the first setting that an error of the loader names, as a file writes it."""
    found = _NAME.search(str(error)) or _NAME.search(error.hint or "")
    return found[1].lower() if found else ""


def _print(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        output.json_line(
            {
                "check": finding.check,
                "state": finding.state.value,
                "key": finding.key,
                "text": finding.text,
                "fix": finding.fix,
            }
        )
        return
    key = f"{finding.key}: " if finding.key else ""
    fix = f" — {finding.fix}" if finding.fix else ""
    output.data(f"{finding.state.value:9} {finding.check:17} {key}{finding.text}{fix}")

"""The scenarios that are shipped, by name; each is a TOML file in this folder."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from sim.model.scenario import Scenario, parse_scenario
from zipnet.errors import ConfigError

__all__ = ["load_scenario", "scenario_names"]


def scenario_names() -> list[str]:
    """Return the names of the shipped scenarios."""
    files = resources.files("sim.scenarios").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def load_scenario(name: str) -> Scenario:
    """Read a shipped scenario by name, or any other by the path of its file.

    Raises:
        ConfigError: When there is none, or it is malformed.
    """
    if name in scenario_names():
        text = resources.files("sim.scenarios").joinpath(f"{name}.toml").read_text()
        return parse_scenario(text, name=name)
    path = Path(name)
    if not path.is_file():
        raise ConfigError(
            f"there is no scenario {name!r}", hint=f"shipped are {', '.join(scenario_names())}"
        )
    return parse_scenario(path.read_text(), name=path.stem)

"""What guests of one host must not share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork
from zipnet.errors import ConfigError
from zipnet.host.apart import require_apart
from zipnet.settings import load_server

if TYPE_CHECKING:
    from zipnet.settings import ServerSettings


@pytest.fixture(name="pair")
def two_servers(tmp_path: Path) -> tuple[ServerSettings, ServerSettings]:
    """Servers of two instances that share nothing."""
    found = []
    for name in ("left", "right"):
        folder = tmp_path / name
        folder.mkdir()
        network = LiveNetwork(folder, instance=f"{name}.test")
        found.append(load_server({}, {}, network.settings_file("s0")))
    return found[0], found[1]


def test_servers_of_two_instances_may_share_a_process(
    pair: tuple[ServerSettings, ServerSettings],
) -> None:
    require_apart({"a.toml": pair[0], "b.toml": pair[1]})


@pytest.mark.requirement("Z5")
@pytest.mark.parametrize("field", ["secret", "committee_secret"])
def test_a_secret_used_twice_is_refused(
    pair: tuple[ServerSettings, ServerSettings], field: str
) -> None:
    first, second = pair
    copy = replace(second, **{field: getattr(first, field)})
    with pytest.raises(ConfigError, match=r"a\.toml and b\.toml use one"):
        require_apart({"a.toml": first, "b.toml": copy})


@pytest.mark.parametrize("below", [".", "inside"])
def test_one_folder_for_the_state_of_two_is_refused(
    pair: tuple[ServerSettings, ServerSettings], below: str
) -> None:
    first, second = pair
    assert first.state is not None
    with pytest.raises(ConfigError, match="one folder"):
        require_apart({"a.toml": first, "b.toml": replace(second, state=first.state / below)})


def test_servers_without_state_share_no_folder(
    pair: tuple[ServerSettings, ServerSettings],
) -> None:
    require_apart({"a.toml": replace(pair[0], state=None), "b.toml": replace(pair[1], state=None)})

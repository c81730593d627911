"""Settings of gateway and micro, and the role a file says it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.instance_files import NOW, InstanceFiles
from zipnet.errors import ConfigError
from zipnet.settings import Endpoint, load_client, load_gateway, load_micro
from zipnet.settings.values import ALLOW_PUBLIC_GATEWAY


@pytest.fixture
def files(tmp_path: Path) -> InstanceFiles:
    return InstanceFiles(tmp_path)


def config_of(files: InstanceFiles, text: str) -> Path:
    path = files.folder / "c.toml"
    path.write_text(f'descriptor = "d.toml"\n{text}\n')
    return path


def test_a_gateway_is_loaded_from_file_and_flags_win(files: InstanceFiles) -> None:
    config = config_of(files, 'gateway = "127.0.0.1:1"\nread_only = "yes"\nproxy = "socks5://h:1"')
    settings = load_gateway({}, {}, config, now=NOW)
    assert (settings.gateway, settings.read_only) == (Endpoint("127.0.0.1", 1), True)
    assert settings.proxy == "socks5://h:1"
    flags = {"gateway": Endpoint("127.0.0.1", 2), "read_only": False}
    settings = load_gateway(flags, {}, config, now=NOW)
    assert (settings.gateway, settings.read_only) == (Endpoint("127.0.0.1", 2), False)
    plain = load_gateway({"descriptor": files.descriptor}, {}, now=NOW)
    assert (plain.gateway, plain.read_only, plain.proxy) == (
        Endpoint("127.0.0.1", 8640), False, None,
    )  # fmt: skip


def test_what_a_gateway_allows_is_part_of_its_settings(files: InstanceFiles) -> None:
    config = config_of(files, f'allow_public_gateway = "{ALLOW_PUBLIC_GATEWAY}"')
    assert load_gateway({}, {}, config, now=NOW).allowed == ("public_gateway",)
    config = config_of(files, 'allow_public_gateway = "yes"')
    settings = load_gateway({}, {}, config, now=NOW)
    assert settings.allowed == ()
    assert settings.warnings == (
        "ALLOW_PUBLIC_GATEWAY is not its exact sentence, so it allows nothing",
    )


@pytest.mark.parametrize("role", ["server", "aggregator", "gateway", "micro"])
def test_a_program_refuses_settings_of_another_role(files: InstanceFiles, role: str) -> None:
    config = config_of(files, f'role = "{role}"')
    with pytest.raises(ConfigError, match="setting ROLE"):
        load_client({}, {}, config, now=NOW)
    if role != "micro":
        with pytest.raises(ConfigError, match="setting ROLE"):
            load_micro({}, {}, config)


def test_a_micro_network_is_loaded_with_its_own_defaults(files: InstanceFiles) -> None:
    plain = load_micro({}, {})
    assert (plain.servers, plain.covers, plain.profile) == (3, 3, "micro")
    assert plain.descriptor_file == Path("micro.toml")
    config = config_of(files, 'role = "micro"\nservers = 5\ncovers = 2')
    given = load_micro({"covers": 4}, {}, config)
    assert (given.servers, given.covers) == (5, 4)
    assert given.descriptor_file == files.folder / "d.toml"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("covers = 1", "setting COVERS"),
        ('profile = "production"', "setting PROFILE"),
        ('operator = "zp1"', "no setting operator"),
    ],
)
def test_what_a_micro_network_cannot_be_is_refused(
    files: InstanceFiles, text: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        load_micro({}, {}, config_of(files, text))

"""Settings of the consensus log: how often a snapshot takes its place, and who carries it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.instance_files import InstanceFiles
from tests.unit.settings.test_load import _server
from zipnet.errors import ConfigError


@pytest.fixture
def files(tmp_path: Path) -> InstanceFiles:
    return InstanceFiles(tmp_path)


def test_the_default_the_setting_and_its_bound(files: InstanceFiles) -> None:
    assert _server(files).snapshot_every == 1000
    assert _server(files, {"ZIPNET_SNAPSHOT_EVERY": "250"}).snapshot_every == 250
    with pytest.raises(ConfigError, match="SNAPSHOT_EVERY is 9"):
        _server(files, {"ZIPNET_SNAPSHOT_EVERY": "9"})


def test_an_etcd_is_beside_the_server_and_needs_a_state_folder(files: InstanceFiles) -> None:
    assert _server(files).etcd is None
    assert str(_server(files, {"ZIPNET_ETCD": "127.0.0.1:2379"}).etcd) == "127.0.0.1:2379"
    with pytest.raises(ConfigError, match="in the clear"):
        _server(files, {"ZIPNET_ETCD": "192.0.2.1:2379"})
    with pytest.raises(ConfigError, match="ETCD needs STATE"):
        _server(files, {"ZIPNET_ETCD": "127.0.0.1:2379"}, state=None)

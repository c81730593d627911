"""How often the consensus log is replaced by a snapshot is a setting, bounded from below."""

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

"""Settings of traces: off unless asked for, and never to another machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.network import LiveNetwork
from zipnet.errors import ConfigError
from zipnet.settings import load_aggregator

if TYPE_CHECKING:
    from pathlib import Path


def test_traces_go_nowhere_unless_said_and_to_this_machine_only(tmp_path: Path) -> None:
    network = LiveNetwork(tmp_path)
    flags: dict[str, object] = {
        "descriptor": network.descriptor_file,
        "instance": network.instance,
        "secret_file": tmp_path / "root.secret",
    }
    silent = load_aggregator(flags, {})
    assert (silent.trace_file, silent.trace_collector) == (None, None)
    environ = {"ZIPNET_TRACE_FILE": "a.traces", "ZIPNET_TRACE_COLLECTOR": "127.0.0.1:4318"}
    told = load_aggregator(flags, environ)
    assert (str(told.trace_file), str(told.trace_collector)) == ("a.traces", "127.0.0.1:4318")
    with pytest.raises(ConfigError, match=r"TRACE_COLLECTOR: .* is not on this machine"):
        load_aggregator(flags, {"ZIPNET_TRACE_COLLECTOR": "192.0.2.1:4318"})

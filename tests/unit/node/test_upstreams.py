"""Whom a process may connect to: what settings name, and each version of a descriptor gone by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.harness.instance_files import InstanceFiles
from tests.harness.succession import replacing
from zipnet.node import live_descriptor
from zipnet.node.live_descriptor import LiveDescriptor
from zipnet.node.upstreams import upstreams
from zipnet.protocol.descriptor import sign_descriptor
from zipnet.protocol.identity import Identity
from zipnet.protocol.succession import succeed
from zipnet.settings import load_gateway, load_server

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def files(tmp_path: Path) -> InstanceFiles:
    return InstanceFiles(
        tmp_path, not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=9)
    )


def test_settings_name_the_descriptors_nodes_their_other_addresses_and_the_proxy(
    files: InstanceFiles,
) -> None:
    nodes = {("127.0.0.1", files.first_port + i) for i in range(1, 6)}
    flags: dict[str, object] = {
        "instance": files.name,
        "descriptor": files.descriptor,
        "secret_file": files.secret_file("server-1"),
        "committee_secret_file": files.secret_file("committee"),
        "bootstrap": "10.0.0.1:1,10.0.0.2:2,10.0.0.3:3",
    }
    other = {("10.0.0.1", 1), ("10.0.0.2", 2), ("10.0.0.3", 3)}
    assert upstreams(load_server(flags, {})) == nodes | other
    given = {"descriptor": files.descriptor, "transport": "tls"}
    assert upstreams(load_gateway(given, {})) == nodes
    behind = load_gateway({**given, "proxy": "socks5://10.0.0.9:9050"}, {})
    assert upstreams(behind) == nodes | {("10.0.0.9", 9050)}


async def test_a_newer_descriptors_nodes_may_be_connected_to_once_it_is_gone_by(
    files: InstanceFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: set[tuple[str, int]] = set()
    monkeypatch.setattr(live_descriptor, "allow_egress", allowed.update)
    settings = load_gateway({"descriptor": files.descriptor}, {})
    live = LiveDescriptor(settings.descriptor, settings.server_endpoints)
    moved = ("127.0.0.1", 40_999)
    assert upstreams(settings) == allowed
    newcomer = Identity.from_secret(files.write_secret("newcomer"))
    text = replacing(settings.descriptor.descriptor, 1, newcomer, port=moved[1])
    await live.use(succeed(settings.descriptor, sign_descriptor(text, files.operator)))
    assert moved in allowed

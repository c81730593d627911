"""What a client may write into its registration must never end a server, nor come back to do so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness import servers as harness
from tests.harness.servers import ServerCluster
from zipnet.protocol.kem import encapsulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from zipnet.protocol.secret import Secret


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ServerCluster]:
    made = ServerCluster(tmp_path)
    yield made
    made.close()


def _small_order(public: bytes, draw: Callable[[int], bytes]) -> tuple[bytes, Secret]:
    ciphertext, shared = encapsulate(public, draw)
    return ciphertext[:-32] + bytes(32), shared


def test_a_ciphertext_of_small_order_ends_no_server_and_its_client_is_retired(
    cluster: ServerCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = [cluster.register(f"c{i}") for i in range(3)]
    monkeypatch.setattr(harness, "encapsulate", _small_order)
    with pytest.raises(AssertionError):  # the harness looks for its place, and it has none left
        cluster.register("mallory")
    monkeypatch.undo()
    for server in cluster.servers:
        assert server.machine is not None
        registry = server.machine.state.registry
        assert (registry.next_index, registry.active_count) == (4, 3), "given, and retired"
    cluster.kill(1)
    cluster.start(1)
    header = cluster.open_round()
    cluster.offer(cluster.aggregate(header, honest))
    assert [len(server.records) for server in cluster.servers] == [1, 1, 1]

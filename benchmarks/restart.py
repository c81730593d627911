"""How long a killed server takes until it is ready again, and where the time goes.

Starts three servers on loopback, kills one by SIGKILL again and again — a follower and the leader
in turn — and starts it anew at once. Prints, per restart, the seconds from exec until the process
logs that its ports are open and until the log is caught up and its keys are committed
(``/readyz``), and the medians.

    python -m benchmarks.restart [restarts]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness.network import LiveNetwork, wait_for

if TYPE_CHECKING:
    from tests.harness.network import Node

PAUSE_S = 0.01
PATIENCE_S = 60.0


def is_ready(node: Node) -> bool:
    """Whether the node says it is ready."""
    try:
        return node.http("/readyz")[0] == HTTPStatus.OK
    except OSError:
        return False


def wait_all_ready(network: LiveNetwork) -> None:
    """Return once every server says it is ready."""
    wait_for(lambda: all(is_ready(node) for node in network.server_nodes), "all servers ready")


def restart(victim: Node) -> tuple[float, float]:
    """Kill a server, start it again, and return seconds to open ports and to ready."""
    victim.kill()
    begun = time.monotonic()
    victim.start()
    victim.wait_ready()
    opened = time.monotonic() - begun
    while not is_ready(victim):
        time.sleep(PAUSE_S)
        if time.monotonic() - begun > PATIENCE_S:
            raise TimeoutError("a restarted server is not ready")
    return opened, time.monotonic() - begun


def main() -> None:
    """Restart servers and print what it took."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    results: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="restart-") as folder:
        network = LiveNetwork(Path(folder), tree={"root": None})
        try:
            network.start()
            wait_all_ready(network)
            for number in range(count):
                leader = network.leader()
                follower = next(node for node in network.server_nodes if node is not leader)
                victim = leader if number % 2 and leader is not None else follower
                kind = "leader" if victim is leader else "follower"
                opened, ready = restart(victim)
                results.append((opened, ready))
                print(f"{kind} {victim.name}: ports {opened:.2f} s, ready {ready:.2f} s")
                wait_all_ready(network)
        finally:
            network.close()
    opened, ready = (statistics.median(column) for column in zip(*results, strict=True))
    print(f"median of {count} restarts: ports {opened:.2f} s, ready {ready:.2f} s")


if __name__ == "__main__":
    main()

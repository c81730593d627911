"""A cluster run in front of a person: lines as it goes, keys for trouble, an orderly end."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import termios
import tty
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sim.cluster.plan import LEADER, ClusterFault
from sim.cluster.run import ClusterRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sim.cluster.plan import ClusterPlan, FaultKind
    from sim.model.outcome import Outcome

__all__ = ["run_cluster"]

_KEYS: Final[dict[str, FaultKind]] = {
    "k": "crash",
    "s": "stop",
    "p": "partition",
    "w": "slow",
    "c": "skew",
    "r": "rotate",
}
_KEY_FAULT_S: Final = 3.0


def run_cluster(plan: ClusterPlan, say: Callable[[str], None]) -> Outcome:
    """Run a plan and return what it came to; SIGINT and SIGTERM end it in order.

    Raises:
        ClusterError: When it cannot go on.
        ConfigError: When the plan does not make an instance.
    """
    with tempfile.TemporaryDirectory(prefix="zipnet-sim-") as folder:
        return asyncio.run(_run(ClusterRun(plan, Path(folder), say), say))


async def _run(run: ClusterRun, say: Callable[[str], None]) -> Outcome:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if not sys.stdin.isatty():
        return await run.run(stop)
    with _keys(loop, lambda key: _on_key(run, stop, key)):
        say("sim: keys: k kill, s stop, p partition, w slow, c skew, r rotate who leads; q ends")
        return await run.run(stop)


def _on_key(run: ClusterRun, stop: asyncio.Event, key: str) -> None:
    if key == "q":
        stop.set()
    elif key in _KEYS:
        run.trouble(ClusterFault(0.0, _KEYS[key], LEADER, _KEY_FAULT_S))


@contextmanager
def _keys(loop: asyncio.AbstractEventLoop, on_key: Callable[[str], None]) -> Iterator[None]:
    """Hear single keys while the block runs; the terminal is then what it was."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, lambda: on_key(sys.stdin.read(1)))
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

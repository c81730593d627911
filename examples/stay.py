"""A demo network that stays up: the same nodes as ``examples.demo``, with cover, until Ctrl-C.

Run it with ``make demo KEEP=1`` or ``python -m examples.stay [--descriptor FILE]``. Once it is up
it prints where its descriptor is; ``examples/quickstart.py`` and ``zipnet gateway`` work with it.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from examples.demo import DemoError, Network, drain, make_keys, say, start_nodes
from zipnet.errors import ZipnetError

if TYPE_CHECKING:
    from collections.abc import Iterator

COVERS = 4
DESCRIPTOR = Path("out") / "demo.toml"


async def start_covers(network: Network) -> None:
    """Start publishers that send cover and nothing else: somebody has to be the crowd."""
    for index in range(COVERS):
        await network.start(
            f"cover-{index}",
            "publish",
            *("--descriptor", network.descriptor.name, "--cover", "--quiet"),
        )


async def watch(network: Network) -> None:
    """Return never; raise when a process ends by itself.

    Raises:
        DemoError: Naming the process and its last words.
    """
    ends = {
        asyncio.create_task(process.wait()): name for name, process in network.processes.items()
    }
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ends:
            task.cancel()
    name = ends[done.pop()]
    raise DemoError(f"{name} stopped: {network.complaint(name)}")


async def run(folder: Path, shown: Path) -> int:
    """Keep the network up until a signal comes; return the exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    network = Network(folder)
    say("demo: making keys and starting nodes")
    try:
        await make_keys(network)
        nodes = await start_nodes(network)
        await start_covers(network)
        shutil.copyfile(network.descriptor, shown)
        say(f"demo: the network is up; its descriptor is {shown}")
        say("demo: try `.venv/bin/python examples/quickstart.py`; Ctrl-C ends it")
        tasks = [
            asyncio.create_task(stop.wait()),
            asyncio.create_task(watch(network)),
            asyncio.create_task(drain(network, nodes)),
        ]
        done, rest = await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        for task in (*rest, tasks[2]):
            task.cancel()
        for task in done:
            task.result()
    finally:
        await network.stop_all()
    say("demo: every process is stopped")
    return 0


@contextmanager
def alone(descriptor: Path) -> Iterator[None]:
    """Have a descriptor's file to oneself, and remove it in the end.

    Raises:
        DemoError: When another network that is up keeps its descriptor there.
    """
    descriptor.parent.mkdir(parents=True, exist_ok=True)
    with descriptor.with_name(f".{descriptor.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(
                f"a network that is up keeps its descriptor in {descriptor}; "
                "end that one, or name another file with --descriptor"
            ) from None
        try:
            yield
        finally:
            descriptor.unlink(missing_ok=True)


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="stay", description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--descriptor", type=Path, default=DESCRIPTOR, help="where to put the descriptor"
    )
    options = parser.parse_args()
    try:
        with (
            alone(options.descriptor),
            tempfile.TemporaryDirectory(prefix="zipnet-demo-") as folder,
        ):
            return asyncio.run(run(Path(folder), options.descriptor))
    except (DemoError, ZipnetError, OSError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

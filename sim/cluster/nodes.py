"""Real processes of a cluster: started, listened to, stopped; none outlives the run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from zipnet.errors import ZipnetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["ClusterError", "Process"]

_LINE_BYTES: Final = 4 * 1024 * 1024
_STOP_S: Final = 15.0
READY_S: Final = 60.0


class ClusterError(ZipnetError):
    """The cluster cannot go on."""

    reason = "cluster"


class Process:
    """One process of the cluster.

    Args:
        name: What it is called.
        module: Python module it runs.
        arguments: Its arguments.
        folder: Where it runs and its standard error goes to.
        environment: Added to this process's environment, less every zipnet setting.
        on_line: Told each JSON line it prints.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: list[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.name = name
        self._words = [sys.executable, "-m", module, *arguments]
        self._folder = folder
        self._environment = dict(environment or {})
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ZIPNET_")}
        self._ready.clear()
        with (self._folder / f"{self.name}.err").open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *self._words,
                cwd=self._folder,
                env={**kept, **self._environment},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=_LINE_BYTES,
            )
        self._reading = asyncio.create_task(self._read(self._process))

    async def wait_ready(self) -> None:
        """Return once it said ``node_ready`` or ``ready``.

        Raises:
            ClusterError: When it ends or stays silent instead.
        """
        assert self._reading is not None
        waiting = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait(
                {waiting, self._reading}, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        if not self._ready.is_set():
            raise ClusterError(f"{self.name} was not ready: {self.complaint()}")

    async def tell(self, word: str) -> None:
        """Write a line to its standard input; one that is gone hears nothing."""
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.write(word.encode() + b"\n")
            await self._process.stdin.drain()

    def signal(self, number: int) -> None:
        """Send a signal; nothing where it is gone."""
        if self.running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL, and wait."""
        self.signal(signal.SIGKILL)
        await self._gone()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL where that is not heard."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S):
                await self._gone()
        except TimeoutError:
            await self.kill()

    def complaint(self) -> str:
        """Return the last thing it said on standard error."""
        file = self._folder / f"{self.name}.err"
        text = file.read_text(errors="replace").strip() if file.is_file() else ""
        return text.splitlines()[-1] if text else "it said nothing"

    async def _gone(self) -> None:
        if self._process is not None:
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if not isinstance(said, dict):
                continue
            if said.get("event") in ("node_ready", "ready"):
                self._ready.set()
            if self._on_line is not None:
                self._on_line(said)

"""Whether the state folder's disk takes what a server has to write, and when it will not.

Rules:

1. Room is looked at, and a block is really written, made durable and given back: quotas, limits of
   the process and a read-only remount show no other way.
2. Too little room makes a server not ready while the disk still takes its last entries: a write
   that fails puts it into safe mode, and only an operator gets it out of that.
3. A disk that does not answer is waited for once; no second thread goes after the first.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zipnet.node.safe_mode import cause_of
from zipnet.observe.health import HOLDS, Finding, degraded, failed

if TYPE_CHECKING:
    from pathlib import Path

    from zipnet.observe.metrics import NodeMetrics

__all__ = ["DISK_FULL_BYTES", "DISK_LOW_BYTES", "PROBE_FILE", "DiskProbe"]

DISK_LOW_BYTES: Final = 64 << 20
DISK_FULL_BYTES: Final = 8 << 20
PROBE_FILE: Final = "disk.probe"

_LOW_INODES: Final = 1000
_FULL_INODES: Final = 10
_SLOW_S: Final = 1.0
_STUCK_S: Final = 5.0
_BLOCK: Final = bytes(64 * 1024)


@dataclass(frozen=True, slots=True)
class _Look:
    free_bytes: int
    free_inodes: int | None
    fsync_s: float
    error: OSError | None


class DiskProbe:
    """Tries a state folder's disk.

    Args:
        folder: The state folder.
        metrics: Where room, time and failures are shown.
    """

    name = "disk"
    every_s = 2.0

    def __init__(self, folder: Path, metrics: NodeMetrics) -> None:
        self._folder = folder
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk-probe")
        self._looking: asyncio.Future[_Look] | None = None

    async def look(self) -> Finding:
        """Try the disk, for at most five seconds."""
        if self._looking is None:
            loop = asyncio.get_running_loop()
            self._looking = loop.run_in_executor(self._thread, self._try)
        done, _ = await asyncio.wait({self._looking}, timeout=_STUCK_S)
        if not done:
            return failed("fsync_stuck")
        looked, self._looking = self._looking.result(), None
        return self._judge(looked)

    def close(self) -> None:
        """Give the thread and the test file back; a disk that hangs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._looking is None or self._looking.done():
            (self._folder / PROBE_FILE).unlink(missing_ok=True)

    def _judge(self, looked: _Look) -> Finding:
        self._metrics.disk_free.set(looked.free_bytes)
        if looked.error is not None:
            self._metrics.wal_fsync_fail.inc()
            return failed(cause_of(looked.error))
        self._metrics.disk_fsync.observe(looked.fsync_s)
        inodes = looked.free_inodes
        if looked.free_bytes < DISK_FULL_BYTES or (inodes is not None and inodes < _FULL_INODES):
            return failed("disk_full")
        if looked.free_bytes < DISK_LOW_BYTES or (inodes is not None and inodes < _LOW_INODES):
            return degraded("disk_low")
        return degraded("fsync_slow") if looked.fsync_s > _SLOW_S else HOLDS

    def _try(self) -> _Look:
        room = os.statvfs(self._folder)
        free = room.f_bavail * room.f_frsize
        # Some file systems count no inodes: they say that there are none at all.
        inodes = room.f_favail if room.f_files else None
        began = time.monotonic()
        error = self._write() if free >= DISK_FULL_BYTES else None
        return _Look(free, inodes, time.monotonic() - began, error)

    def _write(self) -> OSError | None:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._folder / PROBE_FILE, flags, 0o600)
            try:
                written = 0
                while written < len(_BLOCK):  # what is over a limit comes back as a short write
                    written += os.pwrite(descriptor, _BLOCK[written:], written)
                os.fsync(descriptor)
            finally:
                os.ftruncate(descriptor, 0)
                os.close(descriptor)
        except OSError as error:
            return error
        return None

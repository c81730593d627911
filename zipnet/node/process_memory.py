"""What keeps a process's memory away from disks: no core files, no swap, no tracing, no caches.

Rules:

1. Core files are off for every node. The rest is for a node that promises to write nothing.
2. Pages are locked only where the limit on locked memory cannot be met later: a limit that is
   merely high would turn an allocation of a running node into a failure.
3. What the system does not permit is said, never taken for done.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from dataclasses import dataclass
from typing import Final

__all__ = ["Sealed", "forbid_core_files", "seal_memory"]

_PR_SET_DUMPABLE: Final = 4
_PR_GET_DUMPABLE: Final = 3
_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4  # lock pages as they are used, not every stack that is only reserved


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the system granted.

    Attributes:
        undumpable: No core file and no tracing by other processes of this user.
        locked: No page goes to swap.
    """

    undumpable: bool
    locked: bool


def forbid_core_files() -> None:
    """Set the limit on core files to nothing, for good."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def seal_memory() -> Sealed:
    """Keep this process's memory off every disk, as far as the system permits."""
    forbid_core_files()
    sys.dont_write_bytecode = True
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        undumpable = libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 0
        return Sealed(undumpable, _lock(libc))
    except (OSError, AttributeError):
        return Sealed(undumpable=False, locked=False)


def _lock(libc: ctypes.CDLL) -> bool:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    if hard != resource.RLIM_INFINITY and not _may_lock():
        return False
    locked: int = libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
    return locked == 0


def _may_lock() -> bool:
    """Whether this process has CAP_IPC_LOCK, to which the limit does not apply."""
    cap_ipc_lock = 14
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - procfs
            for line in status:
                if line.startswith("CapEff:"):
                    return bool(int(line.split()[1], 16) >> cap_ipc_lock & 1)
    except OSError:
        return False
    return False

"""Run ``zipnet`` with a folder on a small disk: ``python -m tests.harness.small_disk DIR BYTES …``.

The disk is a tmpfs in a mount namespace of this process alone; others get at it through
``/proc/PID/root``. It goes when the process does.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

__all__ = ["FORBIDDEN", "mount_small"]

FORBIDDEN = 77
"""Exit status where the kernel forbids such a namespace."""

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_NOSUID_NODEV = 2 | 4


def mount_small(folder: Path, size: int) -> None:
    """Mount a disk of ``size`` bytes at a folder, in namespaces of this process.

    Raises:
        OSError: When the kernel forbids it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _check(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    folder.mkdir(mode=0o700, exist_ok=True)
    options = f"size={size},mode=0700".encode()
    _check(libc.mount(b"none", os.fsencode(folder), b"tmpfs", _MS_NOSUID_NODEV, options))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    try:
        mount_small(Path(sys.argv.pop(1)), int(sys.argv.pop(1)))
    except OSError as refused:
        print(refused, file=sys.stderr)
        sys.exit(FORBIDDEN)
    from zipnet.cli import main

    sys.exit(main())

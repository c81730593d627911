"""Run ``zipnet`` with somebody inside: once the node is ready, what an intruder would try is tried.

``python -m tests.harness.intruder [--free] server …`` prints one JSON line for each attempt, with
``allowed`` or the name of the error. ``--free`` leaves the sandbox out, to show that the attempts
would succeed.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import sys
import threading
from collections.abc import Callable

from zipnet.node.notify import ServiceNotifier

_SYSCALLS = {"init_module": 175, "bpf": 321, "keyctl": 250, "unshare": 272}
_LIBC = ctypes.CDLL(None, use_errno=True)


def _execute() -> None:
    child = os.posix_spawn("/bin/true", ["/bin/true"], {})
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise PermissionError(errno.EPERM, "the program did not run")


def _open(family: int, kind: int) -> Callable[[], None]:
    def attempt() -> None:
        socket.socket(family, kind).close()

    return attempt


def _call(name: str, *arguments: int) -> Callable[[], None]:
    def attempt() -> None:
        if _LIBC.syscall(_SYSCALLS[name], *arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return attempt


def _trace() -> None:
    """Attach to a process that is not there: where tracing is possible, it is not found."""
    attach, nobody = 16, (1 << 22) - 1
    if _LIBC.ptrace(attach, nobody, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


ATTEMPTS: dict[str, Callable[[], None]] = {
    "execve": _execute,
    "ptrace": _trace,
    "raw socket": _open(socket.AF_INET, socket.SOCK_RAW),
    "packet socket": _open(socket.AF_PACKET, socket.SOCK_RAW),
    "kernel module": _call("init_module", 0, 0, 0),
    "kernel program": _call("bpf", 0, 0, 0),
    "keyring": _call("keyctl", 0, -3, 1),
    "namespace": _call("unshare", 0),
    "plain socket": _open(socket.AF_INET, socket.SOCK_STREAM),
    "thread": lambda: threading.Thread(target=int).start(),
}


def _try_all() -> None:
    for name, attempt in ATTEMPTS.items():
        try:
            attempt()
        except OSError as error:
            outcome = errno.errorcode.get(error.errno or 0, "unknown")
        else:
            outcome = "allowed"
        sys.stdout.write(json.dumps({"event": "tried", "what": name, "outcome": outcome}) + "\n")
        sys.stdout.flush()


def _break_in() -> None:
    ready = ServiceNotifier.ready

    def new_ready(self: ServiceNotifier, status: str = "") -> None:
        ready(self, status)
        threading.Thread(target=_try_all).start()  # any thread is confined, not only the first

    ServiceNotifier.ready = new_ready  # type: ignore[method-assign]


if __name__ == "__main__":
    if sys.argv[1] == "--free":
        del sys.argv[1]
        from zipnet.cli import service

        service._confine = lambda: None
    _break_in()
    from zipnet.cli import main

    sys.exit(main())

"""What a running node can no longer do, whoever takes it over: new programs, tracing, raw sockets.

Rules:

1. Nothing is gained by a program that is started: ``no_new_privs`` is set before the filter.
2. The filter says no (EPERM) to what a node never needs and an intruder wants: starting programs,
   looking into or steering other processes, raw and packet sockets, kernel modules and programs,
   mounts, keyrings. Everything else is as before. It holds for all threads, and for good.
3. What the system does not permit is said, never taken for done.
"""

from __future__ import annotations

import ctypes.util
import errno
import importlib
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["DENIED", "Confinement", "confine", "sandbox_in_force", "sandbox_missing"]

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_GET_NO_NEW_PRIVS: Final = 39
_PR_GET_SECCOMP: Final = 21
_SOCK_TYPE_MASK: Final = 0xF
_FILTER_MODE: Final = "2"
_NO_LIBRARY: Final = "the system has no libseccomp"
_SONAMES: Final = {"c": "libc.so.6", "seccomp": "libseccomp.so.2"}

DENIED: Final = (
    *("execve", "execveat"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"),
    *("bpf", "perf_event_open", "userfaultfd"),
    *("mount", "umount2", "pivot_root", "chroot", "setns", "unshare", "open_tree", "move_mount"),
    *("add_key", "request_key", "keyctl"),
    *("reboot", "swapon", "swapoff", "acct", "open_by_handle_at"),
)
"""System calls that are refused whatever their arguments."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What the system granted.

    Attributes:
        no_new_privs: No program started from here can gain privileges.
        filtered: The filter is in force.
        reason: Why it is not, where it is not.
    """

    no_new_privs: bool
    filtered: bool
    reason: str = ""


def sandbox_in_force() -> str:
    """Return what the kernel says of this process: ``seccomp``, ``no_new_privs`` or ``none``."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return "unknown"
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if facts.get("Seccomp", "").strip() == _FILTER_MODE:
        return "seccomp"
    return "no_new_privs" if facts.get("NoNewPrivs", "").strip() == "1" else "none"


def sandbox_missing() -> str:
    """Return why system calls could not be filtered here, empty where they could; tries nothing."""
    if _binding() is None:
        return _NO_LIBRARY
    try:
        mode: int = ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0)
    except (OSError, AttributeError):
        mode = -1
    return "" if mode >= 0 else "the kernel takes no filter"


def confine() -> Confinement:
    """Confine this process for good, as far as the system permits."""
    no_new_privs = _refuse_new_privileges()
    if not no_new_privs:
        return Confinement(no_new_privs=False, filtered=False, reason="no_new_privs is not granted")
    reason = _filter()
    return Confinement(no_new_privs=True, filtered=not reason, reason=reason)


def _refuse_new_privileges() -> bool:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        granted: int = libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return granted == 1


def _filter() -> str:
    """Load the filter; returns why it could not be, empty where it is in force."""
    pyseccomp = _binding()
    if pyseccomp is None:
        return _NO_LIBRARY
    refuse = pyseccomp.ERRNO(errno.EPERM)
    try:
        rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
        rules.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)
        for name in DENIED:
            _add(pyseccomp, rules, refuse, name)
        rules.add_rule(refuse, "socket", pyseccomp.Arg(0, pyseccomp.EQ, socket.AF_PACKET))
        for family in (socket.AF_INET, socket.AF_INET6):
            rules.add_rule(
                refuse,
                "socket",
                pyseccomp.Arg(0, pyseccomp.EQ, family),
                pyseccomp.Arg(1, pyseccomp.MASKED_EQ, _SOCK_TYPE_MASK, socket.SOCK_RAW),
            )
        rules.load()
    except OSError as error:
        return f"the kernel takes no filter: {error.strerror}"
    return ""


def _add(pyseccomp: ModuleType, rules: object, action: int, name: str) -> None:
    try:
        rules.add_rule(action, name)  # type: ignore[attr-defined]
    except OSError:
        # A call this library or machine does not know cannot be made through it either.
        if pyseccomp.resolve_syscall(pyseccomp.system_arch(), name) >= 0:
            raise


def _binding() -> ModuleType | None:
    """Import the binding of libseccomp; None where the system has no such library.

    It asks `ldconfig` or a compiler where the library is, as soon as it is imported: programs that
    take their time and that a small image does not have. The loader itself knows the name.
    """
    asked = ctypes.util.find_library
    ctypes.util.find_library = _known
    try:
        return importlib.import_module("pyseccomp")
    except (ImportError, RuntimeError, OSError):
        return None
    finally:
        ctypes.util.find_library = asked


def _known(name: str) -> str | None:
    return _SONAMES.get(name)

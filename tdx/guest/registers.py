"""This trust domain's own registers in sysfs (Linux 6.16 and later): read all, extend RTMR3.

RTMR3 is the one register left to applications. What is extended cannot be taken back until the TD
ends; extend before the first quote, or peers see the value change.
"""

from __future__ import annotations

from pathlib import Path

from tdx.errors import GuestError, PolicyError
from tdx.guest.configfs import OsTree, Tree
from tdx.quote import REGISTER_BYTES, extend

__all__ = ["MEASUREMENTS", "extend_rtmr3", "read_register"]

MEASUREMENTS = Path("/sys/class/misc/tdx_guest/measurements")
_NAMES = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")


def read_register(
    name: str, measurements: Path = MEASUREMENTS, *, tree: Tree | None = None
) -> bytes:
    """Return ``mrtd`` or ``rtmr0`` to ``rtmr3`` of this TD (48 bytes).

    Raises:
        GuestError: The kernel does not offer it.
        PolicyError: There is no register of that name.
    """
    if name not in _NAMES:
        raise PolicyError(f"{name} is no register", hint=f"one of {', '.join(_NAMES)}")
    try:
        value = (tree or OsTree()).read(measurements / f"{name}:sha384")
    except OSError as error:
        raise _unavailable(name, error) from error
    if len(value) != REGISTER_BYTES:
        raise GuestError(f"{name} has {REGISTER_BYTES} bytes, not {len(value)}")
    return value


def extend_rtmr3(
    digest: bytes, measurements: Path = MEASUREMENTS, *, tree: Tree | None = None
) -> bytes:
    """Extend RTMR3 by a SHA-384 digest and return its new value (48 bytes).

    Raises:
        GuestError: The kernel refuses, or the register does not then hold the extended value:
            another process extended it at the same time.
        PolicyError: ``digest`` has not 48 bytes.
    """
    if len(digest) != REGISTER_BYTES:
        raise PolicyError(f"a digest has {REGISTER_BYTES} bytes, not {len(digest)}")
    before = read_register("rtmr3", measurements, tree=tree)
    try:
        (tree or OsTree()).write(measurements / "rtmr3:sha384", digest)
    except OSError as error:
        raise _unavailable("rtmr3", error) from error
    after = read_register("rtmr3", measurements, tree=tree)
    if after != extend(before, digest):
        raise GuestError("RTMR3 holds another value than was extended", hint="who else extends it?")
    return after


def _unavailable(name: str, error: OSError) -> GuestError:
    return GuestError(
        f"{name} is not available: {error.strerror}",
        hint="it needs a TDX guest with Linux 6.16 or later, and root to extend",
    )

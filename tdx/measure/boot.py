"""Compute RTMR1 and RTMR2 for direct kernel boot, as named VMM profiles.

RTMR1 holds the kernel as firmware loaded it, and the fixed actions around the start of an operating
system. QEMU writes into the kernel's setup header before the guest sees it, so the same file
measures differently with another initrd size or, below 2.75 GiB, another memory size. RTMR2 holds
the command line and the initrd.

What a firmware extends differs between builds (one separator, padding of the PE hash), so a value
belongs to a profile, and a profile is confirmed by replaying a CCEL of a machine that booted so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha384

from tdx.errors import ImageError
from tdx.measure.authenticode import authenticode_sha384
from tdx.quote import extend_all

__all__ = ["PROFILES", "Boot", "Profile", "rtmr1", "rtmr2"]

GIB = 1 << 30
_SEPARATOR = bytes(4)
_CALLING = b"Calling EFI Application from Boot Option"
_EXIT_CALLED = b"Exit Boot Services Invocation"
_EXIT_DONE = b"Exit Boot Services Returned with Success"

# Addresses of QEMU's loader for kernels of boot protocol 2.02 and later.
_REAL_ADDRESS = 0x10000
_CMDLINE_ADDRESS = 0x20000
_ACPI_BYTES = 0x28000
_LOW_MEMORY = 0xB0000000
_LOW_MEMORY_OF_LARGE = 0x80000000
_ABOVE_4G = 0x2
_SETUP_HEADER_BYTES = 0x250


@dataclass(frozen=True, slots=True)
class Profile:
    """Hold what differs between hosts.

    Attributes:
        name: What policies and reports call it.
        two_pass: Which MRTD it produces.
        patches_header: Whether the VMM writes into the kernel's setup header.
        separator: Whether a separator is extended between the actions in RTMR1.
        pad_to: Padding of the kernel's PE hash.
        cmdline_suffix: What the firmware appends to the command line if there is an initrd.
    """

    name: str
    two_pass: bool
    patches_header: bool = True
    separator: bool = True
    pad_to: int = 1
    cmdline_suffix: str = " initrd=initrd"


PROFILES = {
    one.name: one
    for one in (
        Profile("qemu-8.2-noble", two_pass=True, separator=False),
        Profile("qemu-9", two_pass=False, pad_to=8),
    )
}


@dataclass(frozen=True, slots=True)
class Boot:
    """Hold what is booted.

    Attributes:
        kernel: The kernel file, with EFI stub.
        cmdline: The command line given to the VMM.
        initrd: The initial RAM disk, or None.
        memory_bytes: Memory of the TD; decides where QEMU puts the initrd.
    """

    kernel: bytes
    cmdline: str
    initrd: bytes | None = None
    memory_bytes: int = 4 * GIB


def rtmr1(boot: Boot, profile: Profile) -> bytes:
    """Compute RTMR1 (48 bytes).

    Raises:
        ImageError: The kernel is no Linux kernel with EFI stub, or the initrd does not fit.
    """
    kernel = _patched(boot) if profile.patches_header else boot.kernel
    events = [_CALLING, _EXIT_CALLED, _EXIT_DONE]
    if profile.separator:
        events.insert(1, _SEPARATOR)
    digests = [sha384(event).digest() for event in events]
    return extend_all([authenticode_sha384(kernel, pad_to=profile.pad_to), *digests])


def rtmr2(boot: Boot, profile: Profile) -> bytes:
    """Compute RTMR2 (48 bytes): command line in UTF-16 with its NUL, then the initrd."""
    suffix = "" if boot.initrd is None else profile.cmdline_suffix
    line = (boot.cmdline + suffix + "\0").encode("utf-16-le")
    parts = [line] if boot.initrd is None else [line, boot.initrd]
    return extend_all(sha384(part).digest() for part in parts)


def _patched(boot: Boot) -> bytes:
    kernel = bytearray(boot.kernel)
    if len(kernel) < _SETUP_HEADER_BYTES or kernel[0x202:0x206] != b"HdrS":
        raise ImageError("the kernel has a Linux setup header")
    (protocol,) = struct.unpack_from("<H", kernel, 0x206)
    if protocol < 0x203 or not kernel[0x211] & 1:  # noqa: PLR2004 - boot protocol 2.03
        raise ImageError(f"the kernel speaks boot protocol 2.03 or later, not {protocol:#x}")
    kernel[0x210] = 0xB0
    kernel[0x211] |= 0x80
    struct.pack_into("<H", kernel, 0x224, _CMDLINE_ADDRESS - _REAL_ADDRESS - 0x200)
    struct.pack_into("<I", kernel, 0x228, _CMDLINE_ADDRESS)
    if boot.initrd is not None:
        highest = _highest_initrd_address(kernel, protocol, boot.memory_bytes)
        if len(boot.initrd) > highest:
            raise ImageError("the initrd fits below the highest address")
        address = (highest - len(boot.initrd)) & ~0xFFF
        struct.pack_into("<II", kernel, 0x218, address, len(boot.initrd))
    return bytes(kernel)


def _highest_initrd_address(kernel: bytearray, protocol: int, memory_bytes: int) -> int:
    (flags,) = struct.unpack_from("<H", kernel, 0x236)
    (highest,) = struct.unpack_from("<I", kernel, 0x22C)
    if protocol >= 0x20C and flags & _ABOVE_4G:  # noqa: PLR2004 - boot protocol 2.12
        highest = 0xFFFFFFFF
    low = _LOW_MEMORY_OF_LARGE if memory_bytes >= _LOW_MEMORY else memory_bytes
    return int(min(highest, low - _ACPI_BYTES - 1))

"""Parse a CCEL, the boot event log of a TD, and replay it into RTMR0 to RTMR3.

The log is a TCG crypto-agile log (TCG PC Client Platform Firmware Profile §10): one event in the
old form that lists the digest sizes, then events ``u32 register · u32 type · u32 count`` and as
many ``u16 algorithm · digest``, then ``u32 size · data``. Register numbers 1 to 4 are RTMR0 to
RTMR3; number 0 is MRTD, which no event extends. Ones or zeros after the last event are padding.

The log itself proves nothing: it is believed when its replay gives the registers of a verified
quote.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import sha384

from tdx.errors import ImageError
from tdx.quote import extend_all

__all__ = ["EVENT_TYPES", "Event", "EventLog", "parse_ccel"]

MAX_LOG_BYTES = 4 * 1024 * 1024
_SHA384 = 0x000C
_DIGEST_BYTES = 48
_NO_ACTION = 3
_REGISTERS = 4
_OLD_HEADER = struct.Struct("<II20sI")
_SPEC_ID = b"Spec ID Event03\0"
_MAX_ALGORITHMS = 8

EVENT_TYPES = {
    0x00000001: "EV_POST_CODE",
    0x00000003: "EV_NO_ACTION",
    0x00000004: "EV_SEPARATOR",
    0x00000005: "EV_ACTION",
    0x00000006: "EV_EVENT_TAG",
    0x00000008: "EV_S_CRTM_VERSION",
    0x0000000A: "EV_PLATFORM_CONFIG_FLAGS",
    0x0000000D: "EV_IPL",
    0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    0x80000002: "EV_EFI_VARIABLE_BOOT",
    0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000006: "EV_EFI_GPT_EVENT",
    0x80000007: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES",
    0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EV_EFI_HANDOFF_TABLES2",
    0x8000000C: "EV_EFI_VARIABLE_BOOT2",
    0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
}
# For these the digest is the hash of the data in the log; for the rest the log describes what was
# hashed, and the data cannot be checked against the digest.
_DATA_IS_HASHED = frozenset({0x00000004, 0x80000001, 0x80000007, 0x8000000C, 0x800000E0})


@dataclass(frozen=True, slots=True)
class Event:
    """Hold one event.

    Attributes:
        number: Position in the log, from 0.
        register: 0 to 3 for RTMR0 to RTMR3, or None for one that extends nothing.
        type_number: TCG event type.
        digest: What was extended, 48 bytes.
        data: What the log says about it.
    """

    number: int
    register: int | None
    type_number: int
    digest: bytes
    data: bytes = field(repr=False)

    @property
    def type_name(self) -> str:
        """Return the TCG name of the type, or its number."""
        return EVENT_TYPES.get(self.type_number, f"{self.type_number:#010x}")

    @property
    def digest_fits(self) -> bool | None:
        """Return whether the digest is the data's, or None where that cannot be told."""
        if self.type_number not in _DATA_IS_HASHED:
            return None
        return sha384(self.data).digest() == self.digest

    def describe(self) -> str:
        """Return the event in a line of text for people."""
        text = self.data
        # Long data is structures and file paths in UTF-16; their printable letters name the event.
        letters = "".join(chr(byte) for byte in text if 0x20 <= byte < 0x7F)  # noqa: PLR2004 - ASCII
        return f"event {self.number} {self.type_name} {letters[:60]!r}"


@dataclass(frozen=True, slots=True)
class EventLog:
    """Hold the events of a log, in order."""

    events: tuple[Event, ...]

    def of(self, register: int) -> tuple[Event, ...]:
        """Return the events that extend RTMR ``register``."""
        return tuple(event for event in self.events if event.register == register)

    def misdescribed(self) -> tuple[Event, ...]:
        """Return the events whose data is not what was hashed: their text must not be believed."""
        return tuple(event for event in self.events if event.digest_fits is False)

    def replay(self) -> tuple[bytes, ...]:
        """Return RTMR0 to RTMR3 as the log gives them, 48 bytes each."""
        return tuple(
            extend_all(event.digest for event in self.of(register))
            for register in range(_REGISTERS)
        )


def parse_ccel(data: bytes) -> EventLog:
    """Parse the data of a CCEL (``/sys/firmware/acpi/tables/data/CCEL``), at most 4 MiB.

    Raises:
        ImageError: The log does not start with its specification, an event does not lie inside, or
            has no SHA-384 digest.
    """
    if len(data) > MAX_LOG_BYTES:
        raise ImageError(f"an event log is at most {MAX_LOG_BYTES} bytes, not {len(data)}")
    reader = _Reader(data)
    sizes = _digest_sizes(reader)
    events: list[Event] = []
    while not reader.at_padding():
        events.append(_event(reader, sizes, len(events)))
    return EventLog(tuple(events))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._zeros_from = len(data.rstrip(b"\0"))

    def take(self, size: int, what: str) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise ImageError(f"the {what} at byte {self._at} does not lie inside the log")
        self._at += size
        return piece

    def u16(self, what: str) -> int:
        return int.from_bytes(self.take(2, what), "little")

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def at_padding(self) -> bool:
        # Asked before every event, so nothing is copied here: a log has very many of them.
        if self._at >= self._zeros_from:
            return True
        if not self._data.startswith(b"\xff\xff\xff\xff", self._at):
            return False
        if self._data[self._at :].strip(b"\xff"):
            raise ImageError(f"something follows the last event at byte {self._at}")
        return True


def _digest_sizes(reader: _Reader) -> dict[int, int]:
    _, kind, _, size = _OLD_HEADER.unpack(reader.take(_OLD_HEADER.size, "first event"))
    inner = _Reader(reader.take(size, "specification"))
    if kind != _NO_ACTION or inner.take(16, "signature") != _SPEC_ID:
        raise ImageError("an event log starts with Spec ID Event03")
    inner.take(8, "platform and version")
    count = inner.u32("number of algorithms")
    if not 1 <= count <= _MAX_ALGORITHMS:
        raise ImageError(f"an event log lists 1 to {_MAX_ALGORITHMS} algorithms, not {count}")
    sizes = {inner.u16("algorithm"): inner.u16("digest size") for _ in range(count)}
    if sizes.get(_SHA384) != _DIGEST_BYTES:
        raise ImageError("the event log has SHA-384 digests")
    return sizes


def _event(reader: _Reader, sizes: dict[int, int], number: int) -> Event:
    index = reader.u32("register")
    kind = reader.u32("event type")
    digests: dict[int, bytes] = {}
    count = reader.u32("digest count")
    if count > _MAX_ALGORITHMS:
        raise ImageError(f"event {number} has {count} digests")
    for _ in range(count):
        algorithm = reader.u16("algorithm")
        if algorithm not in sizes:
            raise ImageError(f"event {number} has a digest the log did not announce")
        digests[algorithm] = reader.take(sizes[algorithm], "digest")
    data = reader.take(reader.u32("event size"), "event data")
    extends = kind != _NO_ACTION and index != 0
    if index > _REGISTERS:
        raise ImageError(f"event {number} names register {index}; there are 0 to {_REGISTERS}")
    if extends and _SHA384 not in digests:
        raise ImageError(f"event {number} has no SHA-384 digest")
    return Event(
        number=number,
        register=index - 1 if extends else None,
        type_number=kind,
        digest=digests.get(_SHA384, bytes(_DIGEST_BYTES)),
        data=data,
    )

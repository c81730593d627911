"""A configfs-tsm report tree and TDX sysfs registers that behave, and fail, as Linux has them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tdx.quote import extend

REPORTS = Path("/sys/kernel/config/tsm/report")
REGISTERS = Path("/sys/class/misc/tdx_guest/measurements")


def fails(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


@dataclass
class Report:
    inblob: bytes = b""
    written: int = 0
    shown: int = 0


@dataclass
class FakeTree:
    """Keep report directories in memory.

    Attributes:
        quote: What the provider does.
        provider: Its name, or None for a kernel without one.
        faults: Error numbers by ``operation file``, each raised once, in order.
        intruders: How many of the next requests somebody else overwrites.
        count: What ``generation`` shows, if not the count.
        lag: How many reads of ``generation`` still show the old count after a write.
    """

    quote: Callable[[bytes], bytes]
    provider: str | None = "tdx_guest"
    faults: dict[str, list[int]] = field(default_factory=dict)
    intruders: int = 0
    lag: int = 0
    count: str | None = None
    reports: dict[Path, Report] = field(default_factory=dict)
    made: list[Path] = field(default_factory=list)
    registers: dict[str, bytes] = field(
        default_factory=lambda: {f"rtmr{number}:sha384": bytes(48) for number in range(4)}
    )

    def make(self, path: Path) -> None:
        self._fault("make", path)
        if path.parent != REPORTS or self.provider is None:
            raise fails(errno.ENOENT if path.parent != REPORTS else errno.ENXIO, path)
        if path in self.reports:
            raise fails(errno.EEXIST, path)
        self.reports[path] = Report()
        self.made.append(path)

    def remove(self, path: Path) -> None:
        self._fault("remove", path)
        if self.reports.pop(path, None) is None:
            raise fails(errno.ENOENT, path)

    def read(self, path: Path) -> bytes:
        self._fault(f"read {path.name}", path)
        if path.parent == REGISTERS:
            return self._register(path)
        report = self._report(path)
        if path.name == "provider":
            return f"{self.provider}\n".encode()
        if path.name == "generation":
            return f"{self.count or self._generation(report)}\n".encode()
        if path.name == "outblob":
            if len(report.inblob) != 64:
                raise fails(errno.EINVAL, path)
            if self.intruders:
                self.intruders -= 1
                report.written += 1
                report.inblob = b"i" * 64
            return self.quote(report.inblob)
        # inblob is write-only, and nothing else is there.
        raise fails(errno.EACCES if path.name == "inblob" else errno.ENOENT, path)

    def write(self, path: Path, data: bytes) -> None:
        self._fault(f"write {path.name}", path)
        if path.parent == REGISTERS:
            if path.name != "rtmr3:sha384":
                raise fails(errno.EACCES, path)
            self.registers[path.name] = extend(self._register(path), data)
            return
        report = self._report(path)
        if path.name != "inblob":
            raise fails(errno.EACCES, path)
        if len(data) > 64:
            raise fails(errno.EINVAL, path)
        report.inblob = data
        report.shown = self.lag
        report.written += 1

    def _generation(self, report: Report) -> int:
        if report.shown:
            report.shown -= 1
            return report.written - 1
        return report.written

    def _report(self, path: Path) -> Report:
        report = self.reports.get(path.parent)
        if report is None:
            raise fails(errno.ENOENT, path)
        return report

    def _register(self, path: Path) -> bytes:
        value = self.registers.get(path.name)
        if value is None:
            raise fails(errno.ENOENT, path)
        return value

    def _fault(self, operation: str, path: Path) -> None:
        waiting = self.faults.get(operation)
        if waiting:
            raise fails(waiting.pop(0), path)

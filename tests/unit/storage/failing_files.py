"""The operating system's files, with faults at chosen operations."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from zipnet.storage.files import File, OsFiles


@dataclass
class FailingFiles:
    """Opens real files; ``failures`` names the operations that fail and with which error number.

    ``short`` limits what one write takes, ``calls`` counts operations by name.
    """

    failures: dict[str, int] = field(default_factory=dict)
    short: int | None = None
    calls: dict[str, int] = field(default_factory=dict)

    def open(self, path: str) -> File:
        self.note("open")
        return _FailingFile(self, OsFiles().open(path))

    def note(self, operation: str) -> None:
        self.calls[operation] = self.calls.get(operation, 0) + 1
        number = self.failures.get(operation)
        if number is not None:
            raise OSError(number, errno.errorcode[number])


class _FailingFile:
    def __init__(self, owner: FailingFiles, file: File) -> None:
        self._owner, self._file = owner, file

    def lock(self) -> None:
        self._file.lock()

    def size(self) -> int:
        return self._file.size()

    def read(self, offset: int, length: int) -> bytes:
        self._owner.note("read")
        return self._file.read(offset, length)

    def write(self, offset: int, data: bytes) -> int:
        self._owner.note("write")
        return self._file.write(offset, data[: self._owner.short])

    def truncate(self, size: int) -> None:
        self._owner.note("truncate")
        self._file.truncate(size)

    def sync(self) -> None:
        self._owner.note("sync")
        self._file.sync()

    def sync_folder(self) -> None:
        self._owner.note("sync_folder")
        self._file.sync_folder()

    def close(self) -> None:
        self._file.close()

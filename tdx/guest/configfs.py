"""Quotes through configfs-tsm (Linux 6.7 and later).

A report is a directory: making it makes its files; writing 64 bytes to ``inblob`` asks, reading
``outblob`` answers, and ``generation`` counts the writes, so that a write by somebody else in
between is noticed. The directory's name is this process's alone, and it is always removed.

What goes wrong in the field, and what is done: another quote in flight (EBUSY) and interrupted or
timed-out waits are tried again; a lagging ``generation`` is read again; a moved one starts over; no
provider, a foreign provider and a quote that does not fit end at once.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tdx.errors import GuestError
from tdx.guest.source import check_quoted, check_report_data

__all__ = ["CONFIGFS_REPORTS", "ConfigfsSource", "OsTree", "Tree"]

CONFIGFS_REPORTS = Path("/sys/kernel/config/tsm/report")
_PROVIDER = "tdx_guest"
_MAX_BLOB_BYTES = 64 * 1024
_AGAIN = frozenset({errno.EBUSY, errno.EINTR, errno.ETIMEDOUT, errno.EAGAIN})


class Tree(Protocol):
    """Do the four things that are done to a report directory; each raises OSError."""

    def make(self, path: Path) -> None:
        """Make a directory."""
        ...

    def remove(self, path: Path) -> None:
        """Remove it."""
        ...

    def read(self, path: Path) -> bytes:
        """Read a file whole."""
        ...

    def write(self, path: Path, data: bytes) -> None:
        """Write a file in one call."""
        ...


class OsTree:
    """Do them on the file system of this machine."""

    def make(self, path: Path) -> None:
        """Make a directory."""
        path.mkdir(mode=0o700)

    def remove(self, path: Path) -> None:
        """Remove it; in configfs its files go with it."""
        path.rmdir()

    def read(self, path: Path) -> bytes:
        """Read a file whole: configfs gives blobs piece by piece."""
        with path.open("rb", buffering=0) as file:
            pieces: list[bytes] = []
            while sum(map(len, pieces)) <= _MAX_BLOB_BYTES:
                piece = file.read(_MAX_BLOB_BYTES)
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))

    def write(self, path: Path, data: bytes) -> None:
        """Write a file in one call: two writes would be two requests."""
        descriptor = os.open(path, os.O_WRONLY)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, "short write", str(path))
        finally:
            os.close(descriptor)


class ConfigfsSource:
    """Ask configfs-tsm for quotes.

    Args:
        reports: Where report directories are made.
        tree: How it is reached.
        attempts: How often a request is tried.
        pause_s: How long to wait between two tries, doubled each time.
        sleep: How to wait.
    """

    def __init__(
        self,
        reports: Path = CONFIGFS_REPORTS,
        *,
        tree: Tree | None = None,
        attempts: int = 6,
        pause_s: float = 0.1,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._reports = reports
        self._tree = tree or OsTree()
        self._attempts = attempts
        self._pause_s = pause_s
        self._sleep = sleep

    def quote(self, report_data: bytes) -> bytes:
        """Return a quote over 64 bytes; see ``QuoteSource.quote``."""
        check_report_data(report_data)
        path = self._reports / f"tdx-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            self._tree.make(path)
        except OSError as error:
            raise _explained(error, "a report directory cannot be made") from error
        try:
            return self._quote_in(path, report_data)
        finally:
            # A directory that cannot be removed is left to the kernel; the quote is good.
            with suppress(OSError):
                self._tree.remove(path)

    def _quote_in(self, path: Path, report_data: bytes) -> bytes:
        last: GuestError | None = None
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(self._pause_s * 2 ** (attempt - 1))
            try:
                self._check_provider(path)
                return self._request(path, report_data)
            except OSError as error:
                last = _explained(error, "the quote could not be had")
                if error.errno not in _AGAIN:
                    raise last from error
            except GuestError as error:
                if not error.may_retry:
                    raise
                last = error
        assert last is not None, "at least one attempt was made"
        raise last

    def _check_provider(self, path: Path) -> None:
        provider = self._tree.read(path / "provider").decode("ascii", "replace").strip()
        if provider != _PROVIDER:
            raise GuestError(
                f"the reports of this machine come from {provider!r}, not {_PROVIDER!r}",
                hint="is this a TDX guest?",
            )

    def _request(self, path: Path, report_data: bytes) -> bytes:
        before = self._generation(path)
        self._tree.write(path / "inblob", report_data)
        quote = self._tree.read(path / "outblob")
        after = self._generation(path)
        for _ in range(self._attempts):
            if after != before:
                break
            # Some kernels count after they answer.
            self._sleep(self._pause_s)
            after = self._generation(path)
        if after != before + 1:
            raise GuestError(
                f"the report was rewritten meanwhile: generation {before}, then {after}",
                retryable=True,
            )
        return check_quoted(quote, report_data)

    def _generation(self, path: Path) -> int:
        text = self._tree.read(path / "generation")
        try:
            return int(text)
        except ValueError as error:
            raise GuestError("configfs counts its generations in digits") from error


_HINTS = {
    errno.ENOENT: "no report provider: is configfs mounted and the tdx_guest module loaded?",
    errno.ENXIO: "no report provider: is the tdx_guest module loaded?",
    errno.EACCES: "run as root, or give this user the report directory",
    errno.EPERM: "run as root, or give this user the report directory",
    errno.EFBIG: "the quote does not fit into this kernel's buffer",
    errno.EBUSY: "another quote is in flight",
    errno.ETIMEDOUT: "is the host's quote generation service running?",
    errno.EIO: "is the host's quote generation service running?",
}


def _explained(error: OSError, what: str) -> GuestError:
    return GuestError(
        f"{what}: {error.strerror or error}",
        retryable=error.errno in _AGAIN or error.errno == errno.EIO,
        hint=_HINTS.get(error.errno or 0),
    )

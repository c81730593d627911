"""The audit trail on disk: append-only, verified from its first line whenever it is opened.

Beside the trail stands a small file, the *head*, with the number of entries and the last hash at
the last checkpoint. A trail that is shorter than its head says was cut.

Rules:

1. ``record`` returns after the entry is durable. A failed write raises
   :class:`~zipnet.errors.SafeMode`, and so does every later one.
2. A last line without its end is what a crash leaves: it is cut off, and that is an entry.
3. Anything else that does not verify is refused with the line, and nothing is written.
"""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError, SafeMode, StorageError, VerificationError
from zipnet.ledger.audit import AuditEntry, AuditVerifier, make_checkpoint, make_entry
from zipnet.storage.files import OsFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.ledger.audit import Value
    from zipnet.protocol.identity import Identity, PublicIdentity
    from zipnet.storage.files import File, Files

__all__ = ["AuditLog", "read_trail"]

CHECKPOINT_EVERY: Final = 64
_MAX_BYTES: Final = 1 << 32
_HASH_BYTES: Final = 32
_HEAD_BYTES: Final = 8 + _HASH_BYTES


class AuditLog:
    """One node's audit trail, open for appending.

    Args:
        path: The trail; its head is ``path`` with ``.head`` behind it.
        identity: Signs checkpoints, and must have signed those already there.
        wall: Unix seconds.
        files: How files are opened.

    Raises:
        StorageError: When the trail does not verify, was cut, or another process has it.
    """

    def __init__(
        self,
        path: Path,
        *,
        identity: Identity,
        wall: Callable[[], float],
        files: Files | None = None,
    ) -> None:
        self._identity = identity
        self._wall = wall
        self._path = path
        self._failed = False
        opener = files or OsFiles()
        with ExitStack() as opening:
            try:
                self._file = opener.open(str(path))
                opening.callback(self._file.close)
                self._lock()
                self._head = opener.open(f"{path}.head")
                opening.callback(self._head.close)
                lost = self._recover(identity.public)
            except OSError as error:
                raise StorageError(f"audit trail {path}: {error.strerror}") from error
            if lost:
                self.record("tail_discarded", lost_bytes=lost)
            opening.pop_all()

    def _lock(self) -> None:
        try:
            self._file.lock()
        except BlockingIOError as error:
            raise StorageError(f"audit trail {self._path} is in use by another process") from error

    def _recover(self, signer: PublicIdentity) -> int:
        """Verify what is there; returns how many bytes of a torn last line were cut off."""
        size = self._file.size()
        if size > _MAX_BYTES:
            raise StorageError(f"audit trail {self._path} is larger than {_MAX_BYTES} bytes")
        data = self._file.read(0, size)
        whole = data.rfind(b"\n") + 1
        verifier = AuditVerifier(signer)
        head = self._head.read(0, _HEAD_BYTES)
        least, last = int.from_bytes(head[:8], "big"), head[8:]
        at_head = bytes(_HASH_BYTES)
        try:
            for line in data[:whole].splitlines(keepends=True):
                verifier.read_line(line)
                if verifier.state.next_sequence == least:
                    at_head = verifier.state.last_hash
        except VerificationError as error:
            raise StorageError(
                f"{self._path}: {error}",
                hint="keep the file as evidence, find out who changed it, and move it away",
            ) from error
        if len(head) == _HEAD_BYTES and (verifier.state.next_sequence < least or at_head != last):
            raise StorageError(
                f"{self._path}: the audit trail was cut: it had {least} entries before",
                hint="keep the file as evidence, and move it and its head away",
            )
        self._state = verifier.state
        self._end = whole
        if whole < size:
            self._file.truncate(whole)
            self._file.sync()
        return size - whole

    @property
    def entries(self) -> int:
        """How many entries there are."""
        return self._state.next_sequence

    def record(self, event: str, **fields: Value) -> AuditEntry:
        """Append an entry durably, and a checkpoint when one is due.

        Raises:
            SafeMode: When it could not be made durable.
            LocalProtocolError: When a field is not on the list.
        """
        entry = make_entry(self._state, self._now(), event, fields)
        self._append(entry)
        if self._state.since_checkpoint >= CHECKPOINT_EVERY:
            self.checkpoint()
        return entry

    def checkpoint(self) -> None:
        """Sign everything so far, unless that has just been done.

        Raises:
            SafeMode: When it could not be made durable.
        """
        if self._state.since_checkpoint == 0:
            return
        self._append(make_checkpoint(self._state, self._now(), self._identity))
        head = self._state.next_sequence.to_bytes(8, "big") + self._state.last_hash
        self._write(self._head, 0, head)

    def _append(self, entry: AuditEntry) -> None:
        line = entry.line()
        self._write(self._file, self._end, line)
        self._end += len(line)
        self._state.take(entry)

    def _write(self, file: File, offset: int, data: bytes) -> None:
        if self._failed:
            raise SafeMode("the audit trail could not be written before")
        try:
            while data:
                taken = file.write(offset, data)
                offset, data = offset + taken, data[taken:]
            file.sync()
            if self._state.next_sequence == 0:
                file.sync_folder()
        except OSError as error:
            self._failed = True
            raise SafeMode(f"the audit trail could not be written: {error.strerror}") from error

    def close(self) -> None:
        """Give the files back. Idempotent; whoever stops in order checkpoints first."""
        self._file.close()
        self._head.close()

    def _now(self) -> str:
        moment = datetime.fromtimestamp(self._wall(), UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_trail(path: Path, signer: PublicIdentity | None) -> tuple[AuditVerifier, list[AuditEntry]]:
    """Read and verify a trail that may be in use; a torn last line is left out.

    Args:
        path: The trail.
        signer: Whose checkpoints they must be; None checks the chain and the roots alone.

    Raises:
        ConfigError: When it cannot be read.
        VerificationError: Naming the first line that is wrong.
    """
    verifier = AuditVerifier(signer)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"audit trail {path} cannot be read: {error.strerror}",
            hint="name audit.log of a state folder, or a copy of it",
        ) from error
    whole = data.rfind(b"\n") + 1
    return verifier, [verifier.read_line(line) for line in data[:whole].splitlines(keepends=True)]

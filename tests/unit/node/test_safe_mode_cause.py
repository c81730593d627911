"""Why a server is in safe mode: what its disk said, or that an operator asked for it."""

from __future__ import annotations

import errno

import pytest

from zipnet.errors import SafeMode, StorageError
from zipnet.node.safe_mode import cause_of, is_failed_write, note_of


def _failed(number: int) -> StorageError:
    error = StorageError("the journal could not be made durable")
    error.__cause__ = OSError(number, "in the system's words")
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (_failed(errno.ENOSPC), "disk_full"),
        (_failed(errno.EFBIG), "file_too_large"),
        (SafeMode("a write failed, nobody knows why"), "write_failed"),
        (SafeMode("an operator put this node into safe mode", cause="operator"), "operator"),
    ],
)
def test_the_mark_says_what_put_the_server_there(error: StorageError, cause: str) -> None:
    assert cause_of(error) == cause
    assert is_failed_write(error)
    note = note_of(error, 1.5)
    assert (note.cause, note.text, note.since_ms) == (cause, str(error), 1500)

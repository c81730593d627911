"""Take the secrets out of a stopped server's state folder, for good.

What is secret there is key custody: KEM seeds and the clients' chain keys. Records, audit trail,
release journal and log stay: they prove what the server did, and open nothing.

Rules:

1. The mark comes first. From then on the folder starts readers only, whatever happens next, so a
   server whose keys are half gone never comes to life.
2. Every byte of a custody file is overwritten, made durable, and only then is the file taken away.
   A file system that copies on write keeps old blocks: destroy its key or the disk as well.
3. Doing it again does what is left to do and nothing else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError, StorageError
from zipnet.storage.custody import CUSTODY_NAMES
from zipnet.storage.marker import SafeModeMarker, SafeModeNote

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DECOMMISSIONED", "wipe_secrets"]

DECOMMISSIONED: Final = "decommissioned"
_CHUNK: Final = 1 << 20


def wipe_secrets(folder: Path, *, now_ms: int) -> list[str]:
    """Wipe a state folder's secrets; returns the names of the files that were taken away.

    Args:
        folder: The state folder of a server that does not run.
        now_ms: Milliseconds since 1970, for the mark.

    Raises:
        ConfigError: When the folder is none.
        DuplicateIdentityError: When the server runs.
        StorageError: When a write fails; run it again then.
    """
    if not (folder / "releases.journal").is_file():
        raise ConfigError(
            f"{folder} is no server's state folder", hint="name the folder of --state"
        )
    marker = SafeModeMarker(folder)
    try:
        note = SafeModeNote(DECOMMISSIONED, "its secrets were wiped by its operator", now_ms)
        if not marker.set(note):
            raise StorageError(f"{folder} cannot be marked: the disk refuses writes")
        return [name for name in CUSTODY_NAMES if _wipe(folder, name)]
    finally:
        marker.close()


def _wipe(folder: Path, name: str) -> bool:
    path = folder / name
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        left = os.fstat(descriptor).st_size
        offset = 0
        while offset < left:
            offset += os.pwrite(descriptor, bytes(min(_CHUNK, left - offset)), offset)
        os.fsync(descriptor)
        path.unlink()
        _sync_folder(folder)
    except OSError as error:
        raise StorageError(f"{path} could not be wiped: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

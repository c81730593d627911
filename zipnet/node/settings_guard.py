"""A server takes no settings file that is older than one it ran with (row A9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError
from zipnet.storage.journal import FileJournal

if TYPE_CHECKING:
    from pathlib import Path

    from zipnet.settings import ServerSettings

__all__ = ["SETTINGS_JOURNAL", "require_not_older"]

SETTINGS_JOURNAL: Final = "settings.journal"
_NUMBER_BYTES: Final = 8


def require_not_older(settings: ServerSettings, folder: Path) -> None:
    """Compare the number of a signed settings file with the highest so far, and keep a higher one.

    Raises:
        ConfigError: When the file is older than one this server ran with.
        StorageError: When the number cannot be read or kept.
    """
    version = settings.config_version
    if version is None:
        return
    journal = FileJournal(folder / SETTINGS_JOURNAL, identity=bytes(settings.identity.peer_id))
    try:
        highest = max((int.from_bytes(entry, "big") for entry in journal.entries()), default=0)
        if version < highest:
            raise ConfigError(
                f"the settings file is number {version}; this server ran with number {highest}",
                hint="take the newest file, or sign this one again with a higher config_version",
            )
        if version > highest:
            journal.append(version.to_bytes(_NUMBER_BYTES, "big"))
    finally:
        journal.close()

"""What a committee server remembers, opened: on its disk, or in its memory alone.

Two profiles behind the same ports (protocol.md §6): *durable* keeps release journal, keys, log and
records in one state folder and survives any crash; *amnesia* opens no file at all and comes back
from a restart as a newcomer with fresh keys.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError
from zipnet.machines.guard import Released
from zipnet.storage.audit import AuditLog
from zipnet.storage.blobs import BlobStore
from zipnet.storage.compacting import CompactingFileJournal
from zipnet.storage.custody import CustodyFiles, KeyCustody
from zipnet.storage.journal import FileJournal
from zipnet.storage.memory import MemoryBlobs, MemoryCustody, MemoryJournal, MemoryRecords
from zipnet.storage.records import RecordLog

if TYPE_CHECKING:
    from pathlib import Path

    from zipnet.ports import Blobs, CompactingJournal, Journal, RecordStore
    from zipnet.settings import ServerSettings

__all__ = [
    "RECORDS_FOLDER",
    "VERSIONS_FILE",
    "ServerState",
    "make_folders",
    "open_durable",
    "open_in_memory",
]

VERSIONS_FILE = "descriptors.journal"
"""File of the descriptor's versions inside a state folder."""

RECORDS_FOLDER = "records"
"""Folder of the record log inside a state folder."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """Everything one server remembers, open.

    Attributes:
        releases: The release guard's journal.
        raft: The consensus engine's journal, with its snapshots.
        revocations: Statements of what was revoked.
        custody: KEM keys and client chains.
        records: Sealed records.
        blobs: Blobs by digest.
        history: Every release ever made; None where that memory was lost.
        audit: The audit trail; None where nothing is kept.
        versions: Files of the descriptor's versions; None where nothing is kept.
    """

    releases: Journal
    raft: CompactingJournal
    revocations: Journal
    custody: KeyCustody
    records: RecordStore
    blobs: Blobs
    history: tuple[Released, ...] | None
    audit: AuditLog | None = None
    versions: Journal | None = None

    @property
    def is_durable(self) -> bool:
        """Whether it survives the process."""
        return self.history is not None

    def close(self) -> None:
        """Close everything; key custody is closed by whoever works with it."""
        self.records.close()
        self.raft.close()
        self.revocations.close()
        self.releases.close()
        if self.versions is not None:
            self.versions.close()


def make_folders(folder: Path) -> None:
    """Make a state folder where there is none.

    Raises:
        ConfigError: When it cannot be made.
    """
    try:
        for path in (folder, folder / RECORDS_FOLDER, folder / "blobs"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the state folder {folder}: {error.strerror}",
            hint="point --state at a folder this user may write to",
        ) from error


def open_durable(settings: ServerSettings, folder: Path) -> ServerState:
    """Open a state folder that :func:`make_folders` made.

    Raises:
        ConfigError: When the folder belongs to another instance or identity.
        StorageError: When something in it is damaged or refuses writes.
    """
    group = settings.descriptor.group
    identity = bytes(settings.identity.peer_id)
    releases = FileJournal(folder / "releases.journal", identity=identity)
    raft = CompactingFileJournal(folder / "consensus", identity=identity)
    revocations = FileJournal(folder / "revocations.journal", identity=identity)
    custody = KeyCustody(
        CustodyFiles(folder),
        group=group,
        max_skip_rounds=settings.descriptor.params.max_skip_rounds,
    )
    records = RecordLog(folder / RECORDS_FOLDER, group=group)
    history = tuple(Released.decode(entry) for entry in releases.entries())
    audit = AuditLog(folder / "audit.log", identity=settings.identity, wall=time.time)
    blobs = BlobStore(folder / "blobs")
    versions = FileJournal(folder / VERSIONS_FILE, identity=identity)
    return ServerState(
        releases, raft, revocations, custody, records, blobs, history, audit, versions
    )


def open_in_memory(settings: ServerSettings) -> ServerState:
    """Begin without any memory; opens no file."""
    custody = KeyCustody(
        MemoryCustody(),
        group=settings.descriptor.group,
        max_skip_rounds=settings.descriptor.params.max_skip_rounds,
    )
    releases, raft, revocations = MemoryJournal(), MemoryJournal(), MemoryJournal()
    return ServerState(releases, raft, revocations, custody, MemoryRecords(), MemoryBlobs(), None)

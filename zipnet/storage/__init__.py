"""Durable storage: the journal and the file operations it is built from."""

from zipnet.storage.compacting import CompactingFileJournal
from zipnet.storage.files import File, Files, OsFiles
from zipnet.storage.journal import FileJournal

__all__ = ["CompactingFileJournal", "File", "FileJournal", "Files", "OsFiles"]

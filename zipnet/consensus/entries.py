"""Entries between their two forms: as they travel, and as the library's log holds them."""

from __future__ import annotations

from zipnet.consensus.messages import Entry
from zipnet.consensus.raftlog import MEMBERS, NO_OP, REGULAR

__all__ = ["read_entry", "written_entry"]


def written_entry(entry: Entry) -> bytes:
    """Return an entry as the log holds it: its kind, then what it says."""
    if entry.members is not None:
        return MEMBERS + entry.members
    return NO_OP if entry.command is None else REGULAR + entry.command


def read_entry(command: bytes, term: int) -> Entry:
    """Return an entry of the log as it travels."""
    kind, body = command[:1], command[1:]
    if kind == MEMBERS:
        return Entry(term, None, body)
    return Entry(term, None if kind == NO_OP else body)

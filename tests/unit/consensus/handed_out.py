"""What an engine handed out, for tests in which no snapshot is due."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zipnet.ports import CommittedCommand, CommittedSnapshot


def commands_in(batches: Iterable[Sequence[CommittedCommand | CommittedSnapshot]]) -> list[bytes]:
    """Return all commands, in order."""
    commands: list[bytes] = []
    for batch in batches:
        for item in batch:
            assert isinstance(item, CommittedCommand)
            commands.append(item.command)
    return commands

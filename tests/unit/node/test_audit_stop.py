"""A node that stops while an entry is being written loses none and mixes none."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from tests.harness.committee import make_identity
from zipnet.ledger.audit import AuditVerifier
from zipnet.node.audit import AuditTrail
from zipnet.storage.audit import AuditLog, read_trail


class SlowLog(AuditLog):
    """A log whose first entry takes until it is let go."""

    go = threading.Event()
    begun = threading.Event()

    def record(self, event: str, **fields: object) -> object:  # type: ignore[override]
        self.begun.set()
        self.go.wait(10)
        return super().record(event, **fields)  # type: ignore[arg-type]


async def test_an_entry_that_is_being_written_is_written_before_the_rest(tmp_path: Path) -> None:
    path, identity = tmp_path / "audit.log", make_identity("audit")
    log = SlowLog(path, identity=identity, wall=lambda: 0.0)
    trail = AuditTrail(log)
    trail.note("first")
    running = asyncio.create_task(trail.run())
    await asyncio.to_thread(log.begun.wait)
    trail.note("second")
    running.cancel()
    await asyncio.sleep(0)
    log.go.set()
    await asyncio.wait({running})
    assert running.cancelled()
    trail.close()
    verifier, entries = read_trail(path, identity.public)
    assert isinstance(verifier, AuditVerifier)
    assert [entry.event for entry in entries] == ["first", "second", "checkpoint"]

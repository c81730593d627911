"""Safe mode of a committee server: what is stored goes on being read, and nothing else happens.

protocol.md §6, §8. A durable write that failed leaves the node not knowing what its disk holds, so
it must not sign, release or admit until an operator has looked. Everything that could is taken
down, key custody is wiped, and in its place stands a server that knows records and readers only.

An operator's word does the same (``zipnet admin safe-mode``).

Rules:

1. The mark goes to the disk first, where the disk takes it; a restart finds it and comes up here.
2. Servers, aggregators and clients are refused with the code ``safe_mode``. So a leader counts this
   server as absent, and whoever followed it follows another one.
3. Nothing here writes. A failed fsync is never tried again: not by this process, and not by the
   next one either before an operator took the mark away (``zipnet safe-mode leave``).
"""

from __future__ import annotations

import asyncio
import errno
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from zipnet.access.policy import Service
from zipnet.errors import AdmissionError, SafeMode, StorageError
from zipnet.node.build import build_commit, build_version
from zipnet.node.feed import Feed
from zipnet.node.http import serve_http
from zipnet.node.listen import ListenLimits, NodeListener
from zipnet.node.mesh import CommitteeMesh
from zipnet.node.record_keeper import RecordKeeper
from zipnet.node.traces import NodeTraces
from zipnet.node.wall import Wall, WallParts
from zipnet.observe.health import Health
from zipnet.observe.log import get_logger
from zipnet.observe.metrics import NodeMetrics
from zipnet.storage.marker import SafeModeNote
from zipnet.storage.records import RecordLog
from zipnet.transport.session import Role, Session
from zipnet.wire.messages import GetRecords, Kind, Message, Records, decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from zipnet.node.notify import ServiceNotifier
    from zipnet.ports import Transport
    from zipnet.settings import ServerSettings
    from zipnet.transport.session import SessionTerms

__all__ = ["cause_of", "is_failed_write", "note_of", "serve_readers_only"]

CONDITION: Final = "storage"
_CODE: Final = "safe_mode"
_RETRY_S: Final = 10.0
_CAUSES: Final = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "quota_exceeded",
    errno.EFBIG: "file_too_large",
    errno.EROFS: "disk_read_only",
    errno.EIO: "io_error",
}
_OTHER: Final = "write_failed"


def cause_of(error: BaseException) -> str:
    """Return why a durable write failed, as a snake_case word for metric, log and readiness.

    ``operator`` where none did, and an operator asked for safe mode.
    """
    if isinstance(error, SafeMode) and error.cause is not None:
        return error.cause
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__
    number = found.errno if isinstance(found, OSError) else None
    return _CAUSES.get(number or 0, _OTHER)


def is_failed_write(error: StorageError) -> bool:
    """Tell whether an error means that the disk refuses writes, rather than that it is damaged."""
    return isinstance(error, SafeMode) or cause_of(error) != _OTHER


def note_of(error: StorageError, wall_s: float) -> SafeModeNote:
    """Return what goes into the mark for a failed write."""
    return SafeModeNote(cause_of(error), str(error), int(wall_s * 1000))


async def serve_readers_only(
    settings: ServerSettings,
    records: Path,
    note: SafeModeNote,
    terms: SessionTerms,
    transports: Sequence[Transport],
    stop: asyncio.Event,
    *,
    notifier: ServiceNotifier,
    version: Mapping[str, str],
) -> None:
    """Serve stored records to readers until ``stop`` is set.

    Args:
        settings: The server's settings.
        records: Folder of the record log; it is only read.
        note: Why.
        terms: What this node says in handshakes.
        transports: What it listens with.
        stop: Ends it.
        notifier: Told when readers are served.
        version: What ``/version`` says.

    Raises:
        ConfigError: When the ports are taken.
        StorageError: When not even the record log can be read.
    """
    metrics = _metrics(settings, note)
    health = Health((CONDITION,), metrics)
    health.set(CONDITION, ok=False, reason=note.cause)
    log = RecordLog.open_readonly(records, group=settings.descriptor.group)
    async with AsyncExitStack() as stack:
        stack.callback(log.close)
        traces = NodeTraces(settings, "server", keep_all=lambda: True)
        stack.callback(traces.close)
        reading = _Reading(log, settings, metrics)
        listener = NodeListener(
            terms=terms,
            descriptor=settings.descriptor,
            handlers={Role.READER: reading.serve},
            metrics=metrics,
            unserved=_refusal,
            limits=ListenLimits.of(settings.bounds),
        )
        port = await listener.start(settings.listen.host, settings.listen.port, transports)
        stack.push_async_callback(listener.close)
        http = await serve_http(
            settings.metrics.host,
            settings.metrics.port,
            health=health,
            metrics=metrics,
            version=version,
            requests=traces.requests,
        )
        stack.push_async_callback(http.close)
        get_logger().error(
            "safe_mode_entered",
            reason=note.cause,
            error=note.text,
            port=port,
            metrics_port=http.port,
            server=int(settings.index),
            hint="mend the disk, then: zipnet safe-mode leave",
        )
        await _until(stop, notifier)


async def _until(stop: asyncio.Event, notifier: ServiceNotifier) -> None:
    notifier.ready()
    watchdog = asyncio.create_task(notifier.run_watchdog())
    try:
        await stop.wait()
    finally:
        watchdog.cancel()
        await asyncio.wait({watchdog})
    notifier.stopping()


def _metrics(settings: ServerSettings, note: SafeModeNote) -> NodeMetrics:
    metrics = NodeMetrics(
        CollectorRegistry(),
        instance=settings.instance,
        role="server",
        version=build_version(),
        commit=build_commit(),
        posture=settings.posture,
        attestation=settings.descriptor.descriptor.attestation.mode.value,
    )
    metrics.server_registry_size.set(len(settings.descriptor.committee))
    metrics.safe_mode.remove("none")
    metrics.safe_mode.set(note.cause, 1)
    if note.cause in {*_CAUSES.values(), _OTHER}:
        metrics.wal_fsync_fail.inc()
    return metrics


def _refusal(role: Role) -> AdmissionError:
    return AdmissionError(
        f"this server is in safe mode and serves no {role.value}",
        code=_CODE,
        retry_after=_RETRY_S,
    )


class _Reading:
    """Records for readers, from a log nobody writes to any more."""

    def __init__(self, log: RecordLog, settings: ServerSettings, metrics: NodeMetrics) -> None:
        self._keeper = RecordKeeper(
            log, settings.descriptor, CommitteeMesh({}), on_stored=lambda _: None
        )
        self._feed = Feed(
            read_records=self._keeper.read,
            next_sequence=lambda: self._keeper.next_sequence,
            last_record=lambda: self._keeper.last_bytes,
            open_round=lambda: None,
        )
        wall = Wall(Service.SAFE_MODE, WallParts(metrics, bounds=settings.bounds))
        self._routes = wall.routes(
            {Kind.SUBSCRIBE: self._feed.subscribe, Kind.GET_RECORDS: self._get_records}
        )
        if self._keeper.last is not None:
            metrics.record_sequence.set(self._keeper.last.sequence)
            opened_ms = self._keeper.last.record.content.header.opened_at_ms
            metrics.last_record_timestamp.set(min(opened_ms / 1000, time.time()))

    async def serve(self, session: Session) -> None:
        await self._feed.serve(session, self._routes.handler(session))

    async def _get_records(self, _session: Session, payload: bytes) -> Message:
        request = decode(payload, GetRecords)
        found = await self._keeper.read(request.from_sequence, request.limit)
        return Records(records=found, next_sequence=self._keeper.next_sequence)

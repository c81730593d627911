"""The one writer of a server's record log: verify, make durable, then tell the feed.

Rules:

1. Records enter in sequence, each verified with the descriptor and against the one before it,
   whether this server assembled them or fetched them from another one.
2. Nobody is shown a record that is not durable here.
3. A gap is filled from the other servers before anything newer is stored.
4. Subscribers hear of openings, records and aborts in the order of the log: an opening waits for
   the record it extends, so a client can always work out its slots.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from zipnet.errors import (
    AdmissionError,
    RemoteProtocolError,
    StorageError,
    TransportError,
    VerificationError,
)
from zipnet.machines.committee_outcomes import RoundAborted
from zipnet.observe.log import get_logger
from zipnet.protocol.header import SignedHeader
from zipnet.protocol.ids import ServerIndex
from zipnet.protocol.record import (
    Record,
    VerifiedRecord,
    decode_record,
    require_extends,
    verify_record,
)
from zipnet.wire.messages import (
    GetRecords,
    Kind,
    Records,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.node.feed import Feed
    from zipnet.node.mesh import CommitteeMesh
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.ports import RecordStore
    from zipnet.protocol.descriptor import TrustedDescriptor

__all__ = ["RecordKeeper"]

_MAX_WAITING = 256
_PAGE = 16
_PAGE_BYTES = 768 * 1024
_REQUEST_TIMEOUT_S = 5.0
_RETRY_PAUSE_S = 0.5


class RecordKeeper:
    """Stores sealed records and serves them.

    Args:
        log: The durable record log; this object is its only writer.
        descriptor: What records are verified with.
        mesh: Where missing records are fetched from.
        on_stored: Told about each stored record, for metrics.
        metrics: Where gaps and records that do not verify are counted, if anywhere.

    Raises:
        StorageError: When the newest stored record does not verify.
    """

    def __init__(
        self,
        log: RecordStore,
        descriptor: TrustedDescriptor,
        mesh: CommitteeMesh,
        *,
        on_stored: Callable[[VerifiedRecord], None],
        metrics: NodeMetrics | None = None,
    ) -> None:
        self._log_file = log
        self._descriptor = descriptor
        self._mesh = mesh
        self._on_stored = on_stored
        self._metrics = metrics
        self._waiting: asyncio.Queue[Record | int | SignedHeader | RoundAborted] = asyncio.Queue(
            _MAX_WAITING
        )
        self._last, self._last_bytes = self._load_last()
        self._feed: Feed | None = None
        self._log = get_logger()

    def use_descriptor(self, descriptor: TrustedDescriptor) -> None:
        """Go by a later version of the descriptor."""
        self._descriptor = descriptor

    @property
    def next_sequence(self) -> int:
        """Sequence the next record will have."""
        return self._log_file.next_sequence

    @property
    def first_sequence(self) -> int:
        """Sequence of the oldest record that is still held."""
        return self._log_file.first_sequence

    @property
    def log(self) -> RecordStore:
        """The log, for reading."""
        return self._log_file

    @property
    def last(self) -> VerifiedRecord | None:
        """The newest stored record."""
        return self._last

    @property
    def last_bytes(self) -> bytes | None:
        """The newest stored record as it is served."""
        return self._last_bytes

    def attach(self, feed: Feed) -> None:
        """Name the feed that subscribers are told through; before :meth:`run`."""
        self._feed = feed

    async def read(self, from_sequence: int, limit: int) -> list[bytes]:
        """Return stored records from a sequence on, as many as one frame can carry.

        Raises:
            StorageError: When a stored record no longer matches its checksum.
        """
        return await asyncio.to_thread(
            self._log_file.read, from_sequence, limit, max_bytes=_PAGE_BYTES
        )

    async def store(self, record: Record) -> None:
        """Queue a sealed record this server assembled."""
        await self._waiting.put(record)

    async def catch_up(self, next_sequence: int) -> None:
        """Queue the fetching of all records before ``next_sequence``."""
        await self._waiting.put(next_sequence)

    async def announce_opened(self, signed: SignedHeader) -> None:
        """Queue the news of an opened round behind the records before it."""
        await self._waiting.put(signed)

    async def announce_aborted(self, aborted: RoundAborted) -> None:
        """Queue the news of an aborted round."""
        await self._waiting.put(aborted)

    async def run(self) -> None:
        """Store what is queued, in order, until cancelled.

        Raises:
            SafeMode: When a record could not be made durable.
        """
        while True:
            item = await self._waiting.get()
            match item:
                case Record():
                    if item.sequence > self.next_sequence and self._metrics is not None:
                        self._metrics.seq_gap_detected.inc()
                    await self._fill(item.sequence)
                    if item.sequence == self.next_sequence:
                        await self._append(item, item.encode())
                case int():
                    await self._fill(item)
                case SignedHeader() if self._feed is not None:
                    self._feed.publish_opened(item.encode())
                case RoundAborted() if self._feed is not None:
                    self._feed.publish_aborted(item.round, int(item.why))

    def _load_last(self) -> tuple[VerifiedRecord | None, bytes | None]:
        if not self.next_sequence:
            return None, None
        (data,) = self._log_file.read(self.next_sequence - 1, 1)
        try:
            record = decode_record(data, self._descriptor.params)
            return verify_record(record, self._descriptor), data
        except (RemoteProtocolError, VerificationError) as error:
            raise StorageError(
                "the newest record on disk does not verify",
                hint="the state folder belongs to another instance or was altered",
            ) from error

    async def _fill(self, next_sequence: int) -> None:
        while self.next_sequence < next_sequence:
            for server in sorted(self._mesh.connected()):
                await self._fill_from(ServerIndex(server), next_sequence)
            if self.next_sequence < next_sequence:
                await asyncio.sleep(_RETRY_PAUSE_S)

    async def _fill_from(self, server: ServerIndex, next_sequence: int) -> None:
        try:
            while self.next_sequence < next_sequence:
                request = GetRecords(from_sequence=self.next_sequence, limit=_PAGE)
                payload = await self._mesh.request(
                    server, Kind.GET_RECORDS, request, timeout_s=_REQUEST_TIMEOUT_S
                )
                page = decode(payload, Records)
                if not page.records:
                    return
                for data in page.records:
                    await self._append(decode_record(data, self._descriptor.params), data)
        except (TransportError, AdmissionError):
            return
        except (RemoteProtocolError, VerificationError) as error:
            if self._metrics is not None:
                self._metrics.integrity_fail.inc("record")
            self._log.warning("record_refused", server=int(server), reason=error.reason)

    async def _append(self, record: Record, data: bytes) -> None:
        verified = verify_record(record, self._descriptor)
        if self._last is not None or not self._log_file.begins_anywhere:
            require_extends(verified, self._last)
        await asyncio.to_thread(self._log_file.append, record.sequence, data)
        self._last, self._last_bytes = verified, data
        self._on_stored(verified)
        if self._feed is not None:
            self._feed.publish_record(record.sequence, data)

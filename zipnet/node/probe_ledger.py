"""Whether a server's record log is whole, and as long as the committee's.

Rules:

1. The newest record and an older one, drawn by lot, are read back from the disk and verified:
   damage is found before a reader does. Taking turns would never come round: the log grows.
2. A log that stays behind what the committee sealed is degraded after two seconds and failed after
   ten: its readers would wait for records that others have.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

from zipnet.errors import RemoteProtocolError, StorageError, VerificationError
from zipnet.observe.health import HOLDS, Finding, degraded, failed
from zipnet.protocol.record import decode_record, verify_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.node.record_keeper import RecordKeeper
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.protocol.descriptor import TrustedDescriptor

__all__ = ["LedgerProbe"]

_LATE_S: Final = 2.0
_TOO_LATE_S: Final = 10.0


class LedgerProbe:
    """Reads a record log back.

    Args:
        keeper: The log.
        descriptor: Returns the version in force; it knows those before it.
        sealed: Sequence number of the committee's next record, as its log of commands says.
        metrics: Where damage is counted.
        monotonic: Seconds that only go forward.
        draw: Returns a number below the one given.
    """

    name = "ledger"
    every_s = 1.0

    def __init__(
        self,
        keeper: RecordKeeper,
        descriptor: Callable[[], TrustedDescriptor],
        sealed: Callable[[], int],
        metrics: NodeMetrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        draw: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        self._keeper = keeper
        self._descriptor = descriptor
        self._sealed = sealed
        self._metrics = metrics
        self._monotonic = monotonic
        self._draw = draw
        self._whole_at = monotonic()

    async def look(self) -> Finding:
        """Failed where a record is damaged or the log stays behind."""
        first, following = self._keeper.first_sequence, self._keeper.next_sequence
        try:
            for sequence in self._chosen(first, following):
                await self._verify(sequence)
        except (StorageError, RemoteProtocolError, VerificationError):
            self._metrics.integrity_fail.inc("record")
            return failed("record_damaged")
        return self._length(following)

    def _chosen(self, first: int, following: int) -> set[int]:
        held = following - first
        if held <= 0:
            return set()
        return {following - 1, first + self._draw(held)}

    async def _verify(self, sequence: int) -> None:
        for data in await self._keeper.read(sequence, 1):
            descriptor = self._descriptor()
            record = decode_record(data, descriptor.params)
            if verify_record(record, descriptor).sequence != sequence:
                raise StorageError("a record stands where another one should")

    def _length(self, following: int) -> Finding:
        now = self._monotonic()
        if following >= self._sealed():
            self._whole_at = now
        late_s = now - self._whole_at
        if late_s > _TOO_LATE_S:
            return failed("records_behind")
        return degraded("records_behind") if late_s > _LATE_S else HOLDS

"""A committee server's signed checkpoints of the record log (``zipnet.ledger.checkpoint``).

Rules:

1. What is signed is the tree over records that are durable here, each of which was verified when it
   was stored; checkpoints of one server are therefore always of one growing log.
2. The tree is made when somebody first asks, for a bounded time at once: after a start the first
   checkpoints of a long log are shorter than it is.
3. A server that does not hold the log from its beginning signs nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from zipnet.ledger.checkpoint import LogCheckpoint, origin_of, sign_checkpoint
from zipnet.ledger.merkle import MerkleTree
from zipnet.protocol.record import decode_record

if TYPE_CHECKING:
    from zipnet.ports import RecordStore
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.ids import ServerIndex

__all__ = ["LogSigner"]

_STEP_S: Final = 1.0
_PAGE: Final = 16


class LogSigner:
    """Signs checkpoints for one server.

    Args:
        log: Sealed records.
        descriptor: The instance.
        server: Which server this is.
        identity: What it signs with.
    """

    def __init__(
        self,
        log: RecordStore,
        descriptor: TrustedDescriptor,
        server: ServerIndex,
        identity: Identity,
    ) -> None:
        self._records = log
        self._descriptor = descriptor
        self._server = server
        self._identity = identity
        self._tree = MerkleTree()
        self._signed: tuple[int, bytes] | None = None

    async def checkpoint(self) -> bytes | None:
        """Return a checkpoint of as much of the log as was hashed so far, as a signed note.

        None where the beginning of the log is not held here.

        Raises:
            StorageError: When a stored record no longer matches its checksum.
        """
        if self._records.first_sequence:
            return None
        if self._signed is None or self._signed[0] < self._records.next_sequence:
            # On a copy: a request that is given up leaves its thread running.
            tree, note = await asyncio.to_thread(self._grow, self._tree.copy())
            if note is None:
                return None
            if self._signed is None or tree.size >= self._signed[0]:
                self._tree, self._signed = tree, (tree.size, note)
        return self._signed[1]

    def _grow(self, tree: MerkleTree) -> tuple[MerkleTree, bytes | None]:
        end, enough = self._records.next_sequence, time.monotonic() + _STEP_S
        while tree.size < end:
            for data in self._records.read(tree.size, min(_PAGE, end - tree.size)):
                record = decode_record(data, self._descriptor.params)
                if record.sequence != tree.size:  # those before it went, or never were here
                    return tree, None
                tree.append(record.content.hash)
            if time.monotonic() >= enough:
                break
        checkpoint = LogCheckpoint(origin_of(self._descriptor), tree.size, tree.root())
        return tree, sign_checkpoint(checkpoint, self._server, self._identity).encode()

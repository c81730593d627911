"""Verification of records away from the event loop: several hybrid signatures take milliseconds."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.protocol.record import VerifiedRecord, decode_record, verify_record

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import TrustedDescriptor

__all__ = ["RecordVerifier"]


class RecordVerifier:
    """One worker thread that turns record bytes into verified records, in order.

    Args:
        descriptor: The instance the records must be of.
    """

    def __init__(self, descriptor: TrustedDescriptor) -> None:
        self._descriptor = descriptor
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="zipnet-verify")

    @property
    def descriptor(self) -> TrustedDescriptor:
        """The newest version of the descriptor known here."""
        return self._descriptor

    def use_descriptor(self, descriptor: TrustedDescriptor) -> None:
        """Verify with a later version, and those before it."""
        self._descriptor = descriptor

    def version_of(self, data: bytes) -> int:
        """Return the version of the descriptor a record names; nothing of it is verified.

        Raises:
            RemoteProtocolError: When the bytes are no record.
        """
        content = decode_record(data, self._descriptor.params).content
        return int(content.header.descriptor_version)

    async def verify(self, data: bytes) -> VerifiedRecord:
        """Parse and verify one record (protocol.md §6).

        Raises:
            RemoteProtocolError: When the bytes are no record, or it does not verify: whoever sent
                it broke the rules, so the link ends.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._verify, data)

    def _verify(self, data: bytes) -> VerifiedRecord:
        try:
            return verify_record(decode_record(data, self._descriptor.params), self._descriptor)
        except VerificationError as error:
            raise RemoteProtocolError(
                f"a node sent a record that is not genuine: {error}"
            ) from error

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._pool.shutdown(wait=True, cancel_futures=True)

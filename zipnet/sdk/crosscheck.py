"""Holding committee servers against each other: one log, or proof that there are two.

protocol.md §6, §8.7. Records chain by hash, so one comparison covers everything before it. One
server alone cannot make a second story: both records carry the committee's signatures, and both
together convince anyone who has the descriptor.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from zipnet.errors import EquivocationError
from zipnet.sdk.links import LINK_ERRORS, Dialer, Trouble, serving
from zipnet.transport.session import Role
from zipnet.wire.messages import GetRecords, Kind, Records, decode, encode

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import NodeEntry, TrustedDescriptor
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.sdk.verifier import RecordVerifier
    from zipnet.transport.session import Session

__all__ = ["CrossCheck"]


class CrossCheck:
    """Asks other servers for records that one has shown.

    Args:
        descriptor: The instance.
        dialer: How nodes are reached, anonymously.
        verifier: Turns record bytes into verified records.
        every: Records between two comparisons; 0 compares never.
        on_trouble: Told about servers that could not be asked.
    """

    def __init__(
        self,
        descriptor: TrustedDescriptor,
        dialer: Dialer,
        verifier: RecordVerifier,
        *,
        every: int,
        on_trouble: Trouble | None,
    ) -> None:
        self._servers = descriptor.descriptor.servers
        self._dialer = dialer
        self._verifier = verifier
        self._every = every
        self._on_trouble = on_trouble or (lambda _error: None)
        self._since = 0

    def use_descriptor(self, descriptor: TrustedDescriptor, dialer: Dialer) -> None:
        """Ask the servers of a later version of the descriptor."""
        self._servers = descriptor.descriptor.servers
        self._dialer = dialer

    async def now_and_then(self, shown_by: NodeEntry, record: VerifiedRecord) -> None:
        """Compare with another server once ``every`` records have come.

        Raises:
            EquivocationError: When the committee signed another record for the same place.
        """
        self._since += 1
        if self._every and self._since >= self._every:
            await self.another(shown_by, record)

    async def another(self, shown_by: NodeEntry, record: VerifiedRecord) -> None:
        """Compare a record with what one other server, drawn at random, has in its place.

        Raises:
            EquivocationError: When the committee signed another record for the same place.
        """
        others = [node for node in self._servers if node.name != shown_by.name]
        if not self._every or not others:
            return
        self._since = 0
        try:
            node = secrets.choice(others)
            session = await self._dialer.open(node, expected_role=Role.SERVER)
            async with serving(session):
                await self.same_session(session, record)
        except EquivocationError:
            raise
        except LINK_ERRORS as error:
            self._on_trouble(error)

    async def same_session(self, session: Session, record: VerifiedRecord | None) -> None:
        """Compare a record with what the server at the other end has in its place.

        Raises:
            EquivocationError: When the committee signed another record for the same place.
            ZipnetError: When the server does not answer, or not with a record.
        """
        if record is None:
            return
        request = GetRecords(from_sequence=record.sequence, limit=1)
        answer = await session.request(Kind.GET_RECORDS, encode(request))
        for data in decode(answer.payload, Records).records[:1]:
            other = await self._verifier.verify(data)
            if other.sequence == record.sequence and other.hash != record.hash:
                raise EquivocationError(
                    f"the committee signed two different records {record.sequence}",
                    proof=(record.record.encode(), other.record.encode()),
                    hint="keep the error's proof, show it to the operators, and stop relying on "
                    "this instance",
                )

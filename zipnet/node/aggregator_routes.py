"""What an aggregator answers; who may ask, and how much, is the wall's (``zipnet.node.wall``).

Rules:

1. Every handler stands behind the wall; one without a policy cannot be registered.
2. The payload is parsed by the strict codec before anything else happens.
3. A submission ends in ``Accepted`` or in a refusal with the machine's reason.
4. One submission of a session may wait for its round to open, for at most a second: servers do not
   tell all aggregators at the same instant.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING

from zipnet.errors import AdmissionError, RemoteProtocolError, TransportError, VerificationError
from zipnet.machines.aggregator_effects import (
    Accept,
    ChildAggregate,
    EnvelopeReceived,
    PeerGone,
    PeerHere,
    Refuse,
)
from zipnet.protocol.aggregate import decode_aggregate
from zipnet.protocol.envelope import Envelope
from zipnet.protocol.ids import Digest, RegistryIndex, RoundNumber
from zipnet.wire.messages import (
    Accepted,
    DescriptorFile,
    GetDescriptor,
    GetRecords,
    Kind,
    Message,
    Records,
    SubmitAggregate,
    SubmitEnvelope,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.machines.aggregator import AggregatorMachine
    from zipnet.machines.aggregator_effects import Event
    from zipnet.node.capabilities import SessionCapabilities
    from zipnet.node.feed import Feed, ReadRecords
    from zipnet.node.live_descriptor import LiveDescriptor
    from zipnet.node.wall import Wall
    from zipnet.protocol.ids import PeerId
    from zipnet.protocol.params import RoundParams
    from zipnet.transport.session import Session

__all__ = ["AggregatorRoutes"]

_WAIT_FOR_ROUND_S = 1.0
_MAX_READS = 4
_MAX_AHEAD = 2


class AggregatorRoutes:
    """Serves sessions of clients, readers and other aggregators.

    Args:
        params: The group's parameters.
        machine: Asked which round is open; stepped only through ``step``.
        feed: Serves subscriptions.
        step: Feeds an event to the machine and returns its answer to a submission.
        read_records: Where records are read from.
        next_sequence: Sequence number the next record will have.
        capabilities: What sessions showed.
        live: The descriptor in force.
        wall: What stands before all of it.
    """

    def __init__(  # noqa: PLR0913 - composition: one argument for each neighbour
        self,
        *,
        params: RoundParams,
        machine: AggregatorMachine,
        feed: Feed,
        step: Callable[[Event], Accept | Refuse | None],
        read_records: ReadRecords,
        next_sequence: Callable[[], int],
        capabilities: SessionCapabilities,
        live: LiveDescriptor,
        wall: Wall,
    ) -> None:
        self._live = live
        self._params = params
        self._machine = machine
        self._feed = feed
        self._step = step
        self._read_records = read_records
        self._next_sequence = next_sequence
        self._tickets = itertools.count()
        self._opened = asyncio.Event()
        self._waiting: set[Session] = set()
        self._reads = asyncio.Semaphore(_MAX_READS)
        self._routes = wall.routes(
            {
                Kind.SUBSCRIBE: feed.subscribe,
                Kind.SUBMIT_ENVELOPE: self._submit_envelope,
                Kind.SUBMIT_AGGREGATE: self._submit_aggregate,
                Kind.GET_RECORDS: self._get_records,
                Kind.GET_DESCRIPTOR: self._get_descriptor,
                Kind.PRESENT_CAPABILITY: capabilities.present,
            }
        )

    def round_opened(self) -> None:
        """Wake what waits for a round to open."""
        self._opened.set()
        self._opened = asyncio.Event()

    async def serve(self, session: Session) -> None:
        """Serve one session to its end."""
        handle = self._routes.handler(session)
        peer = session.peer.peer_id
        if peer is None:
            await self._feed.serve(session, handle)
            return
        self._step(PeerHere(peer))
        try:
            await self._feed.serve(session, handle)
        finally:
            self._step(PeerGone(peer))

    async def _get_descriptor(self, _session: Session, payload: bytes) -> Message:
        return DescriptorFile(file=self._live.file(decode(payload, GetDescriptor).version))

    # -- submissions -----------------------------------------------------------------------

    async def _submit_envelope(self, session: Session, payload: bytes) -> Message:
        message = decode(payload, SubmitEnvelope)
        envelope = Envelope(
            round=RoundNumber(message.round),
            header_hash=Digest(message.header_hash),
            sender=RegistryIndex(message.sender),
            body=message.body,
            signature=message.signature,
        )
        await self._until_open(session, envelope.round)
        ticket = next(self._tickets)
        return self._answer(self._step(EnvelopeReceived(_peer(session), envelope, ticket)))

    async def _submit_aggregate(self, session: Session, payload: bytes) -> Message:
        blob = decode(payload, SubmitAggregate).aggregate
        try:
            digest, aggregate = decode_aggregate(blob, self._params)
        except RemoteProtocolError as error:
            raise AdmissionError(str(error), code="malformed_aggregate") from error
        await self._until_open(session, aggregate.round)
        ticket = next(self._tickets)
        return self._answer(self._step(ChildAggregate(_peer(session), digest, aggregate, ticket)))

    async def _until_open(self, session: Session, round_number: RoundNumber) -> None:
        """Wait a moment for a round that is about to open (rule 4)."""
        last = self._machine.last_round
        soon = last < round_number <= last + _MAX_AHEAD or last == 0
        if not soon or round_number <= last or session in self._waiting:
            return
        self._waiting.add(session)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_FOR_ROUND_S):
                    while self._machine.last_round < round_number:
                        await self._opened.wait()
        finally:
            self._waiting.discard(session)

    def _answer(self, answer: Accept | Refuse | None) -> Message:
        match answer:
            case Accept():
                return Accepted()
            case Refuse():
                raise AdmissionError("the submission does not count", code=answer.reason)
            case None:
                raise AssertionError("the machine answers every submission")

    # -- records ---------------------------------------------------------------------------

    async def _get_records(self, _session: Session, payload: bytes) -> Message:
        request = decode(payload, GetRecords)
        if self._reads.locked():
            raise AdmissionError("too many reads at once", code="overloaded", retry_after=0.2)
        async with self._reads:
            try:
                records = await self._read_records(request.from_sequence, request.limit)
            except (TransportError, RemoteProtocolError, VerificationError) as error:
                raise AdmissionError(
                    "no committee server can be asked", code="not_ready", retry_after=0.5
                ) from error
        return Records(records=list(records), next_sequence=self._next_sequence())


def _peer(session: Session) -> PeerId:
    assert session.peer.peer_id is not None, "only readers are anonymous"
    return session.peer.peer_id

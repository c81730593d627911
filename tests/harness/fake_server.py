"""Committee servers without a committee: real listeners and feeds over one harness committee.

There is no Raft; the test opens, seals and aborts rounds by hand. Everything between these servers
and the node under test is shipped code over real sockets: handshake, sessions, feed.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Self

from prometheus_client import CollectorRegistry

from zipnet.errors import AdmissionError
from zipnet.node.feed import Feed
from zipnet.node.listen import NodeListener
from zipnet.observe.metrics import NodeMetrics
from zipnet.protocol.aggregate import Aggregate, decode_aggregate
from zipnet.protocol.command import AbortReason
from zipnet.transport.certificate import node_certificate
from zipnet.transport.quic import QuicTransport
from zipnet.transport.session import Role, SessionTerms
from zipnet.transport.tls import TlsTransport
from zipnet.wire.messages import (
    Accepted,
    GetRecords,
    GetRegistry,
    Kind,
    Message,
    Records,
    RegistryPage,
    SubmitAggregate,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.committee import HarnessCommittee
    from zipnet.ports import Transport
    from zipnet.protocol.header import SignedHeader
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.transport.session import Session
    from zipnet.wire.frames import Frame

__all__ = ["FakeServers", "new_metrics", "quic_of", "registered_of", "terms_of", "tls_of"]


def registered_of(committee: HarnessCommittee) -> dict[bytes, bytes]:
    """Certificates by key of every node the descriptor registers."""
    descriptor = committee.descriptor.descriptor
    nodes = [*descriptor.servers, *(entry.node for entry in descriptor.aggregators)]
    return {node.identity.ed25519: node.certificate for node in nodes}


def terms_of(committee: HarnessCommittee, identity: Identity | None, role: Role) -> SessionTerms:
    """What a party of this instance says in handshakes; a fresh process each time."""
    return SessionTerms(
        instance_id=committee.descriptor.descriptor.instance,
        group_id=committee.descriptor.group,
        role=role,
        identity=identity,
        boot_id=os.urandom(16),
    )


def tls_of(committee: HarnessCommittee, identity: Identity | None) -> Transport:
    """A TLS transport; with the identity's certificate when there is one."""
    certificate = node_certificate(identity.ed25519_private_key()) if identity else None
    return TlsTransport(certificate, registered=registered_of(committee))


def quic_of(committee: HarnessCommittee, identity: Identity) -> Transport:
    """A QUIC transport with the identity's certificate."""
    certificate = node_certificate(identity.ed25519_private_key())
    return QuicTransport(certificate, registered=registered_of(committee))


def new_metrics(role: str = "server") -> NodeMetrics:
    """Metrics in a registry of their own."""
    return NodeMetrics(CollectorRegistry(), instance="harness.test", role=role)


class _Server:
    """One listening server."""

    def __init__(self, owner: FakeServers, index: int) -> None:
        self.owner = owner
        self.index = index
        self.identity = owner.committee.identities[index]
        self.aggregates: list[Aggregate] = []
        self.listener: NodeListener | None = None
        self.lie_about_registry: Callable[[list[bytes]], list[bytes]] = lambda changes: changes
        self.feed = Feed(
            read_records=self._read,
            next_sequence=lambda: len(owner.committee.records),
            last_record=lambda: owner.committee.records[-1] if owner.committee.records else None,
            open_round=lambda: h.encode() if (h := owner.committee.open_header) else None,
        )

    async def start(self) -> None:
        committee = self.owner.committee
        self.listener = NodeListener(
            terms=terms_of(committee, self.identity, Role.SERVER),
            descriptor=committee.descriptor,
            handlers=dict.fromkeys(Role, self._serve),
            metrics=new_metrics(),
        )
        port = committee.descriptor.descriptor.servers[self.index].port
        transports = [quic_of(committee, self.identity), tls_of(committee, self.identity)]
        await self.listener.start("127.0.0.1", port, transports)

    async def stop(self) -> None:
        if self.listener is not None:
            await self.listener.close()
            self.listener = None

    async def _serve(self, session: Session) -> None:
        async def handle(frame: Frame) -> Frame | None:
            if frame.kind == Kind.SUBSCRIBE:
                answer = await self.feed.subscribe(session, frame.payload)
                return frame.answer(frame.kind, encode(answer))
            return frame.answer(frame.kind, encode(await self._answer(frame)))

        await self.feed.serve(session, handle)

    async def _answer(self, frame: Frame) -> Message:
        committee = self.owner.committee
        match frame.kind:
            case Kind.GET_REGISTRY:
                start = decode(frame.payload, GetRegistry).from_version
                changes = [change.encode() for change in committee.changes[start:]]
                changes = self.lie_about_registry(changes)
                return RegistryPage(changes=changes, version=len(committee.changes))
            case Kind.GET_RECORDS:
                request = decode(frame.payload, GetRecords)
                records = await self._read(request.from_sequence, request.limit)
                return Records(records=records, next_sequence=len(committee.records))
            case Kind.SUBMIT_AGGREGATE:
                blob = decode(frame.payload, SubmitAggregate).aggregate
                _, aggregate = decode_aggregate(blob, committee.params)
                self.aggregates.append(aggregate)
                await self.owner.note()
                return Accepted()
            case _:
                raise AdmissionError("not served here", code="not_allowed")

    async def _read(self, from_sequence: int, limit: int) -> list[bytes]:
        return self.owner.committee.records[from_sequence : from_sequence + limit]


class FakeServers:
    """All servers of a harness committee, listening on their descriptor's ports."""

    def __init__(self, committee: HarnessCommittee) -> None:
        self.committee = committee
        self.servers = [_Server(self, i) for i in range(len(committee.identities))]
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        for server in self.servers:
            await server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self.servers:
            await server.stop()

    async def note(self) -> None:
        """Wake whoever waits for something to have happened."""
        async with self._changed:
            self._changed.notify_all()

    async def until(self, holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Return once something holds; looked at whenever a server took an aggregate."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(holds)

    def open_round(self, **changes: object) -> SignedHeader:
        """Open the next round and tell all subscribers."""
        signed = self.committee.open_round(**changes)
        for server in self.servers:
            server.feed.publish_opened(signed.encode())
        return signed

    def seal_round(self) -> VerifiedRecord:
        """Seal the open round with the envelopes submitted to the committee; tell everyone."""
        data = self.committee.seal()
        for server in self.servers:
            server.feed.publish_record(len(self.committee.records) - 1, data)
        return self.committee.verified[-1]

    def abort_round(self) -> None:
        """Give the open round up and tell all subscribers."""
        number = self.committee.abort()
        for server in self.servers:
            server.feed.publish_aborted(number, AbortReason.NO_AGGREGATE.value)

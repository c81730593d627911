"""A harness committee behind real sockets: several server listeners and aggregator listeners.

All listeners share one :class:`HarnessCommittee`, so there is no Raft and no fold tree, but every
byte a client sends or gets crosses a real transport, the real handshake and the real session.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Self

from tests.harness.committee import SMALL, HarnessCommittee
from zipnet.errors import AdmissionError, RemoteProtocolError, TransportError, ZipnetError
from zipnet.host.loopback import free_ports
from zipnet.ledger.checkpoint import LogCheckpoint, origin_of, sign_checkpoint
from zipnet.ledger.merkle import root_of
from zipnet.protocol.envelope import Envelope
from zipnet.protocol.ids import Digest, RegistryIndex, RoundNumber
from zipnet.protocol.params import Cadence, RoundParams
from zipnet.transport.certificate import node_certificate
from zipnet.transport.session import HelloFacts, Role, SessionTerms, accept
from zipnet.wire.messages import (
    Accepted,
    Crowd,
    DescriptorFile,
    GetCheckpoint,
    GetDescriptor,
    GetRecords,
    KemKeys,
    Kind,
    Message,
    Records,
    RecordSealed,
    Register,
    Registered,
    RoundAborted,
    RoundOpened,
    SignedCheckpoint,
    SubmitEnvelope,
    Subscribe,
    Subscribed,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zipnet.ports import Connection, Listener, Transport
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.identity import Identity
    from zipnet.transport.session import Session
    from zipnet.wire.frames import Frame

__all__ = ["FakeNetwork", "node_transport"]


def node_transport(name: str, identity: Identity, registered: Mapping[bytes, bytes]) -> Transport:
    """Return a node's transport of the given name."""
    certificate = node_certificate(identity.ed25519_private_key())
    if name == "tls":
        from zipnet.transport.tls import TlsTransport

        return TlsTransport(certificate, registered=registered)
    from zipnet.transport.quic import QuicTransport

    return QuicTransport(certificate, registered=registered)


class _Node:
    """One listener: what it refuses, and who subscribed to it."""

    def __init__(self, name: str, identity: Identity, role: Role) -> None:
        self.name = name
        self.identity = identity
        self.role = role
        self.sessions: set[Session] = set()
        self.subscribers: set[Session] = set()
        self.showed: set[Session] = set()
        self.refuse: Callable[[HelloFacts], ZipnetError | None] = lambda _facts: None
        self.drop_envelopes = False
        self.records: list[bytes] | None = None  # another log than the committee's
        self.lie_about_crowd: Callable[[int], int] = lambda registered: registered
        self.lie_about_place: Callable[[Registered], Registered] = lambda place: place
        self.lie_about_log: Callable[[LogCheckpoint], LogCheckpoint] = lambda found: found
        self.versions: TrustedDescriptor | None = None  # what it hands out, None for nothing
        self.muted: set[Kind] = set()
        self.served: Counter[int] = Counter()
        self.listener: Listener | None = None


class FakeNetwork:
    """Server and aggregator listeners over one harness committee.

    Attributes:
        committee: The committee behind all of them.
        nodes: Listeners by name: ``s0`` …, and the aggregators'.
        refused: Codes of refused requests, counted.
        gated: Requests that are refused on sessions that showed no capability.
    """

    def __init__(
        self,
        transport: str = "tls",
        *,
        params: RoundParams = SMALL,
        aggregators: Mapping[str, str | None] | None = None,
        cadence: Cadence | None = None,
        max_absent: int = 0,
    ) -> None:
        tree = {"root": None} if aggregators is None else dict(aggregators)
        names = [f"s{i}" for i in range(3)] + list(tree)
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.committee = HarnessCommittee(
            params=params,
            aggregators=tree,
            ports=self.ports,
            cadence=cadence
            or Cadence(round_period_ms=50, fold_deadline_ms=40, round_deadline_ms=900),
            max_absent=max_absent,
        )
        servers = {f"s{i}": identity for i, identity in enumerate(self.committee.identities)}
        self.nodes = {
            **{name: _Node(name, identity, Role.SERVER) for name, identity in servers.items()},
            **{
                name: _Node(name, identity, Role.AGGREGATOR)
                for name, identity in self.committee.aggregators.items()
            },
        }
        self.transport_name = transport
        self.refused: Counter[str] = Counter()
        self.gated: set[Kind] = set()  # what nobody has without having shown something
        self.changed = asyncio.Condition()
        self._rounds: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        for name in self.nodes:
            await self.start(name)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._rounds is not None:
            self._rounds.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._rounds
        for name in self.nodes:
            await self.stop(name)

    async def start(self, name: str) -> None:
        """Listen as one node."""
        node = self.nodes[name]
        descriptor = self.committee.descriptor.descriptor
        entries = [*descriptor.servers, *(a.node for a in descriptor.aggregators)]
        registered = {entry.identity.ed25519: entry.certificate for entry in entries}
        transport = node_transport(self.transport_name, node.identity, registered)
        node.listener = await transport.listen(
            "127.0.0.1", self.ports[name], lambda connection: self._serve(node, connection)
        )

    async def stop(self, name: str) -> None:
        """Stop listening as one node and cut its links."""
        node = self.nodes[name]
        if node.listener is not None:
            await node.listener.close()
            node.listener = None

    async def _serve(self, node: _Node, connection: Connection) -> None:
        trusted = self.committee.descriptor
        terms = SessionTerms(
            instance_id=trusted.descriptor.instance,
            group_id=trusted.group,
            role=node.role,
            identity=node.identity,
            boot_id=secrets.token_bytes(16),
        )
        try:
            session = await accept(connection, terms, node.refuse, deadline_s=5.0)
        except ZipnetError:
            return
        node.sessions.add(session)
        try:
            await session.serve(lambda frame: self._on_frame(node, session, frame))
        finally:
            node.sessions.discard(session)
            node.subscribers.discard(session)

    async def _on_frame(self, node: _Node, session: Session, frame: Frame) -> Frame | None:
        node.served[frame.kind] += 1
        if frame.kind == Kind.PRESENT_CAPABILITY:
            node.showed.add(session)
            return frame.answer(frame.kind, encode(Accepted()))
        if frame.kind in self.gated and session not in node.showed:
            raise AdmissionError("this needs a capability", code="capability_missing")
        try:
            answer = self._answer(node, session, frame)
        except RemoteProtocolError as error:
            code = str(error) if " " not in str(error) else "refused"
            self.refused[code] += 1
            raise AdmissionError(str(error), code=code) from error
        async with self.changed:
            self.changed.notify_all()
        return frame.answer(frame.kind, encode(answer))

    def _answer(self, node: _Node, session: Session, frame: Frame) -> Message:
        committee = self.committee
        at_server = node.role is Role.SERVER
        match frame.kind:
            case Kind.GET_KEM_KEYS if at_server:
                return KemKeys(announcements=committee.announcements(), evidence=[])
            case Kind.REGISTER if at_server:
                blob = decode(frame.payload, Register).registration
                index, version, first_round = committee.register(blob)
                place = Registered(index=index, version=version, first_round=first_round)
                return node.lie_about_place(place)
            case Kind.GET_CROWD if at_server:
                registered = node.lie_about_crowd(committee.active_clients)
                return Crowd(registered=registered, version=len(committee.changes))
            case Kind.GET_RECORDS if at_server:
                asked = decode(frame.payload, GetRecords)
                log = committee.records if node.records is None else node.records
                page = log[asked.from_sequence :][: asked.limit]
                return Records(records=page, next_sequence=len(log))
            case Kind.GET_CHECKPOINT if at_server:
                decode(frame.payload, GetCheckpoint)
                return self._checkpoint(node)
            case Kind.GET_DESCRIPTOR if node.versions is not None:
                asked_for = decode(frame.payload, GetDescriptor).version
                known = (node.versions, *node.versions.earlier)
                files = [item.descriptor.file for item in known if item.version == asked_for]
                return DescriptorFile(file=files[0] if files else None)
            case Kind.SUBSCRIBE:
                return self._subscribe(node, session, decode(frame.payload, Subscribe))
            case Kind.SUBMIT_ENVELOPE if not at_server:
                sent = decode(frame.payload, SubmitEnvelope)
                if not node.drop_envelopes:
                    committee.submit(
                        Envelope(
                            RoundNumber(sent.round),
                            Digest(sent.header_hash),
                            RegistryIndex(sent.sender),
                            sent.body,
                            sent.signature,
                        )
                    )
                return Accepted()
            case _:
                raise RemoteProtocolError("not_served")

    def _checkpoint(self, node: _Node) -> SignedCheckpoint:
        trusted = self.committee.descriptor
        root = root_of(record.hash for record in self.committee.verified)
        size = len(self.committee.verified)
        found = node.lie_about_log(LogCheckpoint(origin_of(trusted), size, root))
        server = trusted.server_index(node.identity.peer_id)
        assert server is not None
        return SignedCheckpoint(note=sign_checkpoint(found, server, node.identity).encode())

    def _subscribe(self, node: _Node, session: Session, asked: Subscribe) -> Subscribed:
        committee = self.committee
        node.subscribers.add(session)
        if asked.from_sequence is not None:
            missed = committee.records[asked.from_sequence :]
            asyncio.get_running_loop().create_task(self._replay(session, missed))
        header = committee.open_header
        return Subscribed(
            next_sequence=len(committee.records),
            last_record=committee.records[-1] if committee.records else None,
            open_round=header.encode() if header else None,
        )

    async def _replay(self, session: Session, records: list[bytes]) -> None:
        with contextlib.suppress(TransportError):
            for record in records:
                await session.push(Kind.RECORD_SEALED, encode(RecordSealed(record=record)))

    async def push(self, kind: Kind, message: Message) -> None:
        """Push a message to every subscriber of every node that does not swallow this kind."""
        payload = encode(message)
        for node in self.nodes.values():
            for session in list(node.subscribers) if kind not in node.muted else ():
                with contextlib.suppress(TransportError):
                    await session.push(kind, payload)

    async def until(self, condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
        """Wait until a condition holds; it is looked at whenever a request was answered."""
        async with asyncio.timeout(timeout_s), self.changed:
            await self.changed.wait_for(condition)

    async def run_round(
        self,
        participants: int,
        *,
        wait_s: float = 5.0,
        tamper: Callable[[bytearray], None] | None = None,
    ) -> bool:
        """Open a round, wait for envelopes, seal or give it up; tells whether it was sealed."""
        committee = self.committee
        signed = committee.open_round()
        await self.push(Kind.ROUND_OPENED, RoundOpened(header=signed.encode()))
        with contextlib.suppress(TimeoutError):
            await self.until(lambda: committee.participants >= participants, timeout_s=wait_s)
        if committee.participants < committee.params.min_participants:
            number = committee.abort()
            await self.push(Kind.ROUND_ABORTED, RoundAborted(round=number, why=1))
            return False
        record = committee.seal(tamper=tamper)
        await self.push(Kind.RECORD_SEALED, RecordSealed(record=record))
        async with self.changed:
            self.changed.notify_all()
        return True

    def keep_running(self, participants: int, *, wait_s: float = 1.0) -> None:
        """Run rounds one after another in the background until the network stops."""

        async def rounds() -> None:
            while True:
                await self.run_round(participants, wait_s=wait_s)
                await asyncio.sleep(0)

        self._rounds = asyncio.create_task(rounds())

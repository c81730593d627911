"""What a committee server answers; who may ask, and how much, is the wall's (``zipnet.node.wall``).

Rules:

1. Every handler stands behind the wall; one without a policy cannot be registered.
2. The payload is parsed by the strict codec before anything else happens.
3. A refusal carries a stable code and says nothing about state.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from zipnet.access.refusal import refusal
from zipnet.errors import AdmissionError, ConsensusError, RemoteProtocolError, VerificationError
from zipnet.node.build import build_version
from zipnet.node.checkpoints import LogSigner
from zipnet.node.revocations import pushes_of
from zipnet.observe.log import get_logger
from zipnet.protocol.command import RegisterClient
from zipnet.protocol.ids import Digest, PeerId, RegistryIndex, ServerIndex, content_digest
from zipnet.protocol.registration import NO_EVIDENCE, Registration, decode_registration
from zipnet.transport.session import Role, Session
from zipnet.wire.messages import (
    MAX_CHANGES_PER_PAGE,
    Accepted,
    Blob,
    Clock,
    Crowd,
    DescriptorFile,
    GetBlob,
    GetCheckpoint,
    GetClock,
    GetCrowd,
    GetDescriptor,
    GetKemEvidence,
    GetKemKeys,
    GetRecords,
    GetRegistry,
    GetVersion,
    KemEvidence,
    KemKeys,
    Kind,
    Message,
    PutBlob,
    Records,
    Register,
    Registered,
    RegistryPage,
    Revoked,
    SignedCheckpoint,
    SubmitAggregate,
    TakeSeat,
    Version,
    decode,
)

if TYPE_CHECKING:
    from zipnet.node.feed import Feed
    from zipnet.node.record_keeper import RecordKeeper
    from zipnet.node.server_acts import ServerActs
    from zipnet.node.server_parts import ServerParts
    from zipnet.node.wall import Wall

__all__ = ["ServerRoutes"]

_REGISTRATION_TIMEOUT_S = 4.0


class ServerRoutes:
    """Serves sessions of every role on a committee server.

    Args:
        parts: The server's parts.
        acts: Takes blobs, aggregates and registrations.
        keeper: Serves records.
        feed: Serves subscriptions.
        wall: What stands before all of it.
    """

    def __init__(
        self, parts: ServerParts, acts: ServerActs, keeper: RecordKeeper, feed: Feed, wall: Wall
    ) -> None:
        self._parts = parts
        self._acts = acts
        self._keeper = keeper
        self._feed = feed
        server = parts.descriptor.server_index(parts.identity.peer_id)
        assert server is not None
        self._signer = LogSigner(keeper.log, parts.descriptor, server, parts.identity)
        self._log = get_logger()
        self._routes = wall.routes(
            {
                Kind.SUBSCRIBE: feed.subscribe,
                Kind.PRESENT_CAPABILITY: parts.capabilities.present,
                Kind.GET_RECORDS: self._get_records,
                Kind.GET_CHECKPOINT: self._get_checkpoint,
                Kind.GET_CROWD: self._get_crowd,
                Kind.GET_DESCRIPTOR: self._get_descriptor,
                Kind.GET_KEM_KEYS: self._get_kem_keys,
                Kind.REGISTER: self._register,
                Kind.GET_CLOCK: self._get_clock,
                Kind.GET_VERSION: self._get_version,
                Kind.GET_KEM_EVIDENCE: self._get_kem_evidence,
                Kind.GET_REGISTRY: self._get_registry,
                Kind.SUBMIT_AGGREGATE: self._submit_aggregate,
                Kind.GET_BLOB: self._get_blob,
                Kind.PUT_BLOB: self._put_blob,
                Kind.REVOKED: self._revoked,
                Kind.CONSENSUS: self._consensus,
                Kind.SEAT: self._seat,
            }
        )

    async def serve(self, session: Session) -> None:
        """Serve one session to its end."""
        handle = self._routes.handler(session)
        peer, watched = session.peer, self._parts.client_evidence
        if watched is not None and peer.evidence is not None and peer.peer_id is not None:
            watched.seen(peer.peer_id, peer.evidence.not_after)
        if peer.role is Role.SERVER:
            self._expect(session)
            await session.serve(handle)
            return
        if peer.role is Role.AGGREGATOR:
            for kind, payload in pushes_of(self._parts.revocations.book.statements):
                await session.push(kind, payload)
        await self._feed.serve(session, handle)

    def _expect(self, session: Session) -> None:
        peer = session.peer.peer_id
        server = None if peer is None else self._parts.descriptor.server_index(peer)
        if server is not None:
            self._parts.mesh.expect(server)

    # -- everybody -----------------------------------------------------------------------------

    async def _get_records(self, _session: Session, payload: bytes) -> Message:
        request = decode(payload, GetRecords)
        records = await self._keeper.read(request.from_sequence, request.limit)
        return Records(records=records, next_sequence=self._keeper.next_sequence)

    async def _get_checkpoint(self, _session: Session, payload: bytes) -> Message:
        decode(payload, GetCheckpoint)
        note = await self._signer.checkpoint()
        if note is None:
            raise refusal("not_served")
        return SignedCheckpoint(note=note)

    async def _get_crowd(self, _session: Session, payload: bytes) -> Message:
        decode(payload, GetCrowd)
        registry = self._parts.machine.state.registry
        return Crowd(registered=registry.active_count, version=registry.version)

    async def _get_descriptor(self, _session: Session, payload: bytes) -> Message:
        return DescriptorFile(file=self._parts.live.file(decode(payload, GetDescriptor).version))

    async def _get_clock(self, _session: Session, payload: bytes) -> Message:
        decode(payload, GetClock)
        return Clock(wall_ms=time.time_ns() // 1_000_000)

    async def _get_version(self, _session: Session, payload: bytes) -> Message:
        decode(payload, GetVersion)
        return Version(version=build_version()[:64])

    async def _get_registry(self, _session: Session, payload: bytes) -> Message:
        request = decode(payload, GetRegistry)
        registry = self._parts.machine.state.registry
        changes = registry.changes_from(request.from_version, MAX_CHANGES_PER_PAGE)
        return RegistryPage(changes=[c.encode() for c in changes], version=registry.version)

    # -- clients -------------------------------------------------------------------------------

    async def _get_kem_keys(self, _session: Session, payload: bytes) -> Message:
        decode(payload, GetKemKeys)
        kem = self._parts.machine.state.kem
        announcements: list[bytes] = []
        evidence: list[bytes] = []
        for position in range(len(self._parts.descriptor.committee)):
            announced = kem.get(ServerIndex(position))
            blob = None
            if announced is not None:
                holders = (announced.server, *self._others())
                blob = await self._acts.obtain_blob(announced.announcement, holders)
            if blob is None:
                raise AdmissionError(
                    "the committee has not announced all its keys yet",
                    code="not_ready",
                    retry_after=0.5,
                )
            announcements.append(blob)
            if self._parts.kem_evidence is not None:
                server = ServerIndex(position)
                evidence.append(await self._parts.kem_evidence.of(server, blob))
        return KemKeys(announcements=announcements, evidence=evidence)

    async def _get_kem_evidence(self, _session: Session, payload: bytes) -> Message:
        asked = Digest(decode(payload, GetKemEvidence).announcement)
        parts = self._parts
        announced = parts.machine.state.kem.get(parts.machine.server)
        blob = await asyncio.to_thread(parts.blobs.get, asked)
        if announced is None or announced.announcement != asked or blob is None:
            raise AdmissionError("that key is not this server's", code="stale_key")
        if parts.kem_evidence is None:
            raise AdmissionError("this group asks for no evidence", code="evidence_not_due")
        return KemEvidence(evidence=await parts.kem_evidence.own(blob))

    def _others(self) -> tuple[ServerIndex, ...]:
        everyone = range(len(self._parts.descriptor.committee))
        return tuple(ServerIndex(i) for i in everyone if i != self._parts.machine.server)

    async def _register(self, session: Session, payload: bytes) -> Message:
        request = decode(payload, Register)
        blob = request.registration
        registration = self._checked_registration(session, blob)
        parts = self._parts
        peer, digest = registration.identity.peer_id, registration.digest
        place = parts.machine.place_of(peer, digest)
        if place is not None and place[1]:
            parts.capabilities.registered(session)
            return self._registered(place[0], peer)  # another server took it before
        if place is None:
            self._require_current(registration)
            self._take_evidence(registration, request.evidence)
            parts.blobs.put(blob, expected=digest)
            await self._acts.keep_blob(digest, blob)
            parts.mesh.push_all(Kind.PUT_BLOB, PutBlob(blob=blob))
        admitted = self._acts.clients.expect_registration(digest)
        try:
            async with asyncio.timeout(_REGISTRATION_TIMEOUT_S):
                if place is None and parts.machine.place_of(peer, digest) is None:
                    await self._acts.propose(_command_for(registration))
                index = await self._admission(admitted, registration)
        except (TimeoutError, ConsensusError) as error:
            raise AdmissionError(
                "the committee did not take the registration",
                code="not_registered_yet",
                retry_after=1.0,
            ) from error
        finally:
            admitted.cancel()
        parts.capabilities.registered(session)
        return self._registered(index, peer)

    async def _admission(
        self, admitted: asyncio.Future[RegistryIndex], registration: Registration
    ) -> RegistryIndex:
        # It may have been admitted between two looks, before anybody waited for it.
        place = self._parts.machine.place_of(registration.identity.peer_id, registration.digest)
        return place[0] if place is not None and place[1] else await admitted

    def _take_evidence(self, registration: Registration, evidence: bytes | None) -> None:
        """Judge the evidence a registration names and share it, where clients are gated."""
        parts = self._parts
        if parts.client_evidence is None:
            if evidence is not None or registration.evidence != NO_EVIDENCE:
                raise RemoteProtocolError("evidence came where none was due")
            return
        if evidence is None or content_digest(evidence) != registration.evidence:
            raise AdmissionError(
                "the registration does not come with the evidence it names",
                code="evidence_missing",
            )
        parts.client_evidence.judge(registration.identity, evidence)
        parts.blobs.put(evidence, expected=registration.evidence)
        parts.mesh.push_all(Kind.PUT_BLOB, PutBlob(blob=evidence))

    def _checked_registration(self, session: Session, blob: bytes) -> Registration:
        parts = self._parts
        try:
            registration = decode_registration(
                blob, parts.descriptor.group, len(parts.descriptor.committee)
            )
        except VerificationError as error:
            raise AdmissionError("registration does not verify", code="bad_registration") from error
        if registration.identity.peer_id != session.peer.peer_id:
            raise AdmissionError(
                "registration is for another identity than this link's", code="identity_mismatch"
            )
        return registration

    def _require_current(self, registration: Registration) -> None:
        for item in registration.encapsulations:
            announced = self._parts.machine.state.kem.get(item.server)
            if announced is None or announced.epoch != item.epoch:
                raise AdmissionError(
                    "registration used a key that is not current",
                    code="stale_key",
                    retry_after=0.1,
                )

    def _registered(self, index: RegistryIndex, peer: PeerId) -> Registered:
        entry = self._parts.machine.state.registry.entry(index)
        if entry is None or entry.peer != peer:
            raise AdmissionError("the registration was replaced", code="replaced")
        return Registered(
            index=entry.index, version=entry.since_version, first_round=entry.first_round
        )

    # -- aggregators ---------------------------------------------------------------------------

    async def _submit_aggregate(self, session: Session, payload: bytes) -> Message:
        peer = session.peer.peer_id
        entry = None if peer is None else self._parts.descriptor.aggregator(peer)
        if entry is None or entry.parent is not None:
            raise AdmissionError("only a root aggregator submits to servers", code="not_a_root")
        await self._acts.take_aggregate(decode(payload, SubmitAggregate).aggregate)
        return Accepted()

    # -- servers -------------------------------------------------------------------------------

    async def _get_blob(self, _session: Session, payload: bytes) -> Message:
        digest = Digest(decode(payload, GetBlob).digest)
        return Blob(blob=await asyncio.to_thread(self._parts.blobs.get, digest))

    async def _put_blob(self, _session: Session, payload: bytes) -> None:
        await self._acts.take_blob(decode(payload, PutBlob).blob)

    async def _revoked(self, _session: Session, payload: bytes) -> None:
        for statement in decode(payload, Revoked).statements:
            await self._acts.revoking.take(statement)

    async def _consensus(self, session: Session, payload: bytes) -> None:
        server = self._server_of(session)
        self._parts.seating.heard(server, session.peer.boot_id)
        self._parts.consensus.receive(server, payload)

    async def _seat(self, session: Session, payload: bytes) -> Message:
        asked = decode(payload, TakeSeat).member
        return self._parts.seating.answer(self._server_of(session), session.peer.boot_id, asked)

    def _server_of(self, session: Session) -> ServerIndex:
        peer = session.peer.peer_id
        server = None if peer is None else self._parts.descriptor.server_index(peer)
        if server is None:
            raise RemoteProtocolError("consensus message from no member of the committee")
        return server


def _command_for(registration: Registration) -> RegisterClient:
    identity = registration.identity
    return RegisterClient(
        identity.peer_id, identity.ed25519, registration.serial, registration.digest
    )

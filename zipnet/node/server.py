"""The committee server: every part put together, and run until it is told to stop.

``zipnet.node.server_start`` opens what it needs first. One long module, because it is the one place
where all parts of a server meet.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from zipnet.access.policy import Service
from zipnet.errors import (
    DuplicateIdentityError,
    ZipnetError,
)
from zipnet.machines.guard import ReleaseGuard
from zipnet.machines.server import ServerMachine
from zipnet.machines.server_effects import ClientNotAdmitted, KemTurnDue
from zipnet.node.admin import open_admin
from zipnet.node.admin_verbs import AdminHooks, NodeVerbs
from zipnet.node.audit import AuditTrail
from zipnet.node.breakers import Breakers
from zipnet.node.build import build_commit, build_version
from zipnet.node.capabilities import SessionCapabilities
from zipnet.node.client_evidence import ClientEvidenceKeeper
from zipnet.node.clock_watch import ClockWatch
from zipnet.node.engine import open_engine
from zipnet.node.feed import Feed
from zipnet.node.http import serve_http
from zipnet.node.kem_evidence import KemEvidenceKeeper
from zipnet.node.listen import ListenLimits, NodeListener
from zipnet.node.live_descriptor import LiveDescriptor
from zipnet.node.mesh import CommitteeMesh
from zipnet.node.record_keeper import RecordKeeper
from zipnet.node.restarts import count_start
from zipnet.node.revocations import NodeRevocations
from zipnet.node.server_acts import ServerActs
from zipnet.node.server_driver import EventQueue, ServerDriver, safe_mode_in
from zipnet.node.server_health import SERVER_CONDITIONS, ServerHealth
from zipnet.node.server_parts import ServerParts
from zipnet.node.server_routes import ServerRoutes
from zipnet.node.server_succession import ServerSuccession
from zipnet.node.traces import NodeTraces
from zipnet.node.version import version_facts
from zipnet.node.wall import Wall, WallParts
from zipnet.observe.health import Health
from zipnet.observe.log import get_logger
from zipnet.observe.metrics import NodeMetrics
from zipnet.observe.tracing import round_trace_id
from zipnet.protocol.attestation import Gate
from zipnet.protocol.ids import ServerIndex, short_peer_id
from zipnet.protocol.pads import PadEngine
from zipnet.transport.certificate import CERTIFICATE_ENDS
from zipnet.transport.dial import PersistentLink, refusal_code
from zipnet.transport.session import Role, SessionTerms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zipnet.machines.server_effects import StandingChanged
    from zipnet.node.attestation import NodeAttestation
    from zipnet.node.notify import ServiceNotifier
    from zipnet.node.server_state import (
        ServerState,
    )
    from zipnet.protocol.committee_secrets import CommitteeSecrets
    from zipnet.protocol.ids import PeerId, RegistryIndex
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.protocol.revocation import Revocation
    from zipnet.settings import ServerSettings
    from zipnet.transport.quic import QuicTransport
    from zipnet.transport.session import Session
    from zipnet.transport.tls import TlsTransport

__all__ = ["CommitteeServer", "SystemClock"]

_LOOK_AGAIN_S = 0.25


class SystemClock:
    """Time as this machine has it."""

    def monotonic(self) -> float:
        """Seconds that only go forward."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()


class CommitteeServer:
    """One running server."""

    def __init__(
        self,
        settings: ServerSettings,
        secrets: CommitteeSecrets,
        state: ServerState,
        terms: SessionTerms,
        transports: tuple[QuicTransport, TlsTransport],
        attestation: NodeAttestation,
        notifier: ServiceNotifier,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._attestation = attestation
        self._attestor = attestation.attestor
        self._terms = terms
        self._transports = transports
        self._log = get_logger()
        self._clock = SystemClock()
        self._notifier = notifier
        self._doubting: set[ServerIndex] = set()
        self.metrics = NodeMetrics(
            CollectorRegistry(),
            instance=settings.instance,
            role="server",
            version=build_version(),
            commit=build_commit(),
            posture=settings.posture,
            attestation=settings.descriptor.descriptor.attestation.mode.value,
        )
        for transport in transports:
            transport.on_handshake_failure = self.metrics.tls_handshake_failures.inc
        self.metrics.server_registry_size.set(len(settings.descriptor.committee))
        self._live = LiveDescriptor(settings.descriptor, settings.server_endpoints, state.versions)
        self.metrics.certificate_expiry.set(CERTIFICATE_ENDS.timestamp())
        if settings.state is not None:
            self.metrics.service_restarts.inc(count_start(settings.state))
        self.health = Health(SERVER_CONDITIONS, self.metrics)
        self._breakers = Breakers(self.metrics)
        self._traces = NodeTraces(
            settings, "server", keep_all=lambda: bool(self._breakers.open_targets())
        )
        self.mesh = CommitteeMesh(self._links(), self._breakers)
        self.consensus, self.seating = open_engine(settings, state, self.mesh)
        self._clocks = ClockWatch(self.mesh, self._clock.wall, self.health, self.metrics)
        self._build(settings, state)

    def _build(self, settings: ServerSettings, state: ServerState) -> None:
        descriptor = settings.descriptor
        self.keeper = RecordKeeper(
            state.records,
            descriptor,
            self.mesh,
            on_stored=self._on_stored,
            metrics=self.metrics,
        )
        guard = ReleaseGuard(
            server=settings.index,
            min_participants=settings.min_participants,
            history=state.history,
        )
        machine = ServerMachine(
            server=settings.index,
            descriptor=descriptor.founding,
            guard=guard,
            cadence=settings.cadence,
            min_participants=settings.min_participants,
            next_sequence=self.keeper.next_sequence,
        )
        events = EventQueue()
        self.revocations = NodeRevocations(descriptor, state.revocations)
        self._revoked = asyncio.Event()
        if self.revocations.book.has_peer(settings.identity.peer_id):
            self._revoked.set()
        capabilities = SessionCapabilities(
            settings.access, descriptor.group, self.revocations.book, self._clock.wall
        )
        self.capabilities = capabilities
        parts = ServerParts(
            machine=machine,
            live=self._live,
            identity=settings.identity,
            committee_secrets=self._secrets,
            consensus=self.consensus,
            mesh=self.mesh,
            custody=state.custody,
            engine=PadEngine.calibrate(time.perf_counter, body_bytes=descriptor.params.body_bytes),
            releases=state.releases,
            blobs=state.blobs,
            keeper=self.keeper,
            metrics=self.metrics,
            events=events,
            seating=self.seating,
            revocations=self.revocations,
            capabilities=capabilities,
            kem_evidence=self._kem_evidence(),
            client_evidence=self._client_evidence(),
            rounds=self._traces.rounds,
        )
        self._client_watch = parts.client_evidence
        self._parts = parts
        self._looking_after = ServerHealth(
            parts,
            self.health,
            state=settings.state,
            monotonic=self._clock.monotonic,
            is_revoked=self._revoked.is_set,
            breakers=self._breakers,
        )
        self._events = events
        self.audit = AuditTrail(state.audit)
        self.feed = Feed(
            read_records=self.keeper.read,
            next_sequence=lambda: self.keeper.next_sequence,
            first_sequence=lambda: self.keeper.first_sequence,
            last_record=lambda: self.keeper.last_bytes,
            open_round=lambda: _signed_bytes(machine),
            on_lagged=self.metrics.bus_lagged.inc,
        )
        self.keeper.attach(self.feed)
        self._live.tell(lambda new: self.feed.publish_version(new.version))
        self.machine = machine
        self.acts = ServerActs(parts)
        self._wall_parts = WallParts(
            self.metrics,
            capabilities=capabilities,
            is_revoked=self.revocations.book.has_peer,
            bounds=settings.bounds,
            requests=self._traces.requests,
        )
        wall = Wall(Service.SERVER, self._wall_parts)
        self.routes = ServerRoutes(parts, self.acts, self.keeper, self.feed, wall)
        self.driver = ServerDriver(
            machine,
            self.acts,
            events,
            consensus=self.consensus,
            mesh=self.mesh,
            keeper=self.keeper,
            metrics=self.metrics,
            clock=self._clock,
            on_standing=self._on_standing,
            snapshot_every=settings.snapshot_every,
        )

    def _kem_evidence(self) -> KemEvidenceKeeper | None:
        if self._attestor is None:
            return None
        settings = self._settings
        return KemEvidenceKeeper(self._attestor, settings.descriptor, settings.index, self.mesh)

    def _client_evidence(self) -> ClientEvidenceKeeper | None:
        attestor = self._attestor
        if attestor is None or attestor.terms.policy_for(Gate.CLIENT) is None:
            return None
        return ClientEvidenceKeeper(attestor, self._settings.descriptor.group, self.metrics)

    def _links(self) -> dict[ServerIndex, PersistentLink]:
        everyone = map(ServerIndex, range(len(self._live.endpoints)))
        return {seat: self._link_to(seat) for seat in everyone if seat != self._settings.index}

    def _link_to(self, server: ServerIndex) -> PersistentLink:
        endpoint = self._live.endpoints[server]
        identity = self._live.current.committee[server]
        terms = replace(self._terms, expected_peer=identity.peer_id, expected_role=Role.SERVER)
        return PersistentLink(
            self._transports[1],
            endpoint.host,
            endpoint.port,
            identity.ed25519,
            terms,
            expected_peer=identity.peer_id,
            on_refused=partial(self._on_refused, server),
        )

    # -- life ----------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, and close everything that was opened here."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            listener = NodeListener(
                terms=self._terms,
                descriptor=settings.descriptor,
                handlers=dict.fromkeys(Role, self.routes.serve),
                metrics=self.metrics,
                barred=lambda facts: (
                    self.revocations.refusal(facts)
                    or verbs.refusal(facts)
                    or self._looking_after.refusal(facts)
                ),
                on_refused=self.audit.refused,
                limits=ListenLimits.of(settings.bounds),
            )
            self.revocations.bind(
                sessions=listener.sessions,
                shown_by=self.capabilities.shown_by,
                links=self._links_by_peer,
                on_enforced=self._on_revoked,
            )
            succession = ServerSuccession(
                settings,
                self._parts,
                listener=listener,
                transport=self._transports[1],
                link_to=self._link_to,
                terms=self._terms,
                audit=self.audit,
                health=self.health,
            )
            verbs = NodeVerbs(self._admin_hooks(stop, listener.sessions))
            stack.callback(self._traces.close)
            stack.callback(self.audit.close)
            stack.push_async_callback(self.acts.close)
            port = await listener.start(
                settings.listen.host, settings.listen.port, self._transports
            )
            stack.push_async_callback(listener.close)
            http = await serve_http(
                settings.metrics.host,
                settings.metrics.port,
                health=self.health,
                metrics=self.metrics,
                version=version_facts(settings),
                bounds=settings.bounds,
                requests=self._traces.requests,
            )
            stack.push_async_callback(http.close)
            await open_admin(
                stack,
                settings,
                verbs,
                revoked=self.revocations.book,
                audit=self.audit,
                metrics=self.metrics,
                requests=self._traces.requests,
            )
            await self.consensus.start()
            stack.push_async_callback(self.consensus.stop)
            stack.callback(self.seating.close)
            self._log.info(
                "node_ready",
                port=port,
                metrics_port=http.port,
                server=int(settings.index),
                peer=short_peer_id(settings.identity.peer_id),
                profile=settings.profile,
            )
            self._note_start()
            self._notifier.ready()
            await self._run_until(stop, succession)
            self.audit.note("node_stopped", server=int(settings.index))
            self._notifier.stopping()
        self._log.info("node_stopped", server=int(settings.index))
        succession.require_member()

    def _admin_hooks(
        self, stop: asyncio.Event, sessions: Callable[[], Iterable[Session]]
    ) -> AdminHooks:
        settings, state = self._settings, self._settings.state
        return AdminHooks(
            role="server",
            peer=settings.identity.peer_id,
            health=self.health,
            version=version_facts(settings),
            sessions=sessions,
            revocations=self.revocations,
            stop=stop,
            audit_file=None if state is None else state / "audit.log",
            revoking=self.acts.revoking,
            enter_safe_mode=None if state is None else self.acts.enter_safe_mode,
            rotations={"dh": self._turn_kem_key},
            facts=self._status_facts,
        )

    async def _turn_kem_key(self) -> dict[str, str]:
        """Announce a new KEM key now; the one before opens what was registered by it."""
        announced = self.machine.state.kem.get(self._settings.index)
        await self._events.post(KemTurnDue())
        epoch = -1 if announced is None else announced.epoch
        self.audit.note("key_rotated", mode="dh", count=epoch + 1)
        return {"kind": "dh", "state": "announcing", "epoch_before": str(epoch)}

    def _status_facts(self) -> dict[str, str]:
        state = self.machine.state
        leader = self.consensus.leader()
        return {
            "server": str(int(self._settings.index)),
            "leader": "none" if leader is None else str(leader),
            "round": str(int(state.last_round)),
            "records": str(self.keeper.next_sequence),
            "registered": str(state.registry.active_count),
            "descriptor_version": str(self._live.current.version),
        }

    async def _run_until(self, stop: asyncio.Event, succession: ServerSuccession) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.mesh.run(self._on_link)),
                group.create_task(self._drive()),
                group.create_task(self._looking_after.run()),
                group.create_task(self._notifier.run_watchdog()),
                group.create_task(self._attestation.watch(self.health, self.metrics)),
                group.create_task(self._watch_clients()),
                group.create_task(self.acts.revoking.run()),
                group.create_task(self._leave_once_revoked()),
                group.create_task(self.audit.run()),
                group.create_task(self._clocks.run(self.mesh.members)),
                group.create_task(succession.run(stop, self.consensus.stop)),
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def _drive(self) -> None:
        """Run the driver; a failed durable write ends it, and with it the whole server."""
        self.health.set("storage", ok=True)
        try:
            await self.driver.run()
        except BaseExceptionGroup as group:
            failure = safe_mode_in(group)
            if failure is not None:
                self.audit.note("safe_mode_entered", reason=failure.reason)
            raise

    def _note_start(self) -> None:
        """Write down what was started and which secrets were read for it, by key id only."""
        settings = self._settings
        self.audit.note(
            "node_started",
            version=build_version(),
            posture=settings.posture,
            mode=settings.descriptor.descriptor.attestation.mode.value,
            descriptor_version=int(settings.descriptor.descriptor.version),
        )
        keys = {
            "SECRET": short_peer_id(settings.identity.peer_id),
            "COMMITTEE_SECRET": settings.descriptor.descriptor.committee_fingerprint.hex()[:16],
        }
        origins = {item.name: item.origin for item in settings.effective}
        for name, key_id in keys.items():
            self.audit.note(
                "secret_read", setting=name, key_id=key_id, source=origins.get(name, "unknown")
            )

    async def _watch_clients(self) -> None:
        if self._client_watch is None:
            return

        async def retire(index: RegistryIndex) -> None:
            self.audit.note("client_retired", reason="evidence_lapsed")
            await self._events.post(ClientNotAdmitted(index))

        await self._client_watch.run(lambda: self.machine.state.registry, retire)

    def _links_by_peer(self) -> dict[PeerId, PersistentLink]:
        committee = self._live.current.committee
        return {committee[server].peer_id: link for server, link in self.mesh.links.items()}

    # -- what the parts report -----------------------------------------------------------------

    def _on_link(self, server: ServerIndex, up: bool) -> None:  # noqa: FBT001 - a callback
        self.consensus.link_changed(server, up=up)
        if up:
            self._doubting.discard(server)
        self._log.info("link_changed", server=int(server), up=up)

    async def _leave_once_revoked(self) -> None:
        """Lead no more once this very server is revoked: some engines do not see that it is cut."""
        await self._revoked.wait()
        self._log.error("server_revoked", server=int(self._settings.index))
        while True:
            if self.consensus.leader() == self._settings.index:
                await self.consensus.stop()
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _on_revoked(self, revocation: Revocation) -> None:
        if self.revocations.book.has_peer(self._settings.identity.peer_id):
            self._revoked.set()
        kind = revocation.kind.name.lower()
        self.metrics.revocations.inc(kind)
        self.audit.note(
            "principal_revoked",
            mode=kind,
            key_id=revocation.target.hex()[:16],
            operator=revocation.signer.hex()[:16],
        )

    def _on_refused(self, server: ServerIndex, error: ZipnetError) -> bool:
        """Go on slowly, unless most of the others say that this identity is alive elsewhere."""
        reason = refusal_code(error)
        self.metrics.rejected.inc(reason)
        self._log.warning("link_refused", server=int(server), reason=reason, error=str(error))
        if not isinstance(error, DuplicateIdentityError):
            return True
        self._doubting.add(server)
        return len(self._doubting) * 2 <= len(self._settings.server_endpoints) - 1

    def _on_standing(self, standing: StandingChanged) -> None:
        self._log.info("standing_changed", leader=standing.leads, ready=standing.caught_up)
        self._looking_after.look()

    def _on_stored(self, record: VerifiedRecord) -> None:
        metrics, content = self.metrics, record.record.content
        metrics.rounds_finalized.inc()
        metrics.record_sequence.set(record.sequence)
        metrics.last_record_timestamp.set(self._clock.wall())
        metrics.round_participants.set(content.participants)
        metrics.slots_void.inc(len(record.void_slots))
        took = self._clock.wall() - content.header.opened_at_ms / 1000
        metrics.round_duration.observe(max(0.0, took))
        self._traces.rounds.closed(
            int(record.round), "final", sequence=record.sequence, participants=content.participants
        )
        self._log.info(
            "round_finalized",
            trace_id=round_trace_id(content.header.hash).hex(),
            round=int(record.round),
            sequence=record.sequence,
            participants=content.participants,
            slots_void=len(record.void_slots),
        )


def _signed_bytes(machine: ServerMachine) -> bytes | None:
    return None if machine.state.signed is None else machine.state.signed.encode()

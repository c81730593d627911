"""The aggregator: every part put together, started in order and stopped in order.

protocol.md §6 "fold". Upstream it follows a committee server; downstream it serves clients and
child aggregators; what it folded goes to its parent, or from the root to every server.

Rules:

1. Nothing durable is kept: a restarted aggregator takes part from the next round on.
2. Start: settings are checked already; ask whether the identity is alive elsewhere; bind; join.
3. Only what was verified is relayed: headers, records, and aborts of rounds known here.
4. With no way up for two seconds it lets its clients go and takes none: what they send here would
   be lost, and another aggregator may have a way.
5. A submission for a round that is not open here yet waits a moment, one for each session: servers
   do not tell all aggregators at the same instant.

One long module, because it is the one place where all parts of an aggregator meet.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from zipnet.access.policy import Service
from zipnet.errors import (
    AdmissionError,
    ConfigError,
    DuplicateIdentityError,
    RemoteProtocolError,
    VerificationError,
    ZipnetError,
)
from zipnet.machines.aggregator import AggregatorMachine
from zipnet.machines.aggregator_effects import (
    Accept,
    ArmTimer,
    DescriptorChanged,
    Distrust,
    Event,
    FetchRegistry,
    HeaderReceived,
    Refuse,
    RegistryReceived,
    RelayHeader,
    RoundOver,
    SendAggregate,
    SourceChanged,
    TimerFired,
)
from zipnet.node.admin import open_admin
from zipnet.node.admin_verbs import AdminHooks, NodeVerbs
from zipnet.node.aggregator_routes import AggregatorRoutes
from zipnet.node.alone import Target, require_alone
from zipnet.node.attestation import NodeAttestation
from zipnet.node.audit import AuditTrail
from zipnet.node.breakers import Breakers
from zipnet.node.build import build_commit, build_version
from zipnet.node.capabilities import OwnCapability, SessionCapabilities
from zipnet.node.feed import Feed
from zipnet.node.http import serve_http
from zipnet.node.listen import ListenLimits, NodeListener
from zipnet.node.live_descriptor import (
    LiveDescriptor,
    certificates_before,
    certificates_of,
    nodes_of,
)
from zipnet.node.notify import ServiceNotifier
from zipnet.node.probe_capability import CapabilityProbe
from zipnet.node.probe_descriptor import DescriptorProbe
from zipnet.node.probe_entropy import EntropyProbe
from zipnet.node.probes import BreakerProbe, Probe, watch_dependencies
from zipnet.node.record_tail import RecordTail
from zipnet.node.revocations import NodeRevocations
from zipnet.node.traces import NodeTraces
from zipnet.node.uplink import deliver_aggregate
from zipnet.node.upstream import Upstream
from zipnet.node.version import version_facts
from zipnet.node.wall import Wall, WallParts, link_limits
from zipnet.observe.health import Health
from zipnet.observe.log import get_logger
from zipnet.observe.metrics import NodeMetrics
from zipnet.protocol.command import AbortReason
from zipnet.protocol.ids import ServerIndex, short_peer_id
from zipnet.protocol.registration import RegistryChange
from zipnet.transport.certificate import CERTIFICATE_ENDS, registered_certificate
from zipnet.transport.dial import PersistentLink, refusal_code
from zipnet.transport.egress import allow_egress
from zipnet.transport.quic import QuicTransport
from zipnet.transport.session import Role, SessionTerms
from zipnet.transport.tls import TlsTransport
from zipnet.wire.frames import CloseCode
from zipnet.wire.messages import GetRegistry, Kind, RegistryPage, decode, encode

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from zipnet.machines.aggregator_effects import Effect
    from zipnet.ports import Transport
    from zipnet.protocol.descriptor import NodeEntry, TrustedDescriptor
    from zipnet.protocol.header import SignedHeader
    from zipnet.protocol.ids import PeerId, RoundNumber
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.settings.types import AggregatorSettings
    from zipnet.transport.session import HelloFacts, Session

__all__ = ["Aggregator", "run_aggregator"]

_CONDITIONS = ("source", "uplink")
_LOOK_S = 0.25
_NO_WAY_S = 2.0

_log = get_logger(__name__)


async def run_aggregator(
    settings: AggregatorSettings, stop: asyncio.Event, notifier: ServiceNotifier | None = None
) -> None:
    """Run an aggregator until ``stop`` is set.

    Args:
        settings: Its settings, checked.
        stop: Ends it.
        notifier: Told when it is ready; the service manager's when None.

    Raises:
        ConfigError: When ports are taken, or the committee or the parent refuses this node.
        DuplicateIdentityError: When another live node uses this identity.
    """
    await Aggregator(settings).run(stop, notifier)


class Aggregator:
    """One running aggregator.

    Args:
        settings: Its settings, checked.

    Attributes:
        port: Transport port, once :meth:`run` is listening.
        metrics_port: HTTP port, likewise.
        health: Conditions ``source`` (a server is followed) and ``uplink`` (the way up is there).
    """

    def __init__(self, settings: AggregatorSettings) -> None:
        self.port = 0
        self.metrics_port = 0
        boot_id = os.urandom(16)
        self._attestation = NodeAttestation(settings, Role.AGGREGATOR, boot_id)
        self._settings = settings
        self._live = LiveDescriptor(settings.descriptor, settings.server_endpoints)
        self._terms = SessionTerms(
            instance_id=self._descriptor.descriptor.instance,
            group_id=self._descriptor.group,
            role=Role.AGGREGATOR,
            identity=settings.identity,
            boot_id=boot_id,
            attestor=self._attestation.attestor,
            limits=link_limits(settings.bounds),
        )
        self.metrics = NodeMetrics(
            CollectorRegistry(),
            instance=settings.instance,
            role="aggregator",
            version=build_version(),
            commit=build_commit(),
            posture=settings.posture,
            attestation=self._descriptor.descriptor.attestation.mode.value,
        )
        self.metrics.server_registry_size.set(len(self._descriptor.committee))
        self.metrics.certificate_expiry.set(CERTIFICATE_ENDS.timestamp())
        self.health = Health(_CONDITIONS, self.metrics)
        self.machine = AggregatorMachine(self._descriptor, settings.entry, cadence=settings.cadence)
        self._own_capability = OwnCapability(
            settings.capability_file, settings.capability, self.metrics
        )
        self._revocations = NodeRevocations(self._descriptor, tells=False)
        self._capabilities = SessionCapabilities(
            settings.access, self._descriptor.group, self._revocations.book, time.time
        )
        self._breakers = Breakers(self.metrics)
        self._traces = NodeTraces(
            settings, "aggregator", keep_all=lambda: bool(self._breakers.open_targets())
        )
        self._wall_parts = WallParts(
            self.metrics,
            capabilities=self._capabilities,
            is_revoked=self._revocations.book.has_peer,
            bounds=settings.bounds,
            requests=self._traces.requests,
        )
        self._tail = RecordTail(self._descriptor)
        self._transports = self._make_transports()
        self._refusing: set[ServerIndex | None] = set()
        self._way_seen_at = float("-inf")
        self._upstream = self._make_upstream()
        self._parent = self._make_parent()
        self._dialling_parent: asyncio.Task[None] | None = None
        self._live.tell(self._go_by)
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._feed = Feed(
            read_records=self._read_records,
            next_sequence=lambda: self._tail.next_sequence or 0,
            last_record=lambda: self._tail.last_bytes,
            open_round=self._open_round,
            on_lagged=self.metrics.bus_lagged.inc,
        )
        self._routes = AggregatorRoutes(
            params=self._descriptor.params,
            machine=self.machine,
            feed=self._feed,
            step=self._step,
            read_records=self._read_records,
            next_sequence=lambda: self._tail.next_sequence or 0,
            capabilities=self._capabilities,
            live=self._live,
            wall=Wall(Service.AGGREGATOR, self._wall_parts),
        )

    # -- parts -----------------------------------------------------------------------------

    def _make_transports(self) -> tuple[QuicTransport, TlsTransport]:
        private_key = self._settings.identity.ed25519_private_key()
        certificate = registered_certificate(private_key, self._settings.node.certificate)
        registered = certificates_of(self._descriptor)
        failed, limits = self.metrics.tls_handshake_failures.inc, self._terms.limits
        return (
            QuicTransport(
                certificate, registered=registered, limits=limits, on_handshake_failure=failed
            ),
            TlsTransport(
                certificate, registered=registered, limits=limits, on_handshake_failure=failed
            ),
        )

    @property
    def _dialling(self) -> Transport:
        quic, tls = self._transports
        return tls if self._settings.transport == "tls" else quic

    def _make_upstream(self) -> Upstream:
        return Upstream(
            descriptor=self._descriptor,
            endpoints=self._settings.server_endpoints,
            terms=self._terms,
            transport=self._dialling,
            tail=self._tail,
            sink=self,
            wall=Wall(Service.UPSTREAM, self._wall_parts),
            first=self._settings.identity.peer_id[0],
        )

    def _parent_entry(self) -> NodeEntry | None:
        entry = self._descriptor.aggregator(self._settings.identity.peer_id)
        parent = None if entry is None else entry.parent
        found = (e.node for e in self._descriptor.descriptor.aggregators if e.node.name == parent)
        return next(found, None)

    def _make_parent(self) -> PersistentLink | None:
        node = self._parent_node = self._parent_entry()
        if node is None:
            return None
        return PersistentLink(
            self._dialling,
            node.host,
            node.port,
            node.identity.ed25519,
            self._terms,
            expected_peer=node.peer_id,
            on_up=self.on_link_up,
            on_refused=lambda error: self.on_link_refused(None, error),
        )

    @property
    def _uplinks(self) -> Sequence[PersistentLink]:
        return self._upstream.links if self._parent is None else (self._parent,)

    @property
    def _descriptor(self) -> TrustedDescriptor:
        return self._live.current

    def _go_by(self, new: TrustedDescriptor) -> None:
        """A later version of the descriptor is in force; what it leaves as it was stays up."""
        _log.info("descriptor_adopted", version=new.version)
        entry = new.aggregator(self._settings.identity.peer_id)
        if entry is None:
            self._start(_leave(new))
            return
        self._transports[1].register(certificates_of(new), certificates_before(new))
        private_key = self._settings.identity.ed25519_private_key()
        self._transports[1].present(registered_certificate(private_key, entry.node.certificate))
        allow_egress((node.host, node.port) for node in nodes_of(new))
        self._tail.use_descriptor(new)
        self._revocations.use_descriptor(new)
        for session in self._listener.use_descriptor(new):
            self._start(session.close(code=CloseCode.REFUSED, reason="not_registered"))
        self._step(DescriptorChanged(new, entry))
        self._upstream.use_descriptor(new, self._live.endpoints)
        if self._parent_entry() != self._parent_node:
            self._parent = self._make_parent()
            self._dial_parent()

    def _dial_parent(self) -> None:
        if self._dialling_parent is not None:
            self._dialling_parent.cancel()
            self._dialling_parent = None
        if self._parent is not None and self._group is not None:
            self._dialling_parent = self._group.create_task(self._parent.run())
            self._tasks.add(self._dialling_parent)

    # -- life ------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, notifier: ServiceNotifier | None = None) -> None:
        """Run until ``stop`` is set; arguments and errors are :func:`run_aggregator`'s."""
        notifier = notifier or ServiceNotifier(os.environ)
        settings = self._settings
        await self._attestation.require_own()
        await require_alone(
            self._targets(), self._terms, self._transports[1], name=settings.node.name
        )
        async with AsyncExitStack() as stack:
            verbs = NodeVerbs(self._admin_hooks(stop))
            stack.callback(self._traces.close)
            await self._listen(stack, verbs)
            await open_admin(
                stack,
                settings,
                verbs,
                revoked=self._revocations.book,
                audit=AuditTrail(None),
                metrics=self.metrics,
                requests=self._traces.requests,
            )
            notifier.ready()
            await self._run_until(stop, notifier)
            notifier.stopping()
        _log.info("node_stopped", aggregator=settings.node.name)

    def _admin_hooks(self, stop: asyncio.Event) -> AdminHooks:
        return AdminHooks(
            role="aggregator",
            peer=self._settings.identity.peer_id,
            health=self.health,
            version=version_facts(self._settings),
            sessions=lambda: self._listener.sessions(),  # noqa: PLW0108 - it is made later
            revocations=self._revocations,
            stop=stop,
        )

    async def _listen(self, stack: AsyncExitStack, verbs: NodeVerbs) -> None:
        settings = self._settings
        self._way_seen_at = asyncio.get_running_loop().time()
        self._listener = NodeListener(
            terms=self._terms,
            descriptor=self._descriptor,
            handlers=dict.fromkeys((Role.CLIENT, Role.READER, Role.AGGREGATOR), self._routes.serve),
            metrics=self.metrics,
            admit=self._admit,
            barred=lambda facts: self._revocations.refusal(facts) or verbs.refusal(facts),
            limits=ListenLimits.of(settings.bounds),
        )
        self._revocations.bind(
            sessions=self._listener.sessions,
            shown_by=self._capabilities.shown_by,
            links=self._links_by_peer,
            on_enforced=lambda revocation: self.metrics.revocations.inc(
                revocation.kind.name.lower()
            ),
        )
        stack.push_async_callback(self._listener.close)
        self.port = await self._listener.start(
            settings.listen.host, settings.listen.port, self._transports
        )
        http = await serve_http(
            settings.metrics.host,
            settings.metrics.port,
            health=self.health,
            metrics=self.metrics,
            version=version_facts(self._settings),
            bounds=settings.bounds,
            requests=self._traces.requests,
        )
        stack.push_async_callback(http.close)
        self.metrics_port = http.port
        _log.info(
            "node_ready",
            port=self.port,
            metrics_port=http.port,
            aggregator=settings.node.name,
            parent=settings.entry.parent,
            peer=short_peer_id(settings.identity.peer_id),
        )

    def _targets(self) -> list[Target]:
        endpoints = zip(
            self._settings.server_endpoints, self._descriptor.committee_keys, strict=True
        )
        return [Target(endpoint.host, endpoint.port, key) for endpoint, key in endpoints]

    async def _run_until(self, stop: asyncio.Event, notifier: ServiceNotifier) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                lasting = [
                    self._upstream.run(),
                    self._watch(),
                    self._attestation.watch(self.health, self.metrics),
                    watch_dependencies(self._probes(), self.health),
                    notifier.run_watchdog(),
                    self._own_capability.renew(self._dialled),
                ]
                self._tasks.update(group.create_task(one) for one in lasting)
                self._dial_parent()
                await stop.wait()
                self._group = None  # what ends from here on starts nothing new
                for task in self._tasks:
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise _first_of_ours(errors) from None
        finally:
            self._group = None
            for timer in self._timers:
                timer.cancel()

    def _probes(self) -> list[Probe]:
        descriptor = DescriptorProbe(lambda: self._descriptor.descriptor, self.metrics)
        return [
            EntropyProbe(),
            descriptor,
            BreakerProbe(self._breakers.open_targets),
            CapabilityProbe(lambda: self._own_capability.expires_s),
        ]

    async def _watch(self) -> None:
        while True:
            up = sum(1 for link in self._uplinks if link.session is not None)
            self.health.set("uplink", ok=up > 0, reason="no_uplink")
            self.health.set("source", ok=self._upstream.source is not None, reason="no_server")
            await self._look_at_way(up)
            self._look_at_links()
            await asyncio.sleep(_LOOK_S)

    async def _look_at_way(self, up: int) -> None:
        """Rule 4: whoever cannot deliver does not hold clients."""
        now = asyncio.get_running_loop().time()
        if up:
            self._way_seen_at = now
        elif now >= self._way_seen_at + _NO_WAY_S:
            clients = self._listener.sessions(Role.CLIENT)
            if clients:
                _log.warning("clients_let_go", reason="no_uplink", count=len(clients))
            leaving = (c.close(code=CloseCode.OVERLOADED, reason="no_uplink") for c in clients)
            await asyncio.gather(*leaving)

    def _admit(self, facts: HelloFacts) -> ZipnetError | None:
        now = asyncio.get_running_loop().time()
        if facts.role is not Role.CLIENT or now < self._way_seen_at + _NO_WAY_S:
            return None
        return AdmissionError(
            "this aggregator has no way up at the moment", code="not_ready", retry_after=1.0
        )

    def _look_at_links(self) -> None:
        links = {ServerIndex(i): link for i, link in enumerate(self._upstream.links)}
        up = {server for server, link in links.items() if link.session is not None}
        self._refusing -= up
        bonds = len(up) + len(self._listener.sessions(Role.AGGREGATOR))
        if self._parent is not None and self._parent.session is not None:
            self._refusing.discard(None)
            bonds += 1
        self.metrics.bonds.set(bonds)

    def _start(self, work: Coroutine[None, None, object]) -> None:
        """Run something beside, owned by the node's task group."""
        if self._group is None:
            work.close()
        else:
            task = self._group.create_task(_ignoring_result(work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # -- the machine -----------------------------------------------------------------------

    def _step(self, event: Event) -> Accept | Refuse | None:
        """Feed the machine, perform its effects in order, and return its answer if it gave one."""
        answer: Accept | Refuse | None = None
        for effect in self.machine.step(event, asyncio.get_running_loop().time()):
            if isinstance(effect, Accept | Refuse):
                answer = effect
            else:
                self._perform(effect)
        return answer

    def _perform(self, effect: Effect) -> None:
        match effect:
            case FetchRegistry():
                self._start(self._fetch_registry(effect.from_version))
            case Distrust():
                self._upstream.distrust(effect.reason)
            case RelayHeader():
                self._on_opened(effect.signed)
            case ArmTimer():
                self._arm(effect.at)
            case SendAggregate():
                self._start(self._send(effect))
            case Accept() | Refuse():
                raise AssertionError("answers are returned, not performed")

    def _arm(self, at: float) -> None:
        def fire() -> None:
            self._timers.discard(handle)
            self._step(TimerFired())

        handle = asyncio.get_running_loop().call_at(at, fire)
        self._timers.add(handle)

    async def _fetch_registry(self, from_version: int) -> None:
        try:
            payload = encode(GetRegistry(from_version=from_version))
            answer = await self._upstream.request(Kind.GET_REGISTRY, payload)
            page = decode(answer.payload, RegistryPage)
            changes = tuple(RegistryChange.decode(change) for change in page.changes)
        except RemoteProtocolError:
            self._upstream.distrust("registry_malformed")
        except ZipnetError as error:
            _log.info("registry_not_fetched", reason=refusal_code(error))
        else:
            self._step(RegistryReceived(from_version, changes))
            self.metrics.client_registry_size.set(self.machine.registry.active_count)

    def _on_opened(self, signed: SignedHeader) -> None:
        self.metrics.rounds_opened.inc()
        self._traces.rounds.opened(signed.header)
        self._feed.publish_opened(signed.encode())
        self._routes.round_opened()
        _log.debug("round_relayed", round=int(signed.header.round))

    async def _send(self, effect: SendAggregate) -> None:
        self.metrics.envelopes_accepted.inc(effect.own)
        rounds = self._traces.rounds
        rounds.phase("deliver")
        taken = await deliver_aggregate(
            effect.blob,
            self._uplinks,
            round_number=int(effect.round),
            deadline_s=self._settings.cadence.round_deadline_ms / 1000,
            metrics=self.metrics,
            breakers=self._breakers,
        )
        rounds.closed(int(effect.round), "sent", participants=effect.count)
        _log.info("aggregate_sent", round=int(effect.round), participants=effect.count, count=taken)

    # -- what the source says (UpstreamSink) -----------------------------------------------

    def on_source_changed(self) -> None:
        """Another server is followed from now on."""
        self._step(SourceChanged())

    def on_source_lost(self) -> None:
        """No server is followed at the moment."""
        self.health.set("source", ok=False, reason="no_server")

    def on_header(self, signed: SignedHeader) -> None:
        """A header arrived; the machine verifies it."""
        self._step(HeaderReceived(signed))

    def on_record(self, record: VerifiedRecord, data: bytes) -> None:
        """The next record verifies: its round is over, subscribers get it."""
        self._step(RoundOver(record.round))
        metrics, content = self.metrics, record.record.content
        metrics.rounds_finalized.inc()
        metrics.record_sequence.set(record.sequence)
        metrics.last_record_timestamp.set(time.time())
        metrics.round_participants.set(content.participants)
        metrics.slots_void.inc(len(record.void_slots))
        self._feed.publish_record(record.sequence, data)

    def on_aborted(self, round_number: RoundNumber, why: int) -> None:
        """A round was given up, says the source; passed on for the round known here only.

        Nobody signs that, so folding goes on: a source that lies must not keep anybody's envelope
        from the committee, and what is folded for a round that is over is of no use to anybody.
        """
        if round_number != self.machine.last_round:
            return
        self.metrics.rounds_aborted.inc(_abort_reason(why))
        self._feed.publish_aborted(round_number, why)

    async def on_revoked(self, statements: Sequence[bytes]) -> None:
        """A server says what was revoked; each statement proves itself or is passed over."""
        for statement in statements:
            try:
                revocation = self._revocations.open(statement)
            except (RemoteProtocolError, VerificationError) as error:
                _log.warning("revocation_refused", reason=error.reason)
                return
            await self._revocations.enforce(revocation, statement)

    async def on_descriptor(self, descriptor: TrustedDescriptor) -> None:
        """A later version is out: go by it from now on."""
        if await self._live.use(descriptor):
            self._feed.publish_version(descriptor.version)

    async def on_link_up(self, session: Session) -> None:
        """Show this node's capability, where it has one, before anything is asked."""
        await self._own_capability.show(session)

    def _dialled(self) -> list[Session]:
        links = self._links_by_peer().values()
        return [link.session for link in links if link.session is not None]

    def _links_by_peer(self) -> dict[PeerId, PersistentLink]:
        committee = self._descriptor.committee
        links = {
            one.peer_id: link for one, link in zip(committee, self._upstream.links, strict=True)
        }
        node = self._parent_entry()
        if node is not None and self._parent is not None:
            links[node.peer_id] = self._parent
        return links

    def on_distrust(self, reason: str) -> None:
        """The source said something wrong."""
        self.metrics.rejected.inc(reason)
        _log.warning("source_distrusted", server=self._upstream.source, reason=reason)

    def on_link_refused(self, server: ServerIndex | None, error: ZipnetError) -> bool:
        """Go on slowly, unless the parent or most servers say this identity is taken."""
        self.metrics.rejected.inc(refusal_code(error))
        _log.warning("link_refused", server=server, reason=refusal_code(error), error=str(error))
        if not isinstance(error, DuplicateIdentityError):
            return True
        self._refusing.add(server)
        servers = len(self._refusing - {None})
        return None not in self._refusing and servers * 2 <= len(self._descriptor.committee)

    # -- what subscribers ask --------------------------------------------------------------

    def _open_round(self) -> bytes | None:
        signed = self.machine.open_header
        return None if signed is None else signed.encode()

    async def _read_records(self, from_sequence: int, limit: int) -> list[bytes]:
        kept = self._tail.read(from_sequence, limit, max_bytes=512 * 1024)
        return kept or await self._upstream.read_records(from_sequence, limit)


async def _leave(descriptor: TrustedDescriptor) -> None:
    """End the node: it runs in the group this is begun in."""
    raise ConfigError(
        f"version {descriptor.version} of the descriptor registers this aggregator no more",
        hint="stop it for good",
    )


async def _ignoring_result(work: Coroutine[None, None, object]) -> None:
    await work


def _abort_reason(why: int) -> str:
    try:
        return AbortReason(why).name.lower()
    except ValueError:
        return "other"


def _first_of_ours(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error worth a line: the first of ours in a group, else the group itself."""
    found: BaseException = errors.subgroup(ZipnetError) or errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found if isinstance(found, ZipnetError) else errors

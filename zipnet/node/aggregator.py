"""The aggregator: every part put together, and run until it is told to stop.

protocol.md §6 "fold". Upstream it follows a committee server; downstream it serves clients and
child aggregators; what it folded goes to its parent, or from the root to every server.
``zipnet.node.aggregator_start`` makes sure first that it may run.

Rules:

1. Only what was verified is relayed: headers, records, and aborts of rounds known here.
2. When it ends, nothing new begins, and everything that was begun here ends with it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from zipnet.access.policy import Service
from zipnet.errors import RemoteProtocolError, VerificationError, ZipnetError
from zipnet.machines.aggregator import AggregatorMachine
from zipnet.machines.aggregator_effects import HeaderReceived, RoundOver, SourceChanged
from zipnet.node.admin import open_admin
from zipnet.node.admin_verbs import AdminHooks, NodeVerbs
from zipnet.node.aggregator_driver import AggregatorDriver
from zipnet.node.aggregator_health import AGGREGATOR_CONDITIONS, AggregatorHealth
from zipnet.node.aggregator_links import AggregatorLinks
from zipnet.node.aggregator_parts import AggregatorParts
from zipnet.node.aggregator_routes import AggregatorRoutes
from zipnet.node.aggregator_succession import AggregatorSuccession
from zipnet.node.audit import AuditTrail
from zipnet.node.breakers import Breakers
from zipnet.node.build import build_commit, build_version
from zipnet.node.capabilities import OwnCapability, SessionCapabilities
from zipnet.node.feed import Feed
from zipnet.node.http import serve_http
from zipnet.node.listen import ListenLimits, NodeListener
from zipnet.node.live_descriptor import LiveDescriptor
from zipnet.node.record_tail import RecordTail
from zipnet.node.revocations import NodeRevocations
from zipnet.node.traces import NodeTraces
from zipnet.node.upstream import Upstream
from zipnet.node.version import version_facts
from zipnet.node.wall import Wall, WallParts
from zipnet.observe.health import Health
from zipnet.observe.log import get_logger
from zipnet.observe.metrics import NodeMetrics
from zipnet.protocol.command import AbortReason
from zipnet.protocol.ids import short_peer_id
from zipnet.transport.certificate import CERTIFICATE_ENDS
from zipnet.transport.session import Role

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from zipnet.node.attestation import NodeAttestation
    from zipnet.node.notify import ServiceNotifier
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.header import SignedHeader
    from zipnet.protocol.ids import RoundNumber, ServerIndex
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.settings.types import AggregatorSettings
    from zipnet.transport.quic import QuicTransport
    from zipnet.transport.session import Session, SessionTerms
    from zipnet.transport.tls import TlsTransport

__all__ = ["Aggregator"]

_log = get_logger(__name__)


class Aggregator:
    """One running aggregator.

    Args:
        settings: Its settings, checked.
        terms: What it says in handshakes.
        transports: The engines it listens with.
        attestation: What it has to do with attestation.
        notifier: Told when it is ready.

    Attributes:
        port: Transport port, once :meth:`run` is listening.
        metrics_port: HTTP port, likewise.
        health: Conditions ``source`` (a server is followed) and ``uplink`` (the way up is there).
    """

    def __init__(
        self,
        settings: AggregatorSettings,
        terms: SessionTerms,
        transports: tuple[QuicTransport, TlsTransport],
        attestation: NodeAttestation,
        notifier: ServiceNotifier,
    ) -> None:
        self.port = 0
        self.metrics_port = 0
        self._settings = settings
        self._terms = terms
        self._transports = transports
        self._attestation = attestation
        self._notifier = notifier
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        descriptor = settings.descriptor
        self._live = LiveDescriptor(descriptor, settings.server_endpoints)
        self.metrics = NodeMetrics(
            CollectorRegistry(),
            instance=settings.instance,
            role="aggregator",
            version=build_version(),
            commit=build_commit(),
            posture=settings.posture,
            attestation=descriptor.descriptor.attestation.mode.value,
        )
        for transport in transports:
            transport.on_handshake_failure = self.metrics.tls_handshake_failures.inc
        self.metrics.server_registry_size.set(len(descriptor.committee))
        self.metrics.certificate_expiry.set(CERTIFICATE_ENDS.timestamp())
        self.health = Health(AGGREGATOR_CONDITIONS, self.metrics)
        self.machine = AggregatorMachine(descriptor, settings.entry, cadence=settings.cadence)
        self._own_capability = OwnCapability(
            settings.capability_file, settings.capability, self.metrics
        )
        self._revocations = NodeRevocations(descriptor, tells=False)
        self._capabilities = SessionCapabilities(
            settings.access, descriptor.group, self._revocations.book, time.time
        )
        self._breakers = Breakers(self.metrics)
        self._traces = NodeTraces(
            settings, "aggregator", keep_all=lambda: bool(self._breakers.open_targets())
        )
        self._tail = RecordTail(descriptor)
        self._build(descriptor)

    def _build(self, descriptor: TrustedDescriptor) -> None:
        settings = self._settings
        dialling = self._transports[1 if settings.transport == "tls" else 0]
        wall_parts = WallParts(
            self.metrics,
            capabilities=self._capabilities,
            is_revoked=self._revocations.book.has_peer,
            bounds=settings.bounds,
            requests=self._traces.requests,
        )
        self._upstream = Upstream(
            descriptor=descriptor,
            endpoints=settings.server_endpoints,
            terms=self._terms,
            transport=dialling,
            tail=self._tail,
            sink=self,
            wall=Wall(Service.UPSTREAM, wall_parts),
            first=settings.identity.peer_id[0],
        )
        self._links = AggregatorLinks(
            peer=settings.identity.peer_id,
            live=self._live,
            upstream=self._upstream,
            terms=self._terms,
            transport=dialling,
            metrics=self.metrics,
            start=self._start,
            on_up=self.on_link_up,
        )
        self._parts = AggregatorParts(
            settings=settings,
            machine=self.machine,
            live=self._live,
            metrics=self.metrics,
            tail=self._tail,
            upstream=self._upstream,
            links=self._links,
            revocations=self._revocations,
            own_capability=self._own_capability,
            breakers=self._breakers,
            rounds=self._traces.rounds,
            start=self._start,
        )
        self._driver = AggregatorDriver(self._parts, self._on_opened)
        self._feed = Feed(
            read_records=self._read_records,
            next_sequence=lambda: self._tail.next_sequence or 0,
            last_record=lambda: self._tail.last_bytes,
            open_round=self._open_round,
            on_lagged=self.metrics.bus_lagged.inc,
        )
        self._routes = AggregatorRoutes(
            params=descriptor.params,
            machine=self.machine,
            feed=self._feed,
            step=self._driver.step,
            read_records=self._read_records,
            next_sequence=lambda: self._tail.next_sequence or 0,
            capabilities=self._capabilities,
            live=self._live,
            wall=Wall(Service.AGGREGATOR, wall_parts),
        )

    # -- life ------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, and close everything that was opened here.

        Raises:
            ConfigError: When ports are taken, or the committee or the parent refuses this node.
            DuplicateIdentityError: When another live node uses this identity.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            stack.callback(self._traces.close)
            looking_after = AggregatorHealth(self._parts, self.health)
            listener = NodeListener(
                terms=self._terms,
                descriptor=settings.descriptor,
                handlers=dict.fromkeys(
                    (Role.CLIENT, Role.READER, Role.AGGREGATOR), self._routes.serve
                ),
                metrics=self.metrics,
                admit=looking_after.refusal,
                barred=lambda facts: self._revocations.refusal(facts) or verbs.refusal(facts),
                limits=ListenLimits.of(settings.bounds),
            )
            verbs = NodeVerbs(
                AdminHooks(
                    role="aggregator",
                    peer=settings.identity.peer_id,
                    health=self.health,
                    version=version_facts(settings),
                    sessions=listener.sessions,
                    revocations=self._revocations,
                    stop=stop,
                )
            )
            self._revocations.bind(
                sessions=listener.sessions,
                shown_by=self._capabilities.shown_by,
                links=self._links.by_peer,
                on_enforced=lambda revocation: self.metrics.revocations.inc(
                    revocation.kind.name.lower()
                ),
            )
            succession = AggregatorSuccession(
                self._parts, self._driver, listener, self._transports[1], self._terms
            )
            await self._listen(stack, listener)
            await open_admin(
                stack,
                settings,
                verbs,
                revoked=self._revocations.book,
                audit=AuditTrail(None),
                metrics=self.metrics,
                requests=self._traces.requests,
            )
            self._notifier.ready()
            await self._run_until(
                stop, looking_after.run(listener), succession.listen(self.on_descriptor)
            )
            self._notifier.stopping()
        _log.info("node_stopped", aggregator=settings.node.name)

    async def _listen(self, stack: AsyncExitStack, listener: NodeListener) -> None:
        settings = self._settings
        stack.push_async_callback(listener.close)
        self.port = await listener.start(
            settings.listen.host, settings.listen.port, self._transports
        )
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
        self.metrics_port = http.port
        _log.info(
            "node_ready",
            port=self.port,
            metrics_port=http.port,
            aggregator=settings.node.name,
            parent=settings.entry.parent,
            peer=short_peer_id(settings.identity.peer_id),
        )

    async def _run_until(self, stop: asyncio.Event, *parts: Coroutine[None, None, None]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                lasting = [
                    self._upstream.run(),
                    *parts,
                    self._attestation.watch(self.health, self.metrics),
                    self._notifier.run_watchdog(),
                    self._own_capability.renew(self._links.sessions),
                ]
                self._tasks.update(group.create_task(one) for one in lasting)
                self._links.dial()
                await stop.wait()
                self._group = None  # what ends from here on starts nothing new
                for task in self._tasks:
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise _first_of_ours(errors) from None
        finally:
            self._group = None
            self._driver.close()

    def _start(self, work: Coroutine[None, None, object]) -> asyncio.Task[None] | None:
        """Run something beside, owned by the node's task group."""
        if self._group is None:
            work.close()
            return None
        task = self._group.create_task(_ignoring_result(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- what the source says (UpstreamSink) -----------------------------------------------

    def on_source_changed(self) -> None:
        """Another server is followed from now on."""
        self._driver.step(SourceChanged())

    def on_source_lost(self) -> None:
        """No server is followed at the moment."""
        self.health.set("source", ok=False, reason="no_server")

    def on_header(self, signed: SignedHeader) -> None:
        """A header arrived; the machine verifies it."""
        self._driver.step(HeaderReceived(signed))

    def on_record(self, record: VerifiedRecord, data: bytes) -> None:
        """The next record verifies: its round is over, subscribers get it."""
        self._driver.step(RoundOver(record.round))
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

    def on_distrust(self, reason: str) -> None:
        """The source said something wrong."""
        self.metrics.rejected.inc(reason)
        _log.warning("source_distrusted", server=self._upstream.source, reason=reason)

    def on_link_down(self, server: ServerIndex, error: ZipnetError) -> None:
        """End where most servers put this node out."""
        self._links.on_down(server, error)

    def on_link_refused(self, server: ServerIndex, error: ZipnetError) -> bool:
        """Go on slowly, unless most servers say this identity is taken."""
        return self._links.on_refused(server, error)

    # -- what subscribers get --------------------------------------------------------------

    def _on_opened(self, signed: SignedHeader) -> None:
        self.metrics.rounds_opened.inc()
        self._traces.rounds.opened(signed.header)
        self._feed.publish_opened(signed.encode())
        self._routes.round_opened()
        _log.debug("round_relayed", round=int(signed.header.round))

    def _open_round(self) -> bytes | None:
        signed = self.machine.open_header
        return None if signed is None else signed.encode()

    async def _read_records(self, from_sequence: int, limit: int) -> list[bytes]:
        kept = self._tail.read(from_sequence, limit, max_bytes=512 * 1024)
        return kept or await self._upstream.read_records(from_sequence, limit)


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

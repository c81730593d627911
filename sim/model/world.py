"""A whole simulated network: puts the parties together, lets time pass, says what came of it.

Rules:

1. Everything follows from scenario, seed and costs: two runs have the same events, byte for byte.
2. Clients that register before the clock starts are committed by real commands to a real committee
   state, which every server begins from as from a snapshot.
3. A record is verified once for each distinct record; everybody who verifies it is charged for it.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING

from sim.clock import run_virtual
from sim.model.aggregating import ModelAggregator
from sim.model.costs import Costs, load_costs
from sim.model.crowd import CrowdIdentity, CrowdMember
from sim.model.fabric import Fabric, Port, per_second
from sim.model.group import ROOT, Group, identity_of
from sim.model.happenings import Happenings
from sim.model.hooks import Hooks
from sim.model.jamming import JammingPublisher
from sim.model.outcome import Outcome, RoundSummary
from sim.model.publishing import ModelClient
from sim.model.server import ModelServer
from sim.model.trace import Trace
from zipnet.machines.committee import CommitteeState
from zipnet.machines.committee_snapshot import encode_state
from zipnet.machines.reader import Message, ReaderMachine, RecordArrived
from zipnet.protocol.command import RegisterClient, sign_command
from zipnet.protocol.ids import Digest, MessageId, RegistryIndex, RoundNumber, ServerIndex
from zipnet.protocol.record import Record, VerifiedRecord, verify_record
from zipnet.protocol.slots import SlotState

if TYPE_CHECKING:
    from sim.model.scenario import NodeLinks, Scenario
    from sim.model.server_body import ServerBody
    from zipnet.protocol.header import SignedHeader

__all__ = ["WALL_MS", "World", "simulate"]

WALL_MS = 1_900_000_000_000
"""Wall clock at virtual time zero, in milliseconds since 1970."""

_TAIL_S = 1.5


def simulate(
    scenario: Scenario, seed: int, *, costs: Costs | None = None, hooks: Hooks | None = None
) -> Outcome:
    """Run a scenario in virtual time."""
    return World(scenario, seed, costs=costs, hooks=hooks).run()


class World:
    """One run.

    Attributes:
        scenario: What is run.
        group: The instance.
        fabric: The network.
        servers: The committee.
        aggregators: The tree; the root first.
        clients: Clients with a publisher machine.
        crowd: Cost-only clients.
        registrations: Who is behind a registration's digest: name and serial.
        truth: Who wrote each message, which nobody in the network knows.
        founders: How many clients were registered before the clock started.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        *,
        costs: Costs | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.costs = costs or load_costs()
        self.hooks = hooks or Hooks()
        self.rng = random.Random(f"{seed}/world")
        self.group = Group(scenario, seed)
        links = scenario.links
        self.fabric = Fabric(
            seed,
            links.jitter_ms / 1e3,
            links.loss,
            links.retransmit_ms / 1e3,
            self.costs.message_fixed,
            self.costs.message_byte,
        )
        self.fabric.watchers.append(self.hooks.packet)
        self.trace = Trace()
        self.registrations: dict[Digest, tuple[str, int]] = {}
        self.truth: dict[MessageId, str] = {}
        self.latencies: list[float] = []
        self._opened: dict[int, float] = {}
        self._registered: dict[int, int] = {}
        self._rounds: dict[int, RoundSummary] = {}
        self._aborted: dict[int, str] = {}
        self._verified: dict[Digest, VerifiedRecord] = {}
        self._reader = ReaderMachine()
        self._recovered: list[int] = []
        self._done = asyncio.Event()
        size, slots = scenario.wire_body_bytes, scenario.slots
        self.record_work = self.costs.verify_record(scenario.servers, size, slots)
        self._place()
        self._found()

    # -- set-up --------------------------------------------------------------------------------

    def _place(self) -> None:
        scenario, links = self.scenario, self.scenario.links
        regions = links.server_regions_ms
        self.servers = []
        for i in range(scenario.servers):
            port = _port(f"server-{i}", links.server)
            port.latency += regions[i % len(regions)] / 1e3 if regions else 0.0
            self.servers.append(ModelServer(self, ServerIndex(i), port))
        root = ModelAggregator(self, ROOT, None, _port(ROOT, links.aggregator))
        leaves = [
            ModelAggregator(self, name, root, _port(name, links.aggregator))
            for name in self.group.leaves
        ]
        root.children = leaves
        self.aggregators = [root, *leaves]
        self.clients: list[ModelClient] = []
        self.crowd: list[CrowdMember] = []

    def leaf_of(self, number: int) -> ModelAggregator:
        """Return the aggregator a client sends to."""
        leaves = self.aggregators[1:] or self.aggregators
        return leaves[number % len(leaves)]

    def _found(self) -> None:
        """Make the clients and the committee state that has them registered (rule 2)."""
        scenario = self.scenario
        state = CommitteeState(self.group.descriptor, max_clients=1_000_000)
        jammers = range(scenario.clients, scenario.clients + scenario.load.jammers)
        for number in [*range(scenario.clients), *jammers]:
            if scenario.vectors == "cost":
                self._found_member(state, number)
            else:
                self._found_client(state, number, jams=number in jammers)
        self.founders = int(state.registry.next_index)
        self.founding = encode_state(state)
        if scenario.vectors == "cost":
            # One view for all: a hundred thousand entries, which nobody changes in such a run.
            for aggregator in self.aggregators:
                aggregator.machine.registry = state.registry

    def _found_client(self, state: CommitteeState, number: int, *, jams: bool) -> None:
        name = f"{'jammer' if jams else 'client'}-{number}"
        identity = identity_of(self.seed, name)
        port = _port(name, self.scenario.links.client)
        client = ModelClient(self, name, self.leaf_of(number), port=port, identity=identity)
        if jams:
            policy = client.machine._policy  # noqa: SLF001 - the same client, with a jammer's vector
            client.machine = JammingPublisher(self.group, name, identity, policy=policy)
        self.clients.append(client)
        self._commit(state, name, identity.peer_id, identity.public.ed25519)

    def _found_member(self, state: CommitteeState, number: int) -> None:
        name = f"client-{number}"
        identity = CrowdIdentity(self.seed, name)
        index = state.registry.next_index
        port = _port(name, self.scenario.links.client)
        leaf = self.leaf_of(number)
        self.crowd.append(CrowdMember(self, name, index, leaf, port, identity))
        self._commit(state, name, identity.peer_id, identity.ed25519_public())

    def _commit(self, state: CommitteeState, name: str, peer: bytes, key: bytes) -> None:
        registration = self.group.registration(name, WALL_MS)
        self.registrations[registration] = name, WALL_MS
        command = RegisterClient(peer, key, WALL_MS, registration)  # type: ignore[arg-type]
        author = ServerIndex(0)
        state.apply(sign_command(command, author, self.group.group, self.group.servers[author]))

    # -- running -------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Let it run to its end."""
        return run_virtual(self._main())

    async def _main(self) -> Outcome:
        for server in self.servers:
            await server.start()
        for aggregator in self.aggregators:
            aggregator.begin()
        for number, client in enumerate(self.clients):
            client.found(WALL_MS)
            client.enter(*_founded(number))
            client.leaf.join(client.identity.peer_id, client)
        for member in self.crowd:
            member.leaf.join(member.identity.peer_id, member)
        self.hooks.begin(self)
        Happenings(self).begin()
        try:
            async with asyncio.timeout(self.scenario.limit_s):
                await self._done.wait()
                await asyncio.sleep(_TAIL_S)
        except TimeoutError:
            self.note("time_was_up", "world")
        outcome = self._outcome(asyncio.get_running_loop().time())
        for server in self.servers:
            if server.machine is not None:
                server.crash()
        return outcome

    def wall_ms(self) -> int:
        """Return the wall clock, milliseconds since 1970."""
        return WALL_MS + int(asyncio.get_running_loop().time() * 1000)

    def first_reachable(self, name: str) -> ModelServer | None:
        """Return the server somebody asks: the first in an order of their own that answers."""
        order = random.Random(f"{self.seed}/{name}").sample(self.servers, len(self.servers))
        return next((s for s in order if s.port.reachable and s.machine is not None), None)

    def registered(self) -> int:
        """Return how many clients the committee has, as the first server that runs says."""
        for server in self.servers:
            if server.machine is not None:
                return server.machine.state.registry.active_count
        return 0

    def nominal(self, size: int) -> int:
        """Return what a blob with one vector in it would measure with the nominal vector."""
        return size - self.group.params.body_bytes + self.scenario.wire_body_bytes

    def verified(self, record: Record) -> VerifiedRecord:
        """Verify a record, each distinct one once (rule 3)."""
        digest = record.content.hash
        if digest not in self._verified:
            self._verified[digest] = verify_record(record, self.group.descriptor)
        return self._verified[digest]

    def record_bytes(self, record: VerifiedRecord) -> int:
        """Return a record's length on the wire."""
        size = len(record.record.encode())
        return self.nominal(size) if self.scenario.vectors == "cost" else size

    # -- what is noted -------------------------------------------------------------------------

    def note(
        self,
        event: str,
        node: str,
        *,
        round_number: int = 0,
        value: float = 0.0,
        note: str = "",
        keep: bool = True,
    ) -> None:
        """Note an event."""
        try:
            at = asyncio.get_running_loop().time()
        except RuntimeError:
            at = 0.0
        self.trace.note(
            at, event, node, round_number=round_number, value=value, note=note, keep=keep
        )

    def opened(self, server: ServerBody, signed: SignedHeader) -> None:
        """A server announced a round."""
        number = int(signed.header.round)
        if number not in self._opened:
            self._opened[number] = asyncio.get_running_loop().time()
            self._registered[number] = self.registered()
            digest = signed.header.hash.hex()
            self.note("round_opened", server.name, round_number=number, note=digest)

    def open_rounds(self) -> tuple[int, ...]:
        """Return the numbers of all rounds opened so far."""
        return tuple(self._opened)

    def sealed(self, server: ServerBody, record: VerifiedRecord, size: int) -> None:
        """A server stored a record."""
        number = int(record.round)
        content = record.record.content
        self.note(
            "record_stored", server.name, round_number=number, value=size, note=record.hash.hex()
        )
        if number in self._rounds:
            return
        entries = content.reservations
        pairs = (entries[i : i + 2] for i in range(0, len(entries), 2))
        now = asyncio.get_running_loop().time()
        self._rounds[number] = RoundSummary(
            number=number,
            opened=self._opened.get(number, now),
            sealed=now,
            participants=content.participants,
            registered=self._registered.get(number, 0),
            used=sum(state is SlotState.VALID for state in content.states),
            void=sum(state is SlotState.VOID for state in content.states),
            reserved=sum(any(pair) for pair in pairs),
            schedule=content.schedule.hex(),
        )
        self.hooks.record(record)
        self._read(record)
        if len(self._rounds) >= self.scenario.rounds:
            self._done.set()

    def _read(self, record: VerifiedRecord) -> None:
        for effect in self._reader.step(RecordArrived(record)):
            if isinstance(effect, Message):
                self._recovered.append(len(effect.payload))
                number = int(record.round)
                size = len(effect.payload)
                self.note("message_recovered", "reader", round_number=number, value=size)

    def aborted(self, server: ServerBody, number: int, why: str) -> None:
        """A server gave a round up."""
        if number not in self._aborted:
            self._aborted[number] = why
            self.note("round_aborted", server.name, round_number=number, note=why)

    def delivered(self, name: str, number: int, latency: float, size: int) -> None:
        """A client has its receipt."""
        self.latencies.append(latency)
        self.note("message_delivered", name, round_number=number, value=latency, note=str(size))

    def relay_record(self, leaf: ModelAggregator, record: VerifiedRecord, size: int) -> None:
        """Push a record to everybody below an aggregator."""
        for client in list(leaf.clients.values()):
            self.fabric.send(
                leaf.port, client.port, "record", size, partial(client.sealed, record, size)
            )

    def _outcome(self, seconds: float) -> Outcome:
        scenario = self.scenario
        links: dict[str, float] = {
            f"kind/{k}": float(v) for k, v in sorted(self.fabric.kinds.items())
        }
        ports = [s.port for s in self.servers] + [a.port for a in self.aggregators]
        ports += [c.port for c in self.clients[:1]] + [m.port for m in self.crowd[:1]]
        for port in ports:
            links[f"sent/{port.name}"] = float(port.sent)
            links[f"received/{port.name}"] = float(port.received)
        for name, total in links.items():
            self.note("link_total", name, value=total, keep=False)
        return Outcome(
            scenario=scenario.name,
            seed=self.seed,
            digest=self.trace.digest(),
            seconds=seconds,
            slots=scenario.slots,
            clients=scenario.clients,
            rounds=[self._rounds[number] for number in sorted(self._rounds)],
            aborted=sorted(self._aborted.items()),
            queued=self.trace.counted.get("message_queued", 0),
            latencies=self.latencies,
            recovered=len(self._recovered),
            recovered_bytes=sum(self._recovered),
            links=links,
            counted=dict(self.trace.counted),
            rows=self.trace.rows,
            vectors=scenario.vectors,
            slot_bytes=scenario.slot_bytes,
            assumptions=scenario.assumptions,
            published=scenario.published,
            wire_body_bytes=scenario.wire_body_bytes,
        )


def _port(name: str, links: NodeLinks) -> Port:
    return Port(
        name, per_second(links.up_mbit), per_second(links.down_mbit), links.latency_ms / 1e3
    )


def _founded(number: int) -> tuple[RegistryIndex, int, RoundNumber]:
    return RegistryIndex(number), number + 1, RoundNumber(1)

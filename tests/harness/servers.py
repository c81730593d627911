"""A committee of real server machines in one process, with a log instead of Raft and no sockets.

The machines, the release guard, key custody and the release journal are the shipped ones, on real
files; what is replaced is the driver: effects are performed at once, in order, and a hook may crash
a server before or after any of them. Whatever was in a crashed server's memory is gone.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.harness.committee import HarnessCommittee, make_draw, make_identity, pad_engine
from zipnet.errors import GuardError
from zipnet.machines.committee import CommitteeState
from zipnet.machines.committee_snapshot import encode_state
from zipnet.machines.guard import Released, ReleaseGuard
from zipnet.machines.server import ServerMachine
from zipnet.machines.server_effects import (
    AdmitClient,
    AggregateArrived,
    AnnounceKemKey,
    AssembleRecord,
    CatchUpRecords,
    ClientAdmitted,
    ClientNotAdmitted,
    Committed,
    Effect,
    EnforceRevocation,
    Event,
    Fetch,
    Instant,
    KeepAggregate,
    KemKeyReady,
    LinksChanged,
    OpenRoundWith,
    PartialArrived,
    PersistRelease,
    Propose,
    PublishAborted,
    PublishOpened,
    RecordAssembled,
    RefuseRelease,
    Restored,
    RetireChain,
    RetireOtherChains,
    SharePartial,
    StandingChanged,
    StepChains,
    StoreRecord,
    TimerFired,
    Unblind,
    Unblinded,
    UnblindFailed,
    UseDescriptor,
)
from zipnet.protocol.aggregate import Aggregate, Partial, decode_aggregate, decode_partial
from zipnet.protocol.command import OpenRound, RegisterClient, sign_command
from zipnet.protocol.header import RoundHeader, sign_header
from zipnet.protocol.ids import (
    Digest,
    RegistryIndex,
    RoundNumber,
    ServerIndex,
    content_digest,
    derive,
)
from zipnet.protocol.kem import KemKeyPair, encapsulate
from zipnet.protocol.params import Cadence
from zipnet.protocol.participants import Participants
from zipnet.protocol.ratchet import initial_chain_key, pad_key, skip
from zipnet.protocol.record import (
    RECORD_SIGNATURE_USE,
    Record,
    RecordContent,
    VerifiedRecord,
    assemble_content,
    require_extends,
    verify_record,
)
from zipnet.protocol.registration import (
    Encapsulation,
    decode_announcement,
    decode_registration,
    sign_announcement,
    sign_registration,
)
from zipnet.protocol.secret import Secret
from zipnet.storage.custody import CustodyFiles, KeyCustody
from zipnet.storage.journal import FileJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from zipnet.protocol.descriptor import TrustedDescriptor

__all__ = ["CrashedError", "HarnessClient", "HarnessServer", "ServerCluster"]

CADENCE = Cadence(round_period_ms=1000, fold_deadline_ms=500, round_deadline_ms=3000)
WALL_MS = 1_900_000_000_000


class CrashedError(Exception):
    """The hook crashed this server."""


@dataclass
class HarnessClient:
    """A client's side of its chains, kept the plain way: from the first key, every time."""

    name: str
    index: RegistryIndex
    first_round: RoundNumber
    chains: list[bytes]

    def body(self, header: RoundHeader, clear: bytes) -> bytes:
        """Return a padded body for a round."""
        body = bytearray(clear)
        engine = pad_engine()
        for server in header.roster:
            key = bytearray(self.chains[server])
            skip(key, header.round - self.first_round, limit=100_000)
            engine.apply(body, pad_key(key, header.hash))
        return bytes(body)


@dataclass
class HarnessServer:
    """One server: what survives a crash, and what does not."""

    index: ServerIndex
    folder: Path
    records: list[VerifiedRecord] = field(default_factory=list)
    kept: dict[Digest, bytes] = field(default_factory=dict)
    drafts: dict[Digest, RecordContent] = field(default_factory=dict)
    alive: bool = False
    frozen: bool = False
    machine: ServerMachine | None = None
    custody: KeyCustody | None = None
    releases: FileJournal | None = None
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    withheld: dict[Digest, bytes] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=deque)
    applied: int = 0


class ServerCluster:
    """Servers, a log, a clock, and whatever a test does to them.

    Attributes:
        released: Every partial that ever left a server: (server, round, partial digest).
        refused: Every refusal of a guard: (server, round, reason).
        performed: Every effect with the server that performed it.
        crash: Hook asked before and after each effect: (server, effect, "before" | "after").
    """

    def __init__(self, folder: Path, *, committee: HarnessCommittee | None = None) -> None:
        self.committee = committee or HarnessCommittee(cadence=CADENCE)
        self.descriptor = self.committee.descriptor
        self.params = self.descriptor.params
        self.log: list[bytes] = []
        self.now = 0.0
        self.leader = ServerIndex(0)
        self.released: list[tuple[int, int, Digest]] = []
        self.refused: list[tuple[int, int, str]] = []
        self.performed: list[tuple[int, Effect]] = []
        self.opened: list[RoundHeader] = []
        self.revoked: list[tuple[ServerIndex, bytes]] = []
        self.aborted: list[int] = []
        self.adopted: list[tuple[ServerIndex, TrustedDescriptor]] = []
        self.crash: Callable[[int, Effect, str], bool] = lambda *_: False
        self._engine = pad_engine()
        self._counter = itertools.count()
        self.servers = [
            HarnessServer(ServerIndex(i), folder / f"server-{i}")
            for i in range(len(self.descriptor.committee))
        ]
        for server in self.servers:
            server.folder.mkdir(parents=True, exist_ok=True)
            self.start(server.index)
        self.settle()

    # -- life ----------------------------------------------------------------------------------

    def start(self, index: int) -> None:
        """Start a server from what is on its disk."""
        server = self.servers[index]
        server.releases = FileJournal(server.folder / "releases.journal", identity=bytes(32))
        server.custody = KeyCustody(
            CustodyFiles(server.folder), group=self.descriptor.group, max_skip_rounds=1000
        )
        history = [Released.decode(entry) for entry in server.releases.entries()]
        server.machine = ServerMachine(
            server=server.index,
            descriptor=self.descriptor,
            guard=ReleaseGuard(
                server=server.index,
                min_participants=self.params.min_participants,
                history=history,
            ),
            cadence=CADENCE,
            min_participants=self.params.min_participants,
            next_sequence=len(server.records),
        )
        server.blobs = dict(server.kept)
        server.withheld = {}
        server.events = deque()
        server.applied = 0
        server.alive = True

    def restore(self, index: int) -> None:
        """Hand a server the log so far as a snapshot, instead of what it has not seen of it."""
        server = self.servers[index]
        state = CommitteeState(self.descriptor)
        for command in self.log:
            state.apply(command)
        server.events.append(Restored(len(self.log), encode_state(state)))
        server.applied = len(self.log)

    def kill(self, index: int) -> None:
        """Take a server down with everything it had in memory."""
        server = self.servers[index]
        server.alive = False
        assert server.releases is not None
        assert server.custody is not None
        server.releases.close()
        server.custody.close()

    def close(self) -> None:
        """Stop everything."""
        for server in self.servers:
            if server.alive:
                self.kill(server.index)

    def alive(self) -> list[HarnessServer]:
        """Return the servers that run."""
        return [server for server in self.servers if server.alive]

    # -- time and events -----------------------------------------------------------------------

    def settle(self, seconds: float = 0.0) -> None:
        """Let time go by and everything happen that can happen."""
        self.now += seconds
        for _ in range(200):
            before = (len(self.log), len(self.performed))
            for server in self.alive():
                if not server.frozen:
                    self._feed(server)
            if (len(self.log), len(self.performed)) == before:
                return
        raise AssertionError("the cluster does not come to rest")

    def _feed(self, server: HarnessServer) -> None:
        connected = frozenset(s.index for s in self.alive() if s is not server)
        server.events.append(LinksChanged(connected))
        if server.applied < len(self.log):
            server.events.append(Committed(tuple(self.log[server.applied :])))
            server.applied = len(self.log)
        leads = self.leader == server.index
        server.events.append(StandingChanged(leads=leads, caught_up=True))
        server.events.append(TimerFired())
        try:
            while server.events:
                self.post(server, server.events.popleft())
        except CrashedError:
            self.kill(server.index)

    def post(self, server: HarnessServer, event: Event) -> None:
        """Feed one event and perform what it asks for."""
        assert server.machine is not None
        instant = Instant(self.now, WALL_MS + int(self.now * 1000))
        for effect in server.machine.step(event, instant):
            if self.crash(server.index, effect, "before"):
                raise CrashedError
            self.performed.append((server.index, effect))
            self._perform(server, effect)
            if self.crash(server.index, effect, "after"):
                raise CrashedError

    # -- effects -------------------------------------------------------------------------------

    def _perform(self, server: HarnessServer, effect: Effect) -> None:  # noqa: C901, PLR0912
        assert server.custody is not None
        assert server.releases is not None
        identity = self.committee.identities[server.index]
        match effect:
            case Propose():
                self._propose(server, effect.command)
            case OpenRoundWith():
                self._propose(server, OpenRound(sign_header(effect.header, identity)))
            case KeepAggregate():
                server.kept[effect.aggregate] = server.blobs[effect.aggregate]
            case PersistRelease():
                server.releases.append(effect.released.encode())
            case Unblind():
                self._unblind(server, effect)
            case RefuseRelease():
                self.refused.append((server.index, effect.round, effect.reason))
            case SharePartial():
                self._share(server, effect.partial, effect.round)
            case Fetch():
                self._fetch(server, effect)
            case AssembleRecord():
                self._assemble(server, effect)
            case StoreRecord():
                content = server.drafts.get(effect.sealed.record)
                if content is None:
                    self._catch_up(server, effect.sealed.sequence + 1)
                else:
                    self._store(server, Record(content, effect.sealed.signatures))
            case CatchUpRecords():
                self._catch_up(server, effect.next_sequence)
            case StepChains():
                server.custody.step_past(effect.round)
            case AdmitClient():
                self._admit(server, effect)
            case RetireChain():
                server.custody.retire(effect.index)
            case RetireOtherChains():
                server.custody.retire_others(effect.kept)
            case AnnounceKemKey():
                self._announce(server, effect)
            case PublishOpened():
                if effect.signed.header not in self.opened:
                    self.opened.append(effect.signed.header)
            case PublishAborted():
                self.aborted.append(effect.aborted.round)
            case EnforceRevocation():
                self.revoked.append((server.index, effect.statement))
            case UseDescriptor():
                self.adopted.append((server.index, effect.descriptor))

    def _propose(self, server: HarnessServer, command: object) -> None:
        identity = self.committee.identities[server.index]
        group = self.descriptor.group
        self.log.append(sign_command(command, server.index, group, identity))  # type: ignore[arg-type]

    def _unblind(self, server: HarnessServer, effect: Unblind) -> None:
        assert server.custody is not None
        try:
            body = server.custody.unblind(
                effect.header, effect.participants, self.params, self._engine
            )
        except GuardError:
            server.events.append(UnblindFailed(effect.header.round))
            return
        header = effect.header
        blob = Partial(
            header.round, header.hash, server.index, effect.aggregate, bytes(body)
        ).encode()
        server.withheld = {content_digest(blob): blob}
        server.events.append(Unblinded(header.round, content_digest(blob)))

    def _share(self, server: HarnessServer, partial: Digest, round_number: int) -> None:
        blob = server.withheld.pop(partial)
        self.released.append((server.index, round_number, partial))
        server.blobs[partial] = blob
        for other in self.alive():
            if other is not server:
                other.blobs[partial] = blob
                other.events.append(PartialArrived(server.index, partial))

    def _fetch(self, server: HarnessServer, effect: Fetch) -> None:
        for holder in (server, *(self.servers[i] for i in effect.holders)):
            blob = holder.blobs.get(effect.digest) if holder.alive else None
            if blob is None:
                continue
            server.blobs[effect.digest] = blob
            assert server.machine is not None
            state = server.machine.state
            if state.chosen is not None and effect.digest == state.chosen.aggregate:
                server.events.append(self._arrival(blob))
            for author, digest in state.partials.items():
                if digest == effect.digest:
                    server.events.append(PartialArrived(author, digest))
            return

    def _arrival(self, blob: bytes) -> AggregateArrived:
        digest, aggregate = decode_aggregate(blob, self.params)
        return AggregateArrived(
            digest, aggregate.round, aggregate.header_hash, aggregate.participants
        )

    def _assemble(self, server: HarnessServer, effect: AssembleRecord) -> None:
        _, aggregate = decode_aggregate(server.blobs[effect.aggregate], self.params)
        clear = np.frombuffer(bytearray(aggregate.body), dtype=np.uint8).copy()
        for digest in effect.partials:
            _, partial = decode_partial(server.blobs[digest], self.params)
            clear ^= np.frombuffer(partial.body, dtype=np.uint8)
        content = assemble_content(
            effect.header,
            sequence=effect.sequence,
            participants=len(aggregate.participants),
            commitment=aggregate.participants.commitment(b"salt" * 8),
            clear_body=clear.tobytes(),
            params=self.params,
        )
        server.drafts = {content.hash: content}
        signature = self.committee.identities[server.index].sign(RECORD_SIGNATURE_USE, content.hash)
        server.events.append(
            RecordAssembled(effect.header.round, content.hash, content.schedule, signature)
        )

    def _catch_up(self, server: HarnessServer, next_sequence: int) -> None:
        for other in self.servers:
            for record in other.records[len(server.records) : next_sequence]:
                self._store(server, record.record)

    def _store(self, server: HarnessServer, record: Record) -> None:
        verified = verify_record(record, self.descriptor)
        require_extends(verified, server.records[-1] if server.records else None)
        server.records.append(verified)

    def _admit(self, server: HarnessServer, effect: AdmitClient) -> None:
        assert server.custody is not None
        change = effect.change
        assert change.registration is not None
        blob = next(
            (s.blobs[change.registration] for s in self.servers if change.registration in s.blobs),
            None,
        )
        admitted = server.custody.holds(change.index)
        if blob is not None and not admitted:
            mine = decode_registration(
                blob, self.descriptor.group, len(self.descriptor.committee)
            ).for_server(server.index)
            admitted = server.custody.admit(
                change.index, change.first_round, mine.epoch, mine.ciphertext
            )
            server.kept[change.registration] = blob
        event = ClientAdmitted(change.index) if admitted else ClientNotAdmitted(change.index)
        server.events.append(event)

    def _announce(self, server: HarnessServer, effect: AnnounceKemKey) -> None:
        assert server.custody is not None
        held = server.custody.kem_entry(effect.epoch)
        if held is not None and held.announcement in server.blobs:
            server.events.append(KemKeyReady(effect.epoch, held.announcement))
            return
        epoch = max(effect.epoch, effect.announced + 1)
        name = f"{server.index}-{epoch}-{next(self._counter)}"
        seed = Secret(derive("test-kem", name.encode()))
        public = KemKeyPair.from_seed(seed).public
        identity = self.committee.identities[server.index]
        blob = sign_announcement(self.descriptor.group, server.index, epoch, public, identity)
        digest = content_digest(blob)
        server.blobs[digest] = server.kept[digest] = blob
        server.custody.add_kem(epoch, seed, digest)
        server.events.append(KemKeyReady(epoch, digest))

    # -- what the rest of the network does -----------------------------------------------------

    def register(self, name: str, *, serial: int = 1) -> HarnessClient:
        """Register a client through the first live server and return its side of the chains."""
        gate = self.alive()[0]
        assert gate.machine is not None
        identity = make_identity(f"client-{name}")
        chains: list[bytes] = []
        items: list[Encapsulation] = []
        draw = make_draw(f"client-{name}-{serial}")
        for position in range(len(self.descriptor.committee)):
            announced = gate.machine.state.kem[ServerIndex(position)]
            blob = next(
                s.kept[announced.announcement]
                for s in self.servers
                if announced.announcement in s.kept
            )
            found = decode_announcement(blob, self.descriptor.group, self.descriptor.committee)
            ciphertext, shared = encapsulate(found.public, draw)
            items.append(Encapsulation(found.server, found.epoch, ciphertext))
            chains.append(bytes(initial_chain_key(self.descriptor.group, found.epoch, shared)))
        blob = sign_registration(self.descriptor.group, serial, items, identity)
        for server in self.alive():
            server.blobs[content_digest(blob)] = blob
        public = identity.public
        self._propose(
            gate,
            RegisterClient(public.peer_id, public.ed25519, serial, content_digest(blob)),
        )
        self.settle()
        index = gate.machine.state.registry.index_of(public.peer_id)
        assert index is not None
        entry = gate.machine.state.registry.entry(index)
        assert entry is not None
        return HarnessClient(name, index, entry.first_round, chains)

    def aggregate(
        self,
        header: RoundHeader,
        clients: Iterable[HarnessClient],
        clear: Callable[[HarnessClient], bytes] | None = None,
    ) -> bytes:
        """Return the aggregate blob of some clients' envelopes."""
        chosen = list(clients)
        total = np.zeros(self.params.body_bytes, dtype=np.uint8)
        for client in chosen:
            plain = bytes(self.params.body_bytes) if clear is None else clear(client)
            total ^= np.frombuffer(client.body(header, plain), dtype=np.uint8)
        participants = Participants(client.index for client in chosen)
        return Aggregate(header.round, header.hash, participants, total.tobytes()).encode()

    def offer(self, blob: bytes, servers: Sequence[int] | None = None) -> None:
        """Hand an aggregate to servers, as a root would."""
        for server in self.alive():
            if servers is None or server.index in servers:
                server.blobs[content_digest(blob)] = blob
                server.events.append(self._arrival(blob))
        self.settle()

    def open_round(self) -> RoundHeader:
        """Let the next round open and return its header."""
        before = len(self.opened)
        for _ in range(10):
            self.settle(0.5)
            if len(self.opened) > before:
                return self.opened[-1]
        raise AssertionError("no round opened")

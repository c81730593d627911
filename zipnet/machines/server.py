"""A committee server's own machine: from what it knows to what it should do next.

protocol.md §6, §8. The replicated facts live in ``committee``; this machine adds what only this
server knows (who leads, who is connected, which blobs and chains are here, what time it is) and is
*level-triggered*: after every event it looks at the whole state and asks for what is missing. So a
restart, a lost message or a change of leader needs no special case: the same look finds the same
work again.

Rules:

1. Until the log is caught up nothing is proposed and nothing released.
2. The release guard is asked before every unblinding, also after a restart.
3. A partial may leave only in phase ``REVEALED``: every roster server has committed to its own.
4. Every closed round steps the chains before anything of a later round is done.
5. Only the leader opens, chooses, aborts and seals; every server could, and the log decides.
6. A partial is given up, in the log and after the deadline only, when no server gave it and its own
   is out of reach or has given it up as well.
7. A version of the descriptor that the operator gave this server is offered, part by part, until
   the log has adopted one of that number.
8. What the log revokes is cut off at once, caught up or not. A server that reads its own revocation
   does nothing more.

Long because it is one transition table; its books are kept by smaller modules.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from zipnet.machines.client_book import ClientBook
from zipnet.machines.committee import CommitteeState, Phase
from zipnet.machines.committee_outcomes import (
    ClientRegistered,
    ClientRetired,
    PrincipalRevoked,
    RoundAborted,
    RoundOpened,
    RoundSealed,
)
from zipnet.machines.committee_snapshot import decode_state
from zipnet.machines.guard import RefusedRelease, ReleaseRequest
from zipnet.machines.kem_turn import KemTurn
from zipnet.machines.leader import Leader, LeaderView
from zipnet.machines.offers import DescriptorAdopted
from zipnet.machines.server_effects import (
    AggregateArrived,
    AssembleRecord,
    CatchUpRecords,
    ClientAdmitted,
    ClientNotAdmitted,
    Committed,
    DescriptorGiven,
    Effect,
    EnforceRevocation,
    Event,
    Fetch,
    Instant,
    KeepAggregate,
    KemKeyReady,
    KemTurnDue,
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
from zipnet.protocol.command import (
    AbortReason,
    AbortRound,
    ChooseAggregate,
    Command,
    PostPartial,
    RetireClient,
    SignRecord,
)
from zipnet.protocol.header import RoundHeader
from zipnet.protocol.ids import RoundNumber, ServerIndex

if TYPE_CHECKING:
    from zipnet.machines.guard import ReleaseGuard
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.ids import Digest, PeerId, RegistryIndex
    from zipnet.protocol.params import Cadence
    from zipnet.protocol.participants import Participants

__all__ = ["ServerMachine"]

RETRY_S = 1.0
"""How long a proposal or fetch may go unanswered before it is asked for again."""
_MAX_AGGREGATES = 8


class _Round:
    """What this server alone knows about the round under way."""

    __slots__ = (
        "aggregates",
        "assembled",
        "own_partial",
        "partials",
        "shared",
        "unblinding",
    )

    def __init__(self) -> None:
        self.aggregates: dict[Digest, Participants] = {}
        self.partials: dict[ServerIndex, Digest] = {}
        self.own_partial: Digest | None = None
        self.unblinding = False
        self.shared = False
        self.assembled: RecordAssembled | None = None


class ServerMachine:
    """One committee server as a pure machine.

    Args:
        server: This server's index.
        descriptor: The trusted descriptor the log begins under.
        guard: This server's release guard, with its durable history.
        cadence: Round period and deadlines this server leads with.
        min_participants: Fewest clients it opens a round for.
        next_sequence: Number of records already in its record log.
        max_clients: Bound on registered clients.
    """

    def __init__(
        self,
        *,
        server: ServerIndex,
        descriptor: TrustedDescriptor,
        guard: ReleaseGuard,
        cadence: Cadence,
        min_participants: int,
        next_sequence: int,
        max_clients: int = 100_000,
    ) -> None:
        self.server = server
        self.state = CommitteeState(descriptor, max_clients=max_clients)
        self._given: TrustedDescriptor | None = None
        self._returning = (0, float("-inf"))
        self._guard = guard
        least = max(min_participants, descriptor.params.min_participants)
        self._leader = Leader(server, cadence, least)
        self._stored = next_sequence
        self._leads = False
        self._caught_up = False
        self._connected: frozenset[ServerIndex] = frozenset()
        self._round = _Round()
        self._early: deque[AggregateArrived] = deque(maxlen=_MAX_AGGREGATES)
        self._refused_round = RoundNumber(0)
        self._last_open = float("-inf")
        self._published = RoundNumber(0)
        self._deadline_s = cadence.round_deadline_ms / 1000
        self._clients = ClientBook()
        self._kem = KemTurn(descriptor.params.kem_epoch_s)
        self._asked: dict[tuple[str, object], float] = {}

    @property
    def _descriptor(self) -> TrustedDescriptor:
        return self.state.descriptor

    def step(  # noqa: C901, PLR0912 - the table of events
        self, event: Event, now: Instant
    ) -> list[Effect]:
        """Take one event and return what to do, in order."""
        effects: list[Effect] = []
        match event:
            case Committed():
                for data in event.commands:
                    self._on_committed(data, now, effects)
            case Restored():
                self._on_restored(event, now, effects)
            case StandingChanged():
                self._leads, self._caught_up = event.leads, event.caught_up
                if event.caught_up:
                    self._guard.enter(self.state.last_round)
            case LinksChanged():
                self._connected = event.connected
            case AggregateArrived():
                self._on_aggregate(event)
            case PartialArrived():
                self._on_partial(event)
            case Unblinded() | UnblindFailed():
                self._on_unblinded(event, now)
            case RecordAssembled():
                if event.round == self.state.last_round:
                    self._round.assembled = event
            case ClientAdmitted():
                self._clients.admit(event.index)
            case ClientNotAdmitted():
                self._clients.give_up(event.index)
            case KemKeyReady():
                self._kem.have(event)
            case KemTurnDue():
                self._kem.ask(self._newest_kem())
            case DescriptorGiven():
                self._given = event.descriptor
            case TimerFired():
                pass
        if self._caught_up and not self.state.is_revoked_server(self.server):
            self._look(now, effects)
        return effects

    def is_admitted(self, index: RegistryIndex) -> bool:
        """Tell whether an index is registered for the round under way and its chain is here."""
        header = self.state.header
        if header is None or not self._clients.is_admitted(index):
            return False
        return self.state.registry.is_member(index, header.registry_version, header.round)

    @property
    def blobs_in_use(self) -> frozenset[Digest]:
        """What this server counts on finding again, whatever else it is sent meanwhile."""
        early = (event.digest for event in self._early)
        return frozenset((*self._round.aggregates, *self._round.partials.values(), *early))

    def place_of(self, peer: PeerId, registration: Digest) -> tuple[RegistryIndex, bool] | None:
        """Return the index a registration has, and whether this server admitted it; else None."""
        index = self.state.registry.index_of(peer)
        if index is None or not self._clients.is_by(index, registration):
            return None
        return index, self._clients.is_admitted(index)

    def waiting_for(self, now: float) -> tuple[ServerIndex, ...]:
        """Return the servers without which no round can go on, as far as this one sees."""
        header = self.state.header
        if header is None:
            here = {s for s in (*self._connected, self.server) if not self._is_out(s)}
            if len(here) >= self._descriptor.required_signatures:
                return ()
            everyone = range(len(self._descriptor.committee))
            return tuple(ServerIndex(i) for i in everyone if i not in here)
        late = now >= self._last_open + self._deadline_s
        if late and self.state.phase is Phase.REVEALED and self.server in header.roster:
            return self._missing_of(header)
        return ()

    def _is_out(self, server: ServerIndex) -> bool:
        return self.state.is_revoked_server(server)

    # -- what the log says -----------------------------------------------------------------

    def _on_committed(  # noqa: C901, PLR0912 - the table of outcomes
        self, data: bytes, now: Instant, effects: list[Effect]
    ) -> None:
        outcome = self.state.apply(data)
        match outcome:
            case RoundOpened():
                self._round = _Round()
                self._last_open = now.monotonic
                self._asked.clear()
                self._take_early()
                self._clients.open_round()
                if self._caught_up:
                    self._published = outcome.signed.header.round
                    effects.append(PublishOpened(outcome.signed))
            case RoundSealed():
                effects.append(StepChains(outcome.header.round))
                if outcome.sequence >= self._stored:
                    self._store(outcome, effects)
            case RoundAborted():
                effects.append(StepChains(outcome.round))
                if self._caught_up:
                    effects.append(PublishAborted(outcome))
            case ClientRegistered():
                if outcome.replaced is not None:
                    effects.append(self._clients.forget(outcome.replaced))
                self._clients.register(outcome.change)
            case ClientRetired():
                effects.append(self._clients.forget(outcome.index))
            case PrincipalRevoked():
                if outcome.index is not None:
                    effects.append(self._clients.forget(outcome.index))
                effects.append(EnforceRevocation(outcome.revocation, outcome.statement))
            case DescriptorAdopted():
                effects.extend(map(self._clients.forget, outcome.retired))
                if outcome.retired:
                    self._returning = (len(outcome.retired), now.monotonic)
                effects.append(UseDescriptor(outcome.descriptor))
            case _:
                pass

    def _on_restored(self, event: Restored, now: Instant, effects: list[Effect]) -> None:
        """Go on from a state whose commands this server did not see."""
        old, state = (
            self.state,
            decode_state(event.state, self._descriptor, max_clients=self.state.max_clients),
        )
        self.state = state
        self._round = _Round()
        self._last_open = now.monotonic
        self._asked.clear()
        effects.extend(self._clients.restore(state.registry))
        if state.descriptor.version != old.descriptor.version:
            effects.append(UseDescriptor(state.descriptor))
        effects.extend(
            EnforceRevocation(state.revocation_of(statement, ever=True), statement)
            for key, statement in state.revoked.items()
            if key not in old.revoked
        )
        closed = state.last_round if state.phase is Phase.IDLE else state.last_round - 1
        # In strides the chains can be moved by, since closings in between were not seen.
        stride = self._descriptor.params.max_skip_rounds
        closings = range(old.last_round + stride, closed, stride)
        effects.extend(StepChains(RoundNumber(number)) for number in (*closings, closed) if number)
        if state.next_sequence > self._stored:
            effects.append(CatchUpRecords(state.next_sequence))
            self._stored = state.next_sequence
        self._take_early()

    def _store(self, sealed: RoundSealed, effects: list[Effect]) -> None:
        if sealed.sequence == self._stored:
            effects.append(StoreRecord(sealed))
        else:
            effects.append(CatchUpRecords(sealed.sequence + 1))
        self._stored = sealed.sequence + 1

    # -- what arrives ----------------------------------------------------------------------

    def _on_aggregate(self, event: AggregateArrived) -> None:
        header = self.state.header
        if header is None or (event.round, event.header_hash) != (header.round, header.hash):
            if event.round > self.state.last_round:
                self._early.append(event)
            return
        chosen = self.state.chosen
        wanted = chosen is not None and chosen.aggregate == event.digest
        if wanted or len(self._round.aggregates) < _MAX_AGGREGATES:
            self._round.aggregates[event.digest] = event.participants

    def _take_early(self) -> None:
        """Look again at aggregates that were faster than the log that opens their round."""
        waiting = list(self._early)
        self._early.clear()
        for event in waiting:
            self._on_aggregate(event)

    def _on_partial(self, event: PartialArrived) -> None:
        if self.state.partials.get(event.server) == event.digest:
            self._round.partials[event.server] = event.digest

    def _on_unblinded(self, event: Unblinded | UnblindFailed, now: Instant) -> None:
        if event.round != self.state.last_round:
            return
        self._round.unblinding = False
        if isinstance(event, Unblinded):
            self._round.own_partial = event.partial
        else:
            # Ask again later: the registration may still be on its way to this server.
            self._asked["unblind", event.round] = now.monotonic + RETRY_S

    # -- the level-triggered look ----------------------------------------------------------

    def _look(self, now: Instant, effects: list[Effect]) -> None:
        signed = self.state.signed
        if self.state.phase is Phase.OPEN and signed is not None:
            # Also where this server was behind for the moment in which the log opened it.
            if signed.header.round != self._published:
                effects.append(PublishOpened(signed))
            self._published = signed.header.round
        self._look_at_kem(now, effects)
        self._look_at_registry(now, effects)
        self._look_at_given(now, effects)
        if self.state.phase is Phase.CHOSEN:
            self._look_chosen(now, effects)
        elif self.state.phase is Phase.REVEALED:
            self._look_revealed(now, effects)
        if self._leads:
            self._lead(now, effects)

    def _lead(self, now: Instant, effects: list[Effect]) -> None:
        view = LeaderView(
            now=now.monotonic,
            wall_ms=now.wall_ms,
            last_open=self._last_open,
            connected=self._connected,
            aggregates=self._round.aggregates,
            returning=self._returning[0],
            returning_since=self._returning[1],
        )
        decision = self._leader.decide(self.state, view)
        if isinstance(decision, RoundHeader):
            if self._due(now, "open", self.state.last_round):
                effects.append(OpenRoundWith(decision))
        elif decision is not None:
            self._propose(decision, now, effects)

    def _due(self, now: Instant, what: str, about: object) -> bool:
        """Tell whether to ask (again) for something, and note that it was asked."""
        if now.monotonic < self._asked.get((what, about), float("-inf")):
            return False
        self._asked[what, about] = now.monotonic + RETRY_S
        return True

    def _propose(self, command: Command, now: Instant, effects: list[Effect]) -> None:
        if self._due(now, "propose", command):
            effects.append(Propose(command))

    def _look_at_kem(self, now: Instant, effects: list[Effect]) -> None:
        newest = self._newest_kem()
        command, key = self._kem.command(newest), self._kem.due(newest, now)
        if command is not None:
            self._propose(command, now, effects)
        if key is not None:
            effects.append(key)

    def _newest_kem(self) -> int:
        announced = self.state.kem.get(self.server)
        return -1 if announced is None else announced.epoch

    def _look_at_registry(self, now: Instant, effects: list[Effect]) -> None:
        effects.extend(self._clients.take_new())
        for index in self._clients.to_retire(self.state.registry):
            self._propose(RetireClient(index), now, effects)

    def _look_at_given(self, now: Instant, effects: list[Effect]) -> None:
        """Rule 7."""
        given, current = self._given, self.state.descriptor
        if given is None or given.version != current.version + 1:
            return
        part = self.state.offers.next_part(self.server, given)
        if part is not None and given.descriptor.previous == current.descriptor.digest:
            self._propose(part, now, effects)

    def _look_chosen(self, now: Instant, effects: list[Effect]) -> None:
        own_posted = self.server in self.state.partials
        if not own_posted and self._round.own_partial is not None and self.state.chosen is not None:
            chosen = self.state.chosen
            command = PostPartial(chosen.round, chosen.aggregate, self._round.own_partial)
            self._propose(command, now, effects)
        elif not own_posted:
            self._release(now, effects)

    def _release(self, now: Instant, effects: list[Effect]) -> None:
        """Ask the guard, and unblind if it agrees (rule 2)."""
        chosen, header = self.state.chosen, self.state.header
        if chosen is None or header is None or self.server not in header.roster:
            return
        if self._round.unblinding or self._refused_round == header.round:
            return
        participants = self._round.aggregates.get(chosen.aggregate)
        if participants is None:
            self._fetch(chosen.aggregate, header.roster, now, effects)
            return
        if not self._due(now, "unblind", header.round):
            return
        if (participants.digest, len(participants)) != (chosen.participants, chosen.count):
            self._refuse(header.round, "other_participants", effects)
            return
        request = ReleaseRequest(header, header.round, header.hash, participants)
        decision = self._guard.decide(request, admitted=self.is_admitted)
        if isinstance(decision, RefusedRelease):
            if decision.reason != "not_admitted":
                self._refuse(header.round, decision.reason, effects)
            return
        # Remembered before it is durable: from here on a second set is refused whatever happens,
        # and the driver's order of effects keeps the release in until the journal has it.
        repeated = decision.round == self._guard.last_round
        self._guard.remember(decision)
        self._round.unblinding = True
        effects.append(KeepAggregate(header.round, chosen.aggregate))
        if not repeated:
            effects.append(PersistRelease(decision))
        effects.append(Unblind(header, chosen.aggregate, participants))

    def _refuse(self, round_number: RoundNumber, reason: str, effects: list[Effect]) -> None:
        self._refused_round = round_number
        effects.append(RefuseRelease(round_number, reason))

    def _look_revealed(self, now: Instant, effects: list[Effect]) -> None:
        header, chosen = self.state.header, self.state.chosen
        if header is None or chosen is None:
            return
        if self.server in header.roster:
            self._look_at_partials(header, chosen, now, effects)
            self._look_at_missing(header, now, effects)

    def _look_at_partials(
        self, header: RoundHeader, chosen: ChooseAggregate, now: Instant, effects: list[Effect]
    ) -> None:
        mine = self._round
        if mine.own_partial is None:
            # After a restart: the same release again, for the same participants. Where this server
            # has forgotten its keys, somebody else may still hold what it shared before.
            self._release(now, effects)
        elif not mine.shared:
            mine.shared = True
            mine.partials[self.server] = mine.own_partial
            effects.append(SharePartial(header.round, mine.own_partial))
        for server in header.roster:
            if server not in mine.partials:
                self._fetch(self.state.partials[server], (server, *header.roster), now, effects)
        if chosen.aggregate not in mine.aggregates:
            self._fetch(chosen.aggregate, header.roster, now, effects)
        elif len(mine.partials) == len(header.roster):
            self._sign(header, chosen, now, effects)

    def _missing_of(self, header: RoundHeader) -> tuple[ServerIndex, ...]:
        return tuple(s for s in header.roster if s not in self._round.partials)

    def _look_at_missing(self, header: RoundHeader, now: Instant, effects: list[Effect]) -> None:
        """Rule 6: say in the log which partials cannot be had."""
        if self.state.signatures or now.monotonic < self._last_open + self._deadline_s:
            return
        missing = self._missing_of(header)
        here = (server for server in self._connected if not self._is_out(server))
        hoped_for = set(here) - self.state.missed.keys()
        if missing and not hoped_for.intersection(missing):
            command = AbortRound(header.round, AbortReason.PARTIAL_WITHHELD, missing)
            if self.state.missed.get(self.server) != frozenset(missing):
                self._propose(command, now, effects)

    def _sign(
        self, header: RoundHeader, chosen: ChooseAggregate, now: Instant, effects: list[Effect]
    ) -> None:
        assembled = self._round.assembled
        if assembled is None:
            if self._due(now, "assemble", header.round):
                partials = tuple(self.state.partials[server] for server in header.roster)
                sequence = self.state.next_sequence
                effects.append(AssembleRecord(header, sequence, chosen.aggregate, partials))
        elif self.server not in self.state.signatures:
            command = SignRecord(
                header.round, assembled.record, assembled.schedule, assembled.signature
            )
            self._propose(command, now, effects)

    def _fetch(
        self,
        digest: Digest,
        holders: tuple[ServerIndex, ...],
        now: Instant,
        effects: list[Effect],
    ) -> None:
        others = tuple(dict.fromkeys(s for s in holders if s != self.server))
        if self._due(now, "fetch", digest):
            effects.append(Fetch(digest, others))

"""What the leading server decides: when to open, what to choose, when to give up (protocol.md §6).

Pure decisions over the replicated state and what the leader itself sees; the log, not the leader,
says what happens, and every other server guards itself against a bad one.

Rules:

1. A round opens one period after the last one did, for at least ``min_participants`` registered
   clients, with every server that is connected, if those are enough for the descriptor. One opens
   for fewer where clients were retired since the last: its header is how they learn of it.
2. An aggregate is chosen as soon as every root has sent one, or when the roots' time is up: the
   largest, if it is large enough.
3. A round is given up when its deadline passes before all partials are committed to, never after.
4. A version of the descriptor that was offered in full is adopted before another round opens. Where
   it retired everybody, the round after the one that tells them waits until as many are back, for
   one round's deadline: one for the few who are quickest would be given up.
5. Where the descriptor allows absences, a record is sealed at the deadline with what is signed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zipnet.machines.committee import Phase
from zipnet.protocol.command import (
    AbortReason,
    AbortRound,
    AdoptDescriptor,
    ChooseAggregate,
    Command,
    SealRecord,
)
from zipnet.protocol.header import RoundHeader
from zipnet.protocol.ids import RoundNumber, ServerIndex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zipnet.machines.committee import CommitteeState
    from zipnet.protocol.ids import Digest
    from zipnet.protocol.params import Cadence
    from zipnet.protocol.participants import Participants

__all__ = ["Leader", "LeaderView"]


@dataclass(frozen=True, slots=True)
class LeaderView:
    """What the leader alone sees.

    Attributes:
        now: Monotonic seconds.
        wall_ms: Milliseconds since 1970, for the header.
        last_open: When the last round opened, as ``now`` is counted.
        connected: Other servers with a live link.
        aggregates: Aggregates at hand for the open round.
        returning: Clients that were retired all at once and are expected back.
        returning_since: When that was, as ``now`` is counted.
    """

    now: float
    wall_ms: int
    last_open: float
    connected: frozenset[ServerIndex]
    aggregates: Mapping[Digest, Participants] = field(repr=False)
    returning: int = 0
    returning_since: float = float("-inf")


class Leader:
    """Decides for one server while it leads.

    Args:
        server: The server.
        cadence: Round period and deadlines.
        min_participants: Fewest clients to open or choose for.
    """

    def __init__(
        self,
        server: ServerIndex,
        cadence: Cadence,
        min_participants: int,
    ) -> None:
        self._server = server
        self._cadence = cadence
        self._min_participants = min_participants

    def decide(self, state: CommitteeState, view: LeaderView) -> Command | RoundHeader | None:
        """Return the command to propose, the header to open with, or None to wait."""
        match state.phase:
            case Phase.IDLE:
                return self._when_idle(state, view)
            case Phase.OPEN:
                return self._when_open(state, view)
            case Phase.CHOSEN if self._is_late(view):
                absent = tuple(s for s in _roster(state) if s not in state.partials)
                return AbortRound(state.last_round, AbortReason.PARTIAL_MISSING, absent)
            case Phase.REVEALED if self._is_late(view):
                enough = len(state.signatures) >= state.descriptor.required_signatures
                return SealRecord(state.last_round) if enough else None
        return None

    def _when_idle(self, state: CommitteeState, view: LeaderView) -> Command | RoundHeader | None:
        offered = state.offers.whole()
        if offered is not None:
            return AdoptDescriptor(offered.version, offered.descriptor.digest)
        early = view.now < view.last_open + self._cadence.round_period_ms / 1000
        waits = view.now < view.returning_since + self._cadence.round_deadline_ms / 1000
        wanted = max(self._min_participants, view.returning if waits else 0)
        few = state.registry.active_count < wanted
        # Whoever a new version retired hears of the version itself, and is back before a round in
        # which nobody could take part would tell them.
        told = not state.has_untold_retirements() or (waits and view.returning > 0)
        if early or (few and told):
            return None
        descriptor = state.descriptor
        everyone = range(len(descriptor.committee))
        here = (ServerIndex(i) for i in everyone if i == self._server or i in view.connected)
        roster = tuple(server for server in here if not state.is_revoked_server(server))
        if len(roster) < descriptor.required_signatures:
            return None
        return RoundHeader(
            group=descriptor.group,
            round=RoundNumber(state.last_round + 1),
            descriptor_version=descriptor.descriptor.version,
            previous_final=state.last_final,
            previous_record=state.last_record,
            schedule=state.schedule,
            registry_version=state.registry.version,
            registry_digest=state.registry.digest,
            roster=roster,
            opener=self._server,
            opened_at_ms=view.wall_ms,
        )

    def _when_open(self, state: CommitteeState, view: LeaderView) -> Command | None:
        time_is_up = view.now >= view.last_open + self._roots_deadline_s
        found = view.aggregates.items()
        best = max(found, key=lambda item: (len(item[1]), item[0]), default=None)
        if best is None:
            why = AbortReason.NO_AGGREGATE
            return AbortRound(state.last_round, why, ()) if time_is_up else None
        roots = sum(1 for e in state.descriptor.descriptor.aggregators if e.parent is None)
        if not time_is_up and len(view.aggregates) < roots:
            return None
        digest, participants = best
        if len(participants) < self._min_participants:
            return AbortRound(state.last_round, AbortReason.BELOW_MINIMUM, ())
        count = len(participants)
        return ChooseAggregate(state.last_round, digest, participants.digest, count)

    @property
    def _roots_deadline_s(self) -> float:
        """From opening to giving up on the roots: the fold deadline and half the slack after it."""
        cadence = self._cadence
        slack = cadence.round_deadline_ms - cadence.fold_deadline_ms
        return (cadence.fold_deadline_ms + slack / 2) / 1000

    def _is_late(self, view: LeaderView) -> bool:
        return view.now >= view.last_open + self._cadence.round_deadline_ms / 1000


def _roster(state: CommitteeState) -> tuple[ServerIndex, ...]:
    return () if state.header is None else state.header.roster

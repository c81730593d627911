"""One member's Raft state: PySyncObj's, with what is unsafe or unused in it replaced.

The library keeps: election timers and campaigns, vote granting, the commit rule, forwarding of
commands to the leader, and the order of a tick. Replaced, by overriding its private methods (the
names are checked at every start, see :mod:`zipnet.consensus.quarantine`):

* *Receiving entries.* The library drops its log after ``prev_index`` even when what follows is
  the same; a crash before the rewrite, or a repeated old message, then loses entries it had
  confirmed. Here entries are dropped on a conflict only, never below the commit index, and the
  commit index moves no further than what this very message confirmed (Raft, figure 2).
* *Answers to the leader.* The library's carry no term, so one sent under an earlier leadership
  counts as a confirmation now. Here the term is in it, and a newer term makes the leader step down.
* *Votes.* The library counts messages, not voters; here a member counts once per term.
* *Requests.* Ids start at a random number, so an answer meant for an earlier life of this member
  cannot confirm a command of this one. A request names the term it was meant for, and a repeated
  one is put into the log once.
* *Sending entries.* Bounded batches, no pickled big ones; a follower that diverged says where it
  agrees instead of being searched for, which the library may never finish.
* *Snapshots and members.* The library's own pickle, and count any member's word for the one that
  took its seat; see :mod:`zipnet.consensus.shipping` and :mod:`zipnet.consensus.members`.
* *Commands.* Opaque bytes; applying one appends it to a list and so cannot raise.

Driving it: ``receive`` and ``tick`` change state and collect output; then the owner makes
``log.take_staged()`` durable, and only then sends ``outbox``, resolves ``outcomes`` and hands out
``applied``. Nothing here waits, sends or reads a clock of its own.

Long because the library's state is private to one class, and so is what corrects it.
"""

from __future__ import annotations

import queue
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from pysyncobj.config import FAIL_REASON
from pysyncobj.node import Node
from pysyncobj.syncobj import SyncObj

from zipnet.consensus.entries import read_entry, written_entry
from zipnet.consensus.members import Snapshot, decode_members, decode_snapshot
from zipnet.consensus.messages import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ENTRIES,
    AppendEntries,
    AppendReply,
    Entry,
    InstallReply,
    InstallSnapshot,
    Message,
    RequestVote,
    Submit,
    SubmitReply,
    Vote,
)
from zipnet.consensus.peers import GatedQueue, Peers, to_library
from zipnet.consensus.quarantine import OVERRIDDEN, quarantine, self_test, under_clock
from zipnet.consensus.raftlog import MEMBERS, REGULAR, DurableLog, LogEntry
from zipnet.consensus.shipping import Arrival, Shipment
from zipnet.consensus.timing import Timing, library_conf
from zipnet.errors import GuardError, StorageError

__all__ = ["MAX_UNCOMMITTED", "RaftMember"]

quarantine()

#: Entries a leader keeps in flight; more wait in its queue (see docs/decisions/0002).
MAX_UNCOMMITTED: Final = 4
_REMEMBERED_REQUESTS: Final = 256
_FOLLOWER, _LEADER = 0, 2


class RaftMember(SyncObj):  # type: ignore[misc]  # the library has no types
    """One member of a committee.

    Args:
        server: Seat of this member, below ``size``.
        member: Its id.
        size: Number of seats.
        log: Its log, already replayed.
        timing: Time-outs.
        clock: Monotonic seconds; the only clock ever read.
        rng: Source of election jitter and of the first request id.

    Attributes:
        outbox: ``(server, message)`` in sending order, to be sent once staged records are durable.
        applied: Commands committed since last taken, in order, likewise; a snapshot stands for
            all commands before it.
        outcomes: ``(callback, failure)`` of submissions decided since last taken, likewise.
        refused: Messages dropped because no sound member sends them.
    """

    _SyncObj__raftLog: DurableLog
    _SyncObj__raftState: int
    _SyncObj__raftCurrentTerm: int
    _SyncObj__raftCommitIndex: int
    _SyncObj__raftLastApplied: int
    _SyncObj__raftLeader: Node | None
    _SyncObj__raftElectionDeadline: float
    _SyncObj__raftNextIndex: dict[Node, int]
    _SyncObj__raftMatchIndex: dict[Node, int]
    _SyncObj__connectedNodes: set[Node]
    _SyncObj__otherNodes: set[Node]
    _SyncObj__lastResponseTime: dict[Node, float]
    _SyncObj__commandsWaitingCommit: dict[int, list[tuple[int, Callable[[object, int], None]]]]
    _SyncObj__leaderCommitIndex: int | None
    _SyncObj__noopIDx: int
    _SyncObj__newAppendEntriesTime: float
    _SyncObj__commandsQueue: GatedQueue

    def __init__(
        self,
        *,
        server: int,
        member: int,
        size: int,
        log: DurableLog,
        timing: Timing,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.server = server
        self.member = member
        self.outbox: list[tuple[int, Message]] = []
        self.applied: list[bytes | Snapshot] = []
        self.outcomes: list[tuple[Callable[[int], None], int]] = []
        self.refused = 0
        self.log = log
        self._clock = clock
        self._rng = rng
        self._timing = timing
        self._members = {index: Node(index) for index in range(size)}
        self._votes: set[int] = set()
        self._votes_term = -1
        self._seen: dict[int, OrderedDict[int, None]] = {i: OrderedDict() for i in range(size)}
        self._shipments: dict[int, Shipment] = {}
        self._arrival: Arrival | None = None
        self._wanted: tuple[int, ...] | None = None
        others = [node for index, node in self._members.items() if index != server]
        with under_clock(clock):
            peers = Peers(self._send, self._term)
            super().__init__(self._members[server], others, library_conf(timing), transport=peers)
        self._adopt(log)

    def _adopt(self, log: DurableLog) -> None:
        # The constructor made an empty log in memory; nothing has happened on it yet.
        self._SyncObj__raftLog = log
        self._SyncObj__raftCurrentTerm = max(log.getCurrentTerm(), self._last()[2])
        self._SyncObj__votedForNodeId = log.getVotedForNodeId()
        self._SyncObj__raftCommitIndex = log.getRaftCommitIndex()
        self._SyncObj__raftLastApplied = log.first
        if log.snapshot is not None:
            self.applied.append(log.snapshot)
        self._adopt_members()
        self._SyncObj__commandsQueue = GatedQueue(self.has_room)
        self._SyncObj__commandsLocalCounter = self._rng.getrandbits(60)
        # Off only while constructing, when it would open a pipe to wake a thread we do not have.
        self.conf.appendEntriesUseBatch = False

    # ---- what the owner calls ------------------------------------------------------------------

    def self_test(self) -> None:
        """Prove that no pickle can be reached.

        Raises:
            GuardError: It can, or the library is not the examined one.
        """
        self_test(type(self), OVERRIDDEN)

    def link(self, server: int, *, up: bool) -> None:
        """Note that the link to another member came up or went down."""
        node = self._members[server]
        connected = self._SyncObj__connectedNodes
        if up:
            connected.add(node)
            return
        connected.discard(node)
        if self._SyncObj__raftLeader in (node, None):
            # Answers still owed by that leader were lost with the link; their fate is not known.
            self._SyncObj__onLeaderChanged()

    def receive(self, server: int, sender: int, message: Message) -> None:
        """Process one message of the member ``sender`` that sits, or sat, in another seat."""
        # Whose going is not committed yet may still lead, and end that change.
        settled = self.log.members_at(max(self._SyncObj__raftCommitIndex, self.log.first))
        if sender == settled.seats[server].previous:
            return
        seat = self.log.members().seats[server]
        leads = isinstance(message, AppendEntries | InstallSnapshot | RequestVote)
        if not leads and (sender != seat.member or not seat.votes):
            return
        with under_clock(self._clock):
            self._on_message(self._members[server], message)

    def tick(self) -> None:
        """Do what time and earlier messages demand. Call after every ``receive`` and on time."""
        with under_clock(self._clock):
            self._onTick(0.0)
            self._change_members()

    def want_members(self, wanted: tuple[int, ...] | None) -> None:
        """Replace members, one seat after the other, whenever this member leads, until these sit.

        A leader that is to be replaced itself changes nothing: its place has to be taken first.
        """
        self._wanted = wanted

    def compact(self, commands: int, state: bytes) -> bool:
        """Let ``state`` stand for the first ``commands`` commands; False where that must wait."""
        return self.log.compact(commands, state)

    def submit(self, command: bytes, done: Callable[[int], None]) -> None:
        """Queue a command; ``done`` gets one of the library's failure reasons, 0 for committed."""

        def note(_result: object, failure: int) -> None:
            self.outcomes.append((done, failure))

        self._applyCommand(command, note, REGULAR[0])

    def has_room(self) -> bool:
        """Whether a leader may put another entry into its log now (always true otherwise)."""
        if self._SyncObj__raftState != _LEADER:
            return True
        return self._last()[1] - self._SyncObj__raftCommitIndex < MAX_UNCOMMITTED

    def wants_tick(self) -> bool:
        """Whether another tick has something to do without any message or time passing."""
        alone = not self._SyncObj__otherNodes and self._isLeader()
        if alone and self._SyncObj__raftCommitIndex < self._last()[1]:
            return True
        return len(self._SyncObj__commandsQueue) > 0 and self.has_room()

    def due(self) -> float:
        """When the next tick is due by time, in the clock's seconds."""
        if self._SyncObj__raftState == _LEADER:
            return self._SyncObj__newAppendEntriesTime
        if not self._SyncObj__connectedToAnyone():
            return self._clock() + self._timing.election_min_s
        return self._SyncObj__raftElectionDeadline

    def leader(self) -> int | None:
        """Index of the member believed to lead."""
        node = self._SyncObj__raftLeader
        return None if node is None else int(node.id)

    def is_seated(self) -> bool:
        """Whether a committed entry, or the founding, has this member in its seat, voting."""
        seat = self.log.members_at(max(self._SyncObj__raftCommitIndex, self.log.first)).seats
        return seat[self.server].member == self.member and seat[self.server].votes

    def caught_up(self) -> bool:
        """Whether everything a leader said is committed has been applied."""
        known = self._SyncObj__leaderCommitIndex
        applied = self._SyncObj__raftLastApplied
        if self._SyncObj__raftState == _LEADER and applied < self._SyncObj__noopIDx:
            return False
        return known is not None and applied >= known

    # ---- messages ------------------------------------------------------------------------------

    def _on_message(self, node: Node, message: Message) -> None:
        match message:
            case AppendEntries():
                self._on_append(node, message)
            case AppendReply():
                self._on_append_reply(node, message)
            case Vote():
                self._on_vote(node, message)
            case Submit():
                self._on_submit(node, message)
            case InstallSnapshot():
                self._on_install(node, message)
            case InstallReply():
                self._on_install_reply(node, message)
            case RequestVote() | SubmitReply():
                self._SyncObj__onMessageReceived(node, to_library(message))

    def _on_vote(self, node: Node, message: Vote) -> None:
        if message.term != self._term():
            return
        if message.term != self._votes_term:
            self._votes_term, self._votes = message.term, set()
        if node.id not in self._votes:
            self._votes.add(node.id)
            self._SyncObj__onMessageReceived(node, {"type": "response_vote", "term": message.term})

    def _on_submit(self, node: Node, message: Submit) -> None:
        seen = self._seen[node.id]
        # An old request may be a repeated one, accepted long ago: neither accept nor refuse it.
        if message.request_id in seen or message.term != self._term():
            return
        seen[message.request_id] = None
        if len(seen) > _REMEMBERED_REQUESTS:
            seen.popitem(last=False)
        request = {
            "type": "apply_command",
            "command": REGULAR + message.command,
            "request_id": message.request_id,
        }
        self._SyncObj__onMessageReceived(node, request)

    def _on_append(self, leader: Node, message: AppendEntries) -> None:
        if message.term < self._term():
            self._reply(leader, self._last()[1] + 1, success=False)
            return
        if message.term == self._term() and self._SyncObj__raftState == _LEADER:
            self.refused += 1
            return
        self._follow(leader, message)
        agreed = self._agreement(message)
        if agreed is not None and message.prev_index <= self._SyncObj__raftCommitIndex:
            # A committed entry is disputed: somebody's disk lied. Answering would go on for ever.
            self.refused += 1
            return
        if agreed is not None:
            self._reply(leader, agreed, success=False)
            return
        if not self._store(message):
            self.refused += 1
            return
        confirmed = message.prev_index + len(message.entries)
        self._reply(leader, confirmed + 1, success=True)
        commit = min(message.commit_index, confirmed)
        if commit > self._SyncObj__raftCommitIndex:
            self._SyncObj__raftCommitIndex = commit
            self.log.setRaftCommitIndex(commit)

    def _follow(self, leader: Node, message: AppendEntries | InstallSnapshot) -> None:
        self._SyncObj__raftElectionDeadline = self._clock() + self._timeout()
        if message.term > self._term() or self._SyncObj__raftLeader != leader:
            self._SyncObj__onLeaderChanged()
        if message.term > self._term():
            self._SyncObj__setCurrentTerm(message.term, None)
        self._SyncObj__raftLeader = leader
        self._SyncObj__setState(_FOLLOWER)
        if isinstance(message, AppendEntries):
            self._SyncObj__leaderCommitIndex = message.commit_index

    def _agreement(self, message: AppendEntries) -> int | None:
        """Where the leader should go on from instead, or None when ``prev`` matches."""
        last = self._last()[1]
        if message.prev_index > last:
            return last + 1
        if message.prev_index < self.log.first:
            return None  # committed long ago, here and there
        term = self.log.term_at(message.prev_index)
        if term == message.prev_term:
            return None
        index = message.prev_index
        floor = self._SyncObj__raftCommitIndex + 1
        while index > floor and self.log.term_at(index - 1) == term:
            index -= 1
        return max(index, floor)

    def _store(self, message: AppendEntries) -> bool:
        """Append what is new; drop what conflicts.

        False, and nothing done, where a committed entry would go or members do not parse.
        """
        if not all(self._is_sound(entry) for entry in message.entries):
            return False
        for index, entry in enumerate(message.entries, start=message.prev_index + 1):
            if index <= self._last()[1]:
                if index < self.log.first or self.log.term_at(index) == entry.term:
                    continue
                if index <= self._SyncObj__raftCommitIndex:
                    return False
                self.log.drop_from(index)
            self.log.add(written_entry(entry), index, entry.term)
        self._adopt_members()
        return True

    def _is_sound(self, entry: Entry) -> bool:
        try:
            return entry.members is None or bool(
                decode_members(entry.members, size=len(self._members))
            )
        except StorageError:
            return False

    def _on_append_reply(self, node: Node, message: AppendReply) -> None:
        if not self._is_answer(message.term):
            return
        last = self._last()[1]
        if message.next_index > last + 1:
            self.refused += 1
            return
        self._SyncObj__lastResponseTime[node] = self._clock()
        next_index = self._SyncObj__raftNextIndex
        if message.success:
            match = self._SyncObj__raftMatchIndex
            match[node] = max(match[node], message.next_index - 1)
            next_index[node] = max(next_index[node], message.next_index)
        else:
            next_index[node] = max(2, message.next_index)
        if next_index[node] <= last:
            self._send_entries(node)

    def _is_answer(self, term: int) -> bool:
        """Whether an answer given in ``term`` is one to this leadership; a newer term ends it."""
        if term > self._term():
            self._SyncObj__setCurrentTerm(term, None)
            self._SyncObj__setState(_FOLLOWER)
            self._SyncObj__raftLeader = None
            return False
        return self._SyncObj__raftState == _LEADER and term == self._term()

    # ---- snapshots -----------------------------------------------------------------------------

    def _ship(self, node: Node) -> None:
        """Send a follower that is too far behind the next piece, unless it was just sent."""
        snapshot = self.log.snapshot
        assert snapshot is not None, "entries are forgotten for a snapshot only"
        shipment = self._shipments.get(node.id)
        if shipment is None or (shipment.index != snapshot.index and shipment.is_over()):
            shipment = self._shipments[node.id] = Shipment(snapshot)
        if self._clock() - shipment.sent_at >= self._timing.heartbeat_s:
            self._send(node, shipment.piece(self._term(), self._clock()))

    def _on_install_reply(self, node: Node, message: InstallReply) -> None:
        if not self._is_answer(message.term):
            return
        self._SyncObj__lastResponseTime[node] = self._clock()
        shipment = self._shipments.get(node.id)
        if shipment is not None and shipment.advance(message.index, message.offset):
            self._send(node, shipment.piece(self._term(), self._clock()))

    def _on_install(self, leader: Node, message: InstallSnapshot) -> None:
        if message.term < self._term() or (
            message.term == self._term() and self._SyncObj__raftState == _LEADER
        ):
            self._reply(leader, self._last()[1] + 1, success=False)
            return
        self._follow(leader, message)
        if message.index <= self._SyncObj__raftCommitIndex:
            self._reply(leader, message.index + 1, success=True)
            return
        if self._arrival is None or self._arrival.digest != message.digest:
            self._arrival = Arrival(message)
        data = self._arrival.take(message)
        if data is None:
            held = self._arrival.held
            self._send(leader, InstallReply(self._term(), message.index, held))
            return
        self._arrival = None
        self._install(leader, message.index, data)

    def _install(self, leader: Node, index: int, data: bytes) -> None:
        try:
            snapshot = decode_snapshot(data, size=len(self._members))
        except StorageError:
            self.refused += 1
            return
        if snapshot.index != index:
            self.refused += 1
            return
        if index <= self._last()[1] and self.log.term_at(index) == snapshot.term:
            # What follows here was perhaps confirmed, and committed for it: it stays.
            self._SyncObj__raftCommitIndex = index
            self.log.setRaftCommitIndex(index)
            self._reply(leader, index + 1, success=True)
            return
        self.log.install(snapshot)
        self._adopt_members()
        self._SyncObj__raftCommitIndex = index
        self._SyncObj__raftLastApplied = index
        self.applied.append(snapshot)
        # What waited for an entry the snapshot stands for may or may not be in it.
        waiting = self._SyncObj__commandsWaitingCommit
        for position in [at for at in waiting if at <= index]:
            for _, callback in waiting.pop(position):
                callback(None, FAIL_REASON.UNKNOWN_OUTCOME)
        self._reply(leader, index + 1, success=True)

    # ---- members -------------------------------------------------------------------------------

    def _is_voter(self) -> bool:
        seat = self.log.members().seats[self.server]
        return seat.votes and seat.member == self.member

    def _adopt_members(self) -> None:
        """Let the library count exactly the members in force."""
        voters = self.log.members().voters() - {self.server}
        others = {self._members[index] for index in voters}
        if others == self._SyncObj__otherNodes:
            return
        for node in others - self._SyncObj__otherNodes:
            self._SyncObj__raftNextIndex[node] = self._last()[1] + 1
            self._SyncObj__raftMatchIndex[node] = 0
            self._SyncObj__lastResponseTime[node] = self._clock()
            self._shipments.pop(node.id, None)
        self._SyncObj__otherNodes = others

    def _change_members(self) -> None:
        """As a leader, put the next change into the log once the one before is committed."""
        if self._wanted is None or self._SyncObj__raftState != _LEADER:
            return
        settled = max(self.log.members_index(), self._SyncObj__noopIDx)
        if self._SyncObj__raftCommitIndex < settled or not self.has_room():
            return
        changed = self.log.members().next_towards(self._wanted, keep=self.server)
        if changed is not None:
            self.log.add(MEMBERS + changed.encode(), self._last()[1] + 1, self._term())
            self._adopt_members()
            self._SyncObj__sendAppendEntries()

    # ---- sending -------------------------------------------------------------------------------

    def _send(self, node: Node, message: Message) -> None:
        self.outbox.append((node.id, message))

    def _reply(self, leader: Node, next_index: int, *, success: bool) -> None:
        self._send(leader, AppendReply(self._term(), next_index, success))

    def _send_entries(self, node: Node) -> None:
        next_index = self._SyncObj__raftNextIndex[node]
        if next_index <= self.log.first:
            self._ship(node)
            return
        entries: list[Entry] = []
        size = 0
        for command, _, term in self.log.batch(next_index, MAX_BATCH_ENTRIES):
            entries.append(read_entry(command, term))
            size += len(command)
            if size >= MAX_BATCH_BYTES:
                break
        # Sent on trust that it arrives; if it does not, the follower's next answer corrects this.
        self._SyncObj__raftNextIndex[node] = next_index + len(entries)
        previous = next_index - 1
        message = AppendEntries(
            self._term(),
            previous,
            self.log.term_at(previous),
            self._SyncObj__raftCommitIndex,
            entries,
        )
        self._send(node, message)

    def _term(self) -> int:
        return self._SyncObj__raftCurrentTerm

    def _timeout(self) -> float:
        return self._rng.uniform(self._timing.election_min_s, self._timing.election_max_s)

    def _last(self) -> LogEntry:
        return self._SyncObj__raftLog[-1]

    # ---- the library's methods, replaced -------------------------------------------------------

    def _applyCommand(  # noqa: N802 - the library's name
        self,
        command: bytes,
        callback: object,
        commandType: int | None = None,  # noqa: N803
    ) -> None:
        """Queue a command; a remote one already carries its type byte."""
        item = command if commandType is None else bytes([commandType]) + command
        if item[:1] != REGULAR:
            raise GuardError("a command of a type that is not allowed")
        try:
            self._SyncObj__commandsQueue.put_nowait((item, callback))
        except queue.Full:
            self._SyncObj__callErrCallback(FAIL_REASON.QUEUE_FULL, callback)

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:  # noqa: N802
        if command[:1] == REGULAR:
            self.applied.append(command[1:])

    def _SyncObj__generateRaftTimeout(self) -> float:  # noqa: N802
        return self._timeout()

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        self._SyncObj__newAppendEntriesTime = self._clock() + self._timing.heartbeat_s
        reachable = self._SyncObj__connectedNodes & self._SyncObj__otherNodes
        for node in self._members.values():
            if node in reachable:
                self._send_entries(node)

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802
        """Whether to stand for election: only who votes may, and only where somebody may answer."""
        others = self._SyncObj__otherNodes
        return self._is_voter() and (not others or bool(others & self._SyncObj__connectedNodes))

    def _SyncObj__sendNextNodeIdx(self, *_: object, **__: object) -> None:  # noqa: N802
        raise GuardError("an answer without a term was about to be sent")

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        """Do nothing: the log is not compacted, and the library would pickle to do it."""

    def _SyncObj__loadDumpFile(self, *_: object, **__: object) -> None:  # noqa: N802
        raise GuardError("a snapshot of the library's own kind was about to be opened")

    def _SyncObj__doChangeCluster(self, *_: object, **__: object) -> bool:  # noqa: N802
        raise GuardError("the committee was about to be changed through the consensus library")

    def _SyncObj__parseChangeClusterRequest(self, *_: object) -> None:  # noqa: N802
        """Find no membership change in any command: ours come into the log another way."""

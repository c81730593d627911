"""The embedded consensus engine: Raft inside the node's process, over the node's own links.

Implements :class:`zipnet.ports.Consensus` with :class:`~zipnet.consensus.raft.RaftMember`. One task
owns the member and repeats one step: take what arrived, tick, make the changes durable, then — and
only then — send, resolve proposals and hand out commands. So a vote, a confirmation or a command
is never seen by anybody before it is on the disk.

Rules:

1. The fsync runs in a thread of the engine's own, so the event loop goes on meanwhile; the engine
   does not: what arrives waits for the next step. A disk slower than the election time-out makes a
   leader lose its office, which is as it should be. Entries that arrive together share one fsync.
2. The engine opens no socket, file or pipe. Its journal is opened, and closed after :meth:`stop`,
   by its owner.
3. A command that certainly did not enter the log is offered again until the time-out; one whose
   fate is not known is not, and :meth:`EmbeddedConsensus.propose` says so.
4. When the journal fails the engine falls silent for good, and ``batches`` raises the
   :class:`~zipnet.errors.SafeMode` that ended it.
5. The inbox is bounded: what does not fit is dropped, as the network may do too.
6. ``batches`` has one consumer. What it has not taken yet waits in memory; those bytes are part
   of the log in memory anyway.
7. A state given to :meth:`EmbeddedConsensus.compact` is written by the next step, which then has to
   wait for it like for any other write; a newer one given before that takes its place.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final

from pysyncobj.config import FAIL_REASON

from zipnet.consensus.members import MAX_STATE_BYTES, Members, Snapshot
from zipnet.consensus.messages import MAX_COMMAND_BYTES, Message, decode_message, encode_message
from zipnet.consensus.raft import MAX_UNCOMMITTED, RaftMember
from zipnet.consensus.raftlog import DurableLog
from zipnet.consensus.timing import Timing
from zipnet.errors import ConfigError, ConsensusError, LocalProtocolError, RemoteProtocolError
from zipnet.ports import (
    CommittedCommand,
    CommittedSnapshot,
    CompactingJournal,
    ConsensusMesh,
)

__all__ = ["COMMITTEE_SIZES", "EmbeddedConsensus", "EngineStatus", "RunBlocking"]

#: Sizes a committee may have. One is for tests and trials: it survives nothing.
COMMITTEE_SIZES: Final = range(1, 17)

#: Runs a blocking call somewhere and returns when it has ended.
RunBlocking = Callable[[Callable[[], None]], Awaitable[None]]

_INBOX_MESSAGES: Final = 1024
_STEP_MESSAGES: Final = 64
_RETRY_PAUSE_S: Final = 0.02
#: The library compares times strictly; a tick on the very instant would do nothing.
_AFTER_DUE_S: Final = 0.001
#: Failures after which the command is certainly not in the log and never will be.
_NOT_ACCEPTED: Final = frozenset(
    {
        FAIL_REASON.QUEUE_FULL,
        FAIL_REASON.MISSING_LEADER,
        FAIL_REASON.NOT_LEADER,
        FAIL_REASON.REQUEST_DENIED,
        FAIL_REASON.DISCARDED,
    }
)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What the engine shows of itself, for metrics and health.

    Attributes:
        term: Current Raft term.
        leader: Index of the member believed to lead, if any.
        log_entries: Entries in memory, no-ops included.
        commit_index: Index of the last one committed, counted from the beginning of time.
        snapshot_index: Index the newest snapshot ends at, 0 before the first.
        voters: Seats whose members count.
        refused: Messages dropped because no sound member sends them.
        dropped: Messages dropped because the inbox was full.
    """

    term: int
    leader: int | None
    log_entries: int
    commit_index: int
    snapshot_index: int
    voters: frozenset[int]
    refused: int
    dropped: int


class EmbeddedConsensus:
    """Consensus among a committee. Implements :class:`zipnet.ports.Consensus`.

    Args:
        server: Seat of this member, from 0.
        size: Number of seats, one of :data:`COMMITTEE_SIZES`.
        journal: An open journal of this engine's own.
        mesh: How messages reach the other members.
        timing: Time-outs; the default suits LAN and WAN with round trips below 100 ms.
        clock: Monotonic seconds; the running loop's own by default.
        rng: Election jitter; system randomness by default.
        run_blocking: Where the fsync runs; a thread of the engine's own by default.
        members: Member id of each seat, 64 bits, as this member was told them; the seats' numbers
            by default. Once the log names members, only those count.
        joining: This member takes another's seat: it neither votes for itself nor leads before the
            committee let it in. Of no effect once it has a log.

    Raises:
        ConfigError: ``size`` is not allowed, ``server`` is not below it, the timing contradicts
            itself, or the journal is another member's.
        StorageError: The journal holds a malformed record.
        GuardError: The self-test found a way to reach a pickle.
    """

    #: What the engine is made of; the conformance suite puts broken parts here.
    _member_type: ClassVar[type[RaftMember]] = RaftMember
    _log_type: ClassVar[type[DurableLog]] = DurableLog

    def __init__(  # noqa: PLR0913 - composition: one argument for each neighbour
        self,
        *,
        server: int,
        size: int,
        journal: CompactingJournal,
        mesh: ConsensusMesh,
        timing: Timing | None = None,
        clock: Callable[[], float] | None = None,
        rng: random.Random | None = None,
        run_blocking: RunBlocking | None = None,
        members: Sequence[int] | None = None,
        joining: bool = False,
    ) -> None:
        ids = tuple(range(size)) if members is None else tuple(members)
        if size not in COMMITTEE_SIZES or not 0 <= server < size or len(set(ids)) != size:
            raise ConfigError(
                f"server {server} of {size} is no place in a committee",
                hint=f"a committee has 1 to {COMMITTEE_SIZES.stop - 1} servers, numbered from 0",
            )
        self._timing = timing or Timing()
        _check_timing(self._timing)
        self._server = server
        self._size = size
        self._mesh = mesh
        self._clock = clock or _loop_time
        self._pool: ThreadPoolExecutor | None = None
        self._run_blocking = run_blocking or self._in_thread
        founding = Members.awaiting(ids) if joining else Members.founding(ids)
        self._compaction: tuple[int, bytes] | None = None
        self._member = self._member_type(
            server=server,
            member=ids[server],
            size=size,
            log=self._log_type(journal, server=server, founding=founding),
            timing=self._timing,
            clock=self._now,
            rng=rng or random.SystemRandom(),
        )
        self._member.self_test()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._inbox: deque[tuple[int, tuple[int, Message] | bool]] = deque()
        self._dropped = 0
        self._wake = asyncio.Event()
        self._leader_known = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_UNCOMMITTED)
        self._pending: set[asyncio.Future[int]] = set()
        self._handed_out = 0
        self._ready: deque[Sequence[CommittedCommand | CommittedSnapshot]] = deque()
        self._ready_changed = asyncio.Event()

    async def start(self) -> None:
        """Begin taking part. The log is replayed through :meth:`batches` as it becomes known."""
        for server in sorted(self._mesh.connected()):
            self.link_changed(server, up=True)
        self._task = asyncio.create_task(self._run(), name=f"consensus-{self._server}")

    async def stop(self) -> None:
        """Stop after the step under way. Idempotent; the journal may be closed afterwards."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        """Return once ``command`` is committed.

        At most four proposals of one member are under way; others wait their turn within
        ``timeout_s``.

        Raises:
            ConsensusError: It was not accepted in time, or its fate is not known.
            LocalProtocolError: It is larger than :data:`MAX_COMMAND_BYTES`.
        """
        if len(command) > MAX_COMMAND_BYTES:
            raise LocalProtocolError(f"a command of {len(command)} bytes is too large")
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                await self._offer(command)
        except TimeoutError as error:
            raise ConsensusError("a command was not known to be committed in time") from error

    async def batches(self) -> AsyncIterator[Sequence[CommittedCommand | CommittedSnapshot]]:
        """Yield committed commands, one tuple per step in which some became known.

        A snapshot comes first after a start from one, and wherever a leader had to send one.

        Raises:
            SafeMode: The journal failed, which ended the engine.
        """
        while True:
            while self._ready:
                yield self._ready.popleft()
            if self._has_ended():
                break
            self._ready_changed.clear()
            await self._ready_changed.wait()
        if self._task is not None and not self._task.cancelled():
            failure = self._task.exception()
            if failure is not None:
                raise failure

    def compact(self, index: int, state: bytes) -> None:
        """Let ``state`` stand for all commands up to ``index``, which were handed out.

        Raises:
            LocalProtocolError: The state is larger than
                :data:`~zipnet.consensus.members.MAX_STATE_BYTES`, or ``index`` was not handed out.
        """
        if len(state) > MAX_STATE_BYTES or not 0 < index <= self._handed_out:
            raise LocalProtocolError("a snapshot too large, or of commands not handed out")
        self._compaction = index, state
        self._wake.set()

    def want_no_change(self) -> None:
        """Take back what :meth:`want_members` asked for, as far as it has not begun."""
        self._member.want_members(None)

    def want_members(self, ids: Sequence[int]) -> None:
        """Ask that the members with these ids sit in the committee, seat by seat.

        Every member may be told; whoever leads acts on it, one seat at a time, each change
        committed before the next. What is wanted is forgotten at a restart.

        Raises:
            LocalProtocolError: There is not one distinct id for each seat.
        """
        wanted = tuple(ids)
        if len(wanted) != self._size or len(set(wanted)) != self._size:
            raise LocalProtocolError("members wanted do not fit the committee's seats")
        self._member.want_members(wanted)
        self._wake.set()

    def receive(self, server: int, message: bytes) -> None:
        """Take one message of member ``server``; the caller has authenticated it.

        Raises:
            RemoteProtocolError: The bytes are no message, or ``server`` is no other member.
        """
        if not 0 <= server < self._size or server == self._server:
            raise RemoteProtocolError("a consensus message from outside the committee")
        parsed = decode_message(message)
        if len(self._inbox) >= _INBOX_MESSAGES:
            self._dropped += 1
            return
        self._inbox.append((server, parsed))
        self._wake.set()

    def link_changed(self, server: int, *, up: bool) -> None:
        """Note that the link to member ``server`` came up or went down."""
        self._inbox.append((server, up))
        self._wake.set()

    def leader(self) -> int | None:
        """Index of the member believed to lead now, if any."""
        return self._member.leader()

    def caught_up(self) -> bool:
        """Whether everything known to be committed has been handed out by :meth:`batches`."""
        return not self._ready and not self._member.applied and self._member.caught_up()

    def is_blank(self) -> bool:
        """Whether the log holds nothing but its founding."""
        log = self._member.log
        return log.snapshot is None and len(log) <= 1

    def is_seated(self) -> bool:
        """Whether this member is in the committee, as far as is committed."""
        return self._member.is_seated()

    def members(self) -> tuple[int, ...]:
        """Id of the member in each seat, as the newest entry of the log says."""
        return tuple(seat.member for seat in self._member.log.members().seats)

    def status(self) -> EngineStatus:
        """Return what the engine shows of itself."""
        member = self._member
        return EngineStatus(
            term=member.raftCurrentTerm,
            leader=member.leader(),
            log_entries=len(member.log),
            commit_index=member.raftCommitIndex,
            snapshot_index=0 if member.log.snapshot is None else member.log.snapshot.index,
            voters=member.log.members().voters(),
            refused=member.refused,
            dropped=self._dropped,
        )

    async def _run(self) -> None:
        try:
            while not self._stopping:
                await self._wait()
                self._take_inbox()
                self._member.tick()
                self._compact()
                await self._settle()
        finally:
            self._stopping = True
            self._ready_changed.set()
            self._leader_known.set()
            for future in self._pending:
                if not future.done():
                    future.set_result(FAIL_REASON.UNKNOWN_OUTCOME)

    async def _wait(self) -> None:
        if self._inbox or self._member.wants_tick():
            await asyncio.sleep(0)
            return
        delay = max(0.0, self._member.due() - self._now()) + _AFTER_DUE_S
        try:
            async with asyncio.timeout(delay):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _take_inbox(self) -> None:
        for _ in range(min(len(self._inbox), _STEP_MESSAGES)):
            server, item = self._inbox.popleft()
            if isinstance(item, bool):
                self._member.link(server, up=item)
            else:
                self._member.receive(server, *item)

    def _compact(self) -> None:
        if self._compaction is not None and self._member.compact(*self._compaction):
            self._compaction = None

    async def _settle(self) -> None:
        member = self._member
        staged = member.log.take_staged()
        if staged is not None:
            await self._run_blocking(partial(member.log.write, staged))
        outbox, member.outbox = member.outbox, []
        for server, message in outbox:
            self._mesh.send(server, encode_message(message, sender=member.member))
        self._hand_out()
        outcomes, member.outcomes = member.outcomes, []
        for done, failure in outcomes:
            done(failure)
        if member.leader() is None:
            self._leader_known.clear()
        else:
            self._leader_known.set()

    def _hand_out(self) -> None:
        applied, self._member.applied = self._member.applied, []
        if not applied:
            return
        batch: list[CommittedCommand | CommittedSnapshot] = []
        for item in applied:
            if isinstance(item, Snapshot):
                self._handed_out = item.commands
                batch.append(CommittedSnapshot(item.commands, item.state))
            else:
                self._handed_out += 1
                batch.append(CommittedCommand(self._handed_out, item))
        self._ready.append(tuple(batch))
        self._ready_changed.set()

    async def _offer(self, command: bytes) -> None:
        while True:
            await self._leader_known.wait()
            if self._has_ended():
                raise ConsensusError("the consensus engine has stopped")
            failure = await self._attempt(command)
            if failure == FAIL_REASON.SUCCESS:
                return
            if failure not in _NOT_ACCEPTED:
                raise ConsensusError("a command was proposed, but its fate is not known")
            await asyncio.sleep(_RETRY_PAUSE_S)

    async def _attempt(self, command: bytes) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def done(failure: int) -> None:
            if not future.done():
                future.set_result(failure)

        self._pending.add(future)
        try:
            self._member.submit(command, done)
            self._wake.set()
            return await future
        finally:
            self._pending.discard(future)

    async def _in_thread(self, call: Callable[[], None]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="consensus-journal")
        await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def _has_ended(self) -> bool:
        return self._stopping or self._task is None or self._task.done()

    def _now(self) -> float:
        return self._clock()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _check_timing(timing: Timing) -> None:
    if not 0 < 3 * timing.heartbeat_s < timing.election_min_s < timing.election_max_s:
        raise ConfigError(
            "the consensus timing contradicts itself",
            hint="three heartbeats < least election time-out < greatest election time-out",
        )

"""Feeds a committee server's machine and sees its effects done (zipnet.machines.server_effects).

Rules:

1. One task feeds the machine and performs its effects in list order; an effect that must be
   durable is awaited before the next one is looked at.
2. A failed durable write puts the node into safe mode: the machine is fed no more, nothing is
   signed or released, and what is stored goes on being served.
3. A snapshot of the machine's state is given to the engine between two events only, when every
   effect of the commands it stands for was performed: what the log no longer says is done.

How each effect is performed: ``zipnet.node.server_acts``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from zipnet.errors import LocalProtocolError, RemoteProtocolError, SafeMode, StorageError
from zipnet.machines.committee_snapshot import encode_state
from zipnet.machines.server_effects import (
    Committed,
    Event,
    Instant,
    LinksChanged,
    Restored,
    StandingChanged,
    TimerFired,
)
from zipnet.observe.log import get_logger
from zipnet.ports import CommittedCommand, CommittedSnapshot
from zipnet.protocol.ids import ServerIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zipnet.machines.server import ServerMachine
    from zipnet.node.mesh import CommitteeMesh
    from zipnet.node.record_keeper import RecordKeeper
    from zipnet.node.server_acts import ServerActs
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.ports import Clock, Consensus

__all__ = ["EventQueue", "ServerDriver"]

_TICK_S = 0.05
_MAX_EVENTS = 4096


class EventQueue:
    """What has happened and the machine has not seen yet; bounded, and then posting waits."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue(_MAX_EVENTS)

    async def post(self, event: Event) -> None:
        """Add an event; wait while too many are queued."""
        await self._queue.put(event)

    async def next(self) -> Event:
        """Take the oldest event."""
        return await self._queue.get()

    def is_empty(self) -> bool:
        """Tell whether the machine has seen everything."""
        return self._queue.empty()


class ServerDriver:
    """Runs one server's machine.

    Args:
        machine: The machine; this object is the only one to step it.
        acts: Performs its effects.
        events: Where acts and handlers post what happened.
        consensus: Where the log comes from.
        mesh: Tells who is connected.
        keeper: The record log's writer, run beside.
        metrics: Where standing and progress show.
        clock: Time.
        on_standing: Told whenever this node's standing in the committee changes.
        snapshot_every: Commands after which the log is replaced by a snapshot; more where the
            registry is so large that writing it down would cost more than it saves.
    """

    def __init__(  # noqa: PLR0913 - composition: one argument for each neighbour
        self,
        machine: ServerMachine,
        acts: ServerActs,
        events: EventQueue,
        *,
        consensus: Consensus,
        mesh: CommitteeMesh,
        keeper: RecordKeeper,
        metrics: NodeMetrics,
        clock: Clock,
        on_standing: Callable[[StandingChanged], None],
        snapshot_every: int,
    ) -> None:
        self._machine = machine
        self._acts = acts
        self._events = events
        self._consensus = consensus
        self._mesh = mesh
        self._keeper = keeper
        self._metrics = metrics
        self._clock = clock
        self._on_standing = on_standing
        self._standing = StandingChanged(leads=False, caught_up=False)
        self._connected: frozenset[int] = frozenset()
        self._log_read = True
        self._snapshot_every = snapshot_every
        self._applied = 0
        self._snapshot_at = 0
        self._log = get_logger()

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            ExceptionGroup: Holding :class:`~zipnet.errors.SafeMode` when a durable write failed.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._acts.run())
            group.create_task(self._feed())
            group.create_task(self._tick())
            group.create_task(self._follow_log())
            group.create_task(self._keeper.run())

    async def _feed(self) -> None:
        while True:
            event = await self._events.next()
            if not self._acts.still_has(event):
                continue
            try:
                effects = self._machine.step(event, self._now())
            except RemoteProtocolError as error:
                raise StorageError(
                    f"a snapshot of the committee's state cannot be used: {error}",
                    hint="run the same release and descriptor as the server that wrote it",
                ) from error
            self._acts.pin(self._machine.blobs_in_use)
            for effect in effects:
                self._acts.trace(effect)
                await self._acts.perform(effect)
            if isinstance(event, Committed | Restored):
                self._note_applied(event)
                self._metrics.client_registry_size.set(self._machine.state.registry.active_count)

    def _note_applied(self, event: Committed | Restored) -> None:
        if isinstance(event, Restored):
            self._applied = self._snapshot_at = event.index
            return
        self._applied += len(event.commands)
        state = self._machine.state
        if self._keeper.next_sequence < state.next_sequence:
            return  # a record is still on its way to the disk: the log is what names it
        # Amortised: the larger the registry, the rarer it is written down whole.
        if self._applied - self._snapshot_at < max(
            self._snapshot_every, state.registry.version // 8
        ):
            return
        self._snapshot_at = self._applied
        try:
            self._consensus.compact(self._applied, encode_state(state))
        except LocalProtocolError as error:
            self._log.warning("snapshot_refused", reason=error.reason)

    def _now(self) -> Instant:
        return Instant(self._clock.monotonic(), int(self._clock.wall() * 1000))

    async def _tick(self) -> None:
        while True:
            await self._look_at_standing()
            connected = self._mesh.connected()
            if connected != self._connected:
                self._connected = connected
                self._metrics.bonds.set(len(connected))
                await self._events.post(LinksChanged(frozenset(map(ServerIndex, connected))))
            await self._events.post(TimerFired())
            await asyncio.sleep(_TICK_S)

    async def _look_at_standing(self) -> None:
        leader = self._consensus.leader()
        # Caught up counts once the machine has seen all that the engine handed out.
        seen = self._log_read and self._events.is_empty()
        caught_up = self._consensus.caught_up() and (seen or self._standing.caught_up)
        standing = StandingChanged(leads=leader == self._machine.server, caught_up=caught_up)
        if standing != self._standing:
            self._standing = standing
            self._metrics.consensus_leader.set(standing.leads)
            self._on_standing(standing)
            await self._events.post(standing)

    async def _follow_log(self) -> None:
        async for batch in self._consensus.batches():
            self._log_read = False
            for event in _events_of(batch):
                await self._events.post(event)
            self._metrics.consensus_committed_index.set(batch[-1].index)
            self._log_read = True


def _events_of(batch: Sequence[CommittedCommand | CommittedSnapshot]) -> list[Event]:
    events: list[Event] = []
    commands: list[bytes] = []
    for item in batch:
        if isinstance(item, CommittedCommand):
            commands.append(item.command)
            continue
        if commands:
            events.append(Committed(tuple(commands)))
            commands = []
        events.append(Restored(item.index, item.state))
    return [*events, Committed(tuple(commands))] if commands else events


def safe_mode_in(error: BaseException) -> SafeMode | None:
    """Return the safe mode inside an exception group, if that is what ended a driver."""
    if isinstance(error, SafeMode):
        return error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            found = safe_mode_in(inner)
            if found is not None:
                return found
    return None

"""Run a cluster to its end, watch it from the outside, and return what it came to."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from sim.cluster.nodes import ClusterError
from sim.cluster.world import ClusterWorld
from sim.model.outcome import Outcome, RoundSummary
from sim.model.trace import Row
from zipnet.errors import ZipnetError
from zipnet.machines.reader import Advanced
from zipnet.sdk.descriptor import load_descriptor
from zipnet.sdk.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sim.cluster.plan import ClusterFault, ClusterPlan
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["ClusterRun"]

SETTLE_S: Final = 120.0
_SETTLING: Final = 2
_LOOK_S: Final = 0.1
_ENTRY_BYTES: Final = 2


class ClusterRun:
    """One run.

    Args:
        plan: What is run.
        folder: Where keys, logs and state go.
        say: Shows a line to a person.

    Attributes:
        rows: What happened, in order.
        world: Processes and relays.
    """

    def __init__(self, plan: ClusterPlan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan, self._say = plan, say
        self.world = ClusterWorld(plan, folder, self._note)
        self.rows: list[Row] = []
        self._began = time.time()
        self._records: list[tuple[VerifiedRecord, float, float]] = []
        self._first = 0
        self._receipts: list[dict[str, Any]] = []
        self._queued = 0
        self._failed: list[str] = []
        self._messages: dict[int, list[int]] = {}
        self._faults: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> Outcome:
        """Run until enough records are there and every message has its end, or ``stop`` is set.

        Raises:
            ClusterError: When a process ends by itself, or the time is over.
        """
        scenario = self.plan.scenario
        self._say(f"sim: starting {len(self.plan.server_names)} servers, {self._others()}")
        try:
            await self.world.start(self._on_client)
            self._say("sim: every client is registered")
            await self.world.start_readers(self._on_message)
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch())
                await self._settle(stop)
                await self.world.talk()
                timeline = [group.create_task(self._later(fault)) for fault in self.plan.faults]
                with suppress(TimeoutError):
                    async with asyncio.timeout(scenario.limit_s):
                        await self._until_done(stop, timeline)
                for task in (watching, *timeline, *self._faults):
                    task.cancel()
            return self._outcome()
        except BaseExceptionGroup as group:
            raise _first_complaint(group) from group
        finally:
            await self.world.close()

    def trouble(self, fault: ClusterFault) -> None:
        """Bring a fault about now."""
        task = asyncio.create_task(self.world.bring(fault))
        self._faults.add(task)
        task.add_done_callback(self._faults.discard)

    def _others(self) -> str:
        plan = self.plan
        return (
            f"{plan.aggregators} aggregators, {plan.everybody} clients, "
            f"{plan.readers} readers over {plan.transport}, tdx {plan.tdx}"
        )

    async def _settle(self, stop: asyncio.Event) -> None:
        """Wait until every client has taken part, and for the scenario's moment to talk.

        The clock begins with the round in which that moment lies, the count with the next one.
        """
        end = time.time() + SETTLE_S
        while len(self._records) < _SETTLING and not stop.is_set():
            self.world.require_alive()
            if time.time() > end:
                raise ClusterError("no record was sealed")
            await asyncio.sleep(_LOOK_S)
        self._began = self._last_opened()
        wait_s = self.plan.scenario.load.start_s
        while time.time() > self._began + wait_s + _LOOK_S and time.time() < end:
            await asyncio.sleep(_LOOK_S)  # that moment is over: in the next round, then
            self._began = self._last_opened()
        await asyncio.sleep(max(0.0, self._began + wait_s - time.time()))
        self._first = len(self._records)
        self.rows.clear()

    def _last_opened(self) -> float:
        """Return when the round of the last record was opened."""
        return self._records[-1][2] if self._records else time.time()

    # -- watching ------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Follow the records as anybody may, and show each round."""
        descriptor = load_descriptor(str(self.world.descriptor))
        async with Reader(descriptor, transport=self.plan.transport, from_sequence=0) as reader:
            async for event in reader.events():
                if isinstance(event, Advanced):
                    self._on_record(event.record)

    def _on_record(self, record: VerifiedRecord) -> None:
        now, content = time.time(), record.record.content
        opened = content.header.opened_at_ms / 1000
        if not now - SETTLE_S < opened <= now:
            # The clock of whoever opened it was wrong; it was opened after the record before it.
            opened = self._records[-1][1] if self._records else now
        self._records.append((record, now, opened))
        took = now - opened
        self._note("round_sealed", "", took, "", int(record.round))
        self._say(
            f"round {record.round:>4}  {content.participants:>3} participants  "
            f"{took:5.2f} s  slots {len(record.fragments)}+{len(record.void_slots)} void  "
            f"leader {self.world.leader or '?'}  messages {len(self._receipts)}/{self._queued}"
        )

    def _on_client(self, said: dict[str, Any]) -> None:
        event = said.get("event")
        if event in ("left", "returned"):
            self._note(f"client_{event}", str(said["client"]), 0.0, "")
        elif event == "queued":
            self._queued += 1
            self._note("message_queued", str(said["client"]), 0.0, "")
        elif event == "receipt":
            self._receipts.append(said)
            waited = said["at"] - said["queued"]
            self._note("message_delivered", str(said["client"]), waited, "", int(said["round"]))
        elif event == "failed":
            self._failed.append(f"{said['client']}: {said['reason']}")
            self._note("message_failed", str(said["client"]), 0.0, str(said["reason"]))

    def _on_message(self, said: dict[str, Any]) -> None:
        if said.get("verified") is True and "message" in said:
            number = int(said["round"])
            self._messages.setdefault(number, []).append(len(str(said["message"]).encode()))

    def _note(self, event: str, node: str, value: float, note: str, number: int = 0) -> None:
        self.rows.append(Row(time.time() - self._began, event, node, number, value, note))
        if event.startswith("fault"):
            self._say(f"sim: {event.replace('_', ' ')}: {note} {node}")

    async def _later(self, fault: ClusterFault) -> None:
        await asyncio.sleep(max(0.0, self._began + fault.at_s - time.time()))
        await self.world.bring(fault)

    async def _until_done(self, stop: asyncio.Event, timeline: list[asyncio.Task[None]]) -> None:
        load = self.plan.scenario.load
        expected = min(load.talkers, self.plan.scenario.clients) * load.messages
        while not stop.is_set():
            self.world.require_alive()
            ended = len(self._receipts) + len(self._failed)
            whole = self._recovered() >= len(self._receipts)
            enough = len(self._records) - self._first >= self.plan.scenario.rounds
            if enough and ended >= expected and whole and all(task.done() for task in timeline):
                return
            await asyncio.sleep(_LOOK_S)  # the processes decide when; nothing here can be awaited

    def _recovered(self) -> int:
        return sum(len(found) for found in self._messages.values())

    # -- what it came to -----------------------------------------------------------------------

    def _outcome(self) -> Outcome:
        scenario = self.plan.scenario
        rounds = [self._summary(*known) for known in self._records[self._first :]]
        return Outcome(
            scenario=scenario.name,
            mode="cluster",
            seed=self.plan.seed,
            digest=self._digest(),
            seconds=time.time() - self._began,
            slots=scenario.params.num_slots,
            clients=scenario.clients,
            rounds=rounds,
            aborted=[],
            queued=len(self._receipts),
            latencies=[one["at"] - one["queued"] for one in self._receipts],
            recovered=self._recovered(),
            recovered_bytes=sum(size for found in self._messages.values() for size in found),
            links=self.world.traffic(),
            counted=self._counted(),
            rows=self.rows,
            slot_bytes=scenario.params.slot_bytes,
            assumptions=("real processes on one machine: their clocks and processors are shared",),
        )

    def _counted(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.event] = found.get(row.event, 0) + 1
        return found

    def _summary(self, record: VerifiedRecord, sealed: float, opened: float) -> RoundSummary:
        content = record.record.content
        return RoundSummary(
            number=int(record.round),
            opened=opened - self._began,
            sealed=sealed - self._began,
            participants=content.participants,
            registered=self.plan.scenario.clients,
            used=len(record.fragments),
            void=len(record.void_slots),
            reserved=_reserved(content.reservations),
            schedule=content.schedule.hex(),
        )

    def _digest(self) -> str:
        """Over the records: two real runs are never alike, so this names one and compares none."""
        state = blake2b(digest_size=16)
        for record, *_ in self._records:
            state.update(record.hash)
        return state.hexdigest()


def _first_complaint(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of ours in a group, which says what is the matter; else the group."""
    found: BaseException | None = group.subgroup(ZipnetError)
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found or group


def _reserved(vector: bytes) -> int:
    """Return how many entries of a reservation vector are not zero."""
    return sum(any(vector[at : at + _ENTRY_BYTES]) for at in range(0, len(vector), _ENTRY_BYTES))

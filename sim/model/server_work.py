"""How a model server's effects are done: what ``zipnet.node.server_acts`` does, in virtual time.

Effects run in list order, and those that must be durable take their fsync before the next one is
looked at.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.model.server_body import ServerBody
from zipnet.errors import GuardError, RemoteProtocolError
from zipnet.machines.server_effects import (
    AdmitClient,
    AggregateArrived,
    AnnounceKemKey,
    AssembleRecord,
    CatchUpRecords,
    Effect,
    EnforceRevocation,
    Fetch,
    KeepAggregate,
    KemKeyReady,
    OpenRoundWith,
    PartialArrived,
    PersistRelease,
    Propose,
    PublishAborted,
    PublishOpened,
    RecordAssembled,
    RefuseRelease,
    RetireChain,
    RetireOtherChains,
    SharePartial,
    StepChains,
    StoreRecord,
    Unblind,
    Unblinded,
    UnblindFailed,
    UseDescriptor,
)
from zipnet.protocol.aggregate import Partial, decode_aggregate, decode_partial
from zipnet.protocol.command import OpenRound
from zipnet.protocol.header import sign_header
from zipnet.protocol.ids import Digest, ServerIndex, content_digest, derive
from zipnet.protocol.record import RECORD_SIGNATURE_USE, Record, assemble_content

if TYPE_CHECKING:
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["ServerWork"]

_TICK_S = 0.05
_FETCH_S = 3.0
_ASK = 64
_SYNCS = 2
"""A blob syncs its file and its folder; custody the new state, then the zeros over the old one."""


class ServerWork(ServerBody):
    """The effects of one server."""

    async def _perform(self, effect: Effect) -> None:  # noqa: C901, PLR0912, PLR0915 - the table of effects
        world = self.world
        match effect:
            case Propose():
                self.begin(self._propose(effect.command))
            case OpenRoundWith():
                header = world.hooks.open_with(self, effect.header)
                self.begin(self._propose(OpenRound(sign_header(header, self.identity))))
            case KeepAggregate():
                self.kept[effect.aggregate] = self.blobs[effect.aggregate]
                await asyncio.sleep(_SYNCS * world.costs.fsync)
            case PersistRelease():
                self.releases.append(effect.released)
                world.hooks.released(self.index, effect.released)
                await asyncio.sleep(world.costs.fsync)
            case Unblind():
                self.begin(self._unblind(effect))
            case RefuseRelease():
                world.note(
                    "release_refused", self.name, round_number=effect.round, note=effect.reason
                )
            case SharePartial():
                self._share(effect)
            case Fetch():
                self.begin(self._fetch(effect.digest, effect.holders))
            case AssembleRecord():
                self.begin(self._assemble(effect))
            case StoreRecord():
                await self._store(effect)
            case CatchUpRecords():
                self.begin(self._catch_up(effect.next_sequence))
            case StepChains():
                self.custody.step_past(effect.round)
                self.withheld.clear()
                work = world.costs.chain_step * self.custody.chain_count
                work += _SYNCS * world.costs.fsync
                await self.keys.work(work)
            case AdmitClient():
                self._admit(effect)
            case RetireChain():
                self.custody.retire(effect.index)
            case RetireOtherChains():
                self.custody.retire_others(effect.kept)
            case AnnounceKemKey():
                epoch = max(effect.epoch, effect.announced + 1)
                digest = derive("sim-announcement", bytes([self.index]), epoch.to_bytes(8, "big"))
                self.post(KemKeyReady(epoch, digest))
            case PublishOpened():
                self._opened(effect)
            case PublishAborted():
                self._aborted(effect)
            case EnforceRevocation():
                world.note("revocation_enforced", self.name, note=effect.revocation.kind.name)
            case UseDescriptor():
                world.note("descriptor_adopted", self.name, note=str(effect.descriptor.version))

    async def _unblind(self, effect: Unblind) -> None:
        world, header = self.world, effect.header
        count = len(effect.participants)
        await self.keys.work(world.costs.pads(count, world.scenario.wire_body_bytes))
        try:
            body = self.custody.unblind(
                header, effect.participants, world.group.params, world.group.engine
            )
        except GuardError:
            self.post(UnblindFailed(header.round))
            return
        partial = Partial(header.round, header.hash, self.index, effect.aggregate, bytes(body))
        blob = partial.encode()
        self.withheld = {content_digest(blob): blob}
        self.post(Unblinded(header.round, content_digest(blob)))

    def _share(self, effect: SharePartial) -> None:
        blob = self.withheld.pop(effect.partial, None)
        if blob is None:
            return
        self.blobs[effect.partial] = blob
        self.world.hooks.partial(self.index, effect.round, blob)
        size = self.world.nominal(len(blob))
        for other in self.world.servers:
            if other is not self:
                self._send(other, "partial", size, partial(other.blob, blob))

    def aggregate(self, blob: bytes) -> None:
        """An aggregate of a root arrived."""
        if self.machine is None:
            return
        try:
            digest, found = decode_aggregate(blob, self.world.group.params)
        except RemoteProtocolError:
            self.world.note("aggregate_refused", self.name)
            return
        self.blobs[digest] = blob
        arrived = AggregateArrived(digest, found.round, found.header_hash, found.participants)
        work = self.world.costs.digest_byte * self.world.scenario.wire_body_bytes
        self.processor.run(work, lambda: self.post(arrived))

    def blob(self, blob: bytes) -> None:
        """A blob of another server arrived."""
        if self.machine is None:
            return
        digest, state = content_digest(blob), self.machine.state
        self.blobs[digest] = blob
        if state.chosen is not None and digest == state.chosen.aggregate:
            self.aggregate(blob)
        for server, posted in state.partials.items():
            if posted == digest:
                work = self.world.costs.digest_byte * self.world.scenario.wire_body_bytes
                arrived = PartialArrived(server, digest)
                self.processor.run(work, partial(self.post, arrived))

    async def _fetch(self, digest: Digest, holders: tuple[ServerIndex, ...]) -> None:
        if digest in self.blobs:
            self.blob(self.blobs[digest])
            return
        for holder in holders:
            blob = await self._ask(self.world.servers[holder], digest)
            if blob is not None:
                self.blob(blob)
                return

    async def _ask(self, holder: ServerBody, digest: Digest) -> bytes | None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes | None] = loop.create_future()

        def asked() -> None:
            blob = holder.blobs.get(digest) if holder.machine is not None else None
            size = _ASK if blob is None else self.world.nominal(len(blob))
            back = partial(_answer, answer, blob)
            self.world.fabric.send(holder.port, self.port, "blob", size, back)

        self._send(holder, "ask", _ASK, asked)
        try:
            async with asyncio.timeout(_FETCH_S):
                return await answer
        except TimeoutError:
            return None

    async def _assemble(self, effect: AssembleRecord) -> None:
        world, header = self.world, effect.header
        params = world.group.params
        blobs = [self.blobs.get(digest) for digest in (effect.aggregate, *effect.partials)]
        if any(blob is None for blob in blobs):
            return
        _, aggregate = decode_aggregate(blobs[0] or b"", params)
        clear = np.frombuffer(aggregate.body, dtype=np.uint8).copy()
        for blob in blobs[1:]:
            clear ^= np.frombuffer(decode_partial(blob or b"", params)[1].body, dtype=np.uint8)
        size, slots = world.scenario.wire_body_bytes, world.scenario.slots
        await self.processor.work(world.costs.assemble(len(header.roster), size, slots))
        salt = derive("sim-salt", header.hash)
        content = assemble_content(
            header,
            sequence=effect.sequence,
            participants=len(aggregate.participants),
            commitment=aggregate.participants.commitment(salt),
            clear_body=clear.tobytes(),
            params=params,
        )
        self.contents = {int(header.round): content}
        signature = self.identity.sign(RECORD_SIGNATURE_USE, content.hash)
        self.post(RecordAssembled(header.round, content.hash, content.schedule, signature))

    async def _store(self, effect: StoreRecord) -> None:
        content = self.contents.pop(int(effect.sealed.header.round), None)
        if content is None or content.hash != effect.sealed.record:
            self.begin(self._catch_up(effect.sealed.sequence + 1))
            return
        await asyncio.sleep(self.world.costs.fsync)
        self._take(self.world.verified(Record(content, effect.sealed.signatures)))

    def _take(self, record: VerifiedRecord) -> None:
        self.records.append(record)
        size = self.world.record_bytes(record)
        self.world.sealed(self, record, size)
        for aggregator in self._subscribed():
            self._push(aggregator, "record", size, partial(aggregator.sealed, record, size))

    async def _catch_up(self, next_sequence: int) -> None:
        while len(self.records) < next_sequence:
            have = len(self.records)
            ahead = [s for s in self.world.servers if s.port.reachable and len(s.records) > have]
            if ahead:
                record = ahead[0].records[have]
                arrived = asyncio.Event()
                size = self.world.record_bytes(record)
                fabric = self.world.fabric
                fabric.send(ahead[0].port, self.port, "record", size, arrived.set)
                await arrived.wait()
                if len(self.records) == have:
                    self._take(record)
            else:
                await asyncio.sleep(_TICK_S)


def _answer(waiting: asyncio.Future[bytes | None], blob: bytes | None) -> None:
    if not waiting.done():
        waiting.set_result(blob)

"""How a committee server's effects are done: disk, keys, links, log.

Rules:

1. ``perform`` returns when the effect's duty is met: durable ones are durable, others are begun.
2. Everything that touches key custody runs in one worker thread, in the order it was asked for,
   so a chain is never stepped under an unblinding that began before.
3. This server's partial is withheld until :class:`SharePartial`; nobody can fetch it before.
4. A blob is looked at only after its digest matched; what it says is checked against the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar, assert_never

import numpy as np

from zipnet.errors import (
    AdmissionError,
    ConsensusError,
    GuardError,
    RemoteProtocolError,
    SafeMode,
    TransportError,
)
from zipnet.machines.server_effects import (
    AdmitClient,
    AggregateArrived,
    AnnounceKemKey,
    AssembleRecord,
    CatchUpRecords,
    Effect,
    EnforceRevocation,
    Event,
    Fetch,
    KeepAggregate,
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
from zipnet.node.drafts import Drafts
from zipnet.node.round_blobs import RoundBlobs
from zipnet.node.server_clients import ServerClients
from zipnet.node.server_revoking import ServerRevoking
from zipnet.observe.log import get_logger
from zipnet.protocol.aggregate import Partial, decode_aggregate, decode_partial
from zipnet.protocol.command import OpenRound, sign_command
from zipnet.protocol.header import sign_header
from zipnet.protocol.ids import Digest, ServerIndex, content_digest, keyed
from zipnet.protocol.record import (
    RECORD_SIGNATURE_USE,
    Record,
    assemble_content,
)
from zipnet.wire.messages import (
    Blob,
    GetBlob,
    Kind,
    PutBlob,
    decode,
)

if TYPE_CHECKING:
    from zipnet.node.server_parts import ServerParts
    from zipnet.protocol.command import Command

__all__ = ["ServerActs"]

_T = TypeVar("_T")
_PROPOSE_TIMEOUT_S = 5.0
_FETCH_TIMEOUT_S = 3.0
_MAX_RUNNING = 1024
# What a server does in the phases of a round, as its trace names them.
_PHASES: Final[dict[type[Effect], str]] = {
    Unblind: "unblind",
    SharePartial: "collect",
    AssembleRecord: "assemble",
    StoreRecord: "store",
}


class ServerActs:
    """Performs effects and takes blobs for one server."""

    def __init__(self, parts: ServerParts) -> None:
        self._parts = parts
        self._server: ServerIndex = parts.machine.server
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="custody")
        self._running: asyncio.Queue[Coroutine[object, object, None]] = asyncio.Queue(_MAX_RUNNING)
        self._withheld: dict[Digest, bytes] = {}
        self._drafts = Drafts(parts.blobs, parts.descriptor.params)
        self._round_blobs = RoundBlobs(parts.descriptor.params)
        self.revoking = ServerRevoking(parts, self.propose, self._begin, time.time)
        self._clients = ServerClients(parts, self._in_custody, self.obtain_blob)
        self._log = get_logger()

    async def run(self) -> None:
        """Run what was begun until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(await self._running.get())
        finally:
            while not self._running.empty():
                self._running.get_nowait().close()

    async def close(self) -> None:
        """Wait for the worker thread, then wipe key custody. Call after ``run`` was cancelled."""
        await asyncio.to_thread(self._worker.shutdown, wait=True)
        self._parts.custody.close()

    # -- for the routes ------------------------------------------------------------------------

    async def propose(self, command: Command) -> None:
        """Sign a command as this server and put it into the log.

        Raises:
            ConsensusError: When it did not get in, or that is not known.
        """
        parts = self._parts
        data = sign_command(command, self._server, parts.descriptor.group, parts.identity)
        began = time.monotonic()
        await parts.consensus.propose(data, timeout_s=_PROPOSE_TIMEOUT_S)
        parts.metrics.commit_latency.observe(time.monotonic() - began)

    def still_has(self, event: Event) -> bool:
        """Tell whether an aggregate that arrived was not pushed out by others since."""
        if not isinstance(event, AggregateArrived):
            return True
        return self._parts.blobs.get(event.digest) is not None

    def pin(self, digests: frozenset[Digest]) -> None:
        """Hold what the machine counts on, however much else comes in."""
        self._parts.blobs.pin(digests)

    async def keep_blob(self, digest: Digest, blob: bytes) -> None:
        """Keep a blob on a request's behalf; where that fails, the whole node must know.

        Raises:
            AdmissionError: When it could not be made durable.
        """
        try:
            await asyncio.to_thread(self._parts.blobs.keep, digest, blob)
        except SafeMode as error:
            await self._begin(_fail(error))
            raise AdmissionError("this server enters safe mode", code="safe_mode") from error

    async def take_blob(self, blob: bytes, *, expected: Digest | None = None) -> None:
        """Take a blob another server sent, and tell the machine if the log names it.

        Raises:
            RemoteProtocolError: When it is not the expected one.
        """
        digest = self._hold(blob, expected)
        await self._notice(digest, blob)

    async def take_aggregate(self, blob: bytes) -> None:
        """Take a root aggregator's aggregate.

        Raises:
            RemoteProtocolError: When it is no aggregate of this group.
        """
        digest, aggregate = decode_aggregate(blob, self._parts.descriptor.params)
        self._hold(blob, digest)
        await self._parts.events.post(
            AggregateArrived(digest, aggregate.round, aggregate.header_hash, aggregate.participants)
        )

    async def obtain_blob(self, digest: Digest, holders: tuple[ServerIndex, ...]) -> bytes | None:
        """Return a blob from here or from the first of ``holders`` that has it, else None."""
        blob = self._parts.blobs.get(digest)
        if blob is not None:
            return blob
        connected = self._parts.mesh.connected()
        for server in (holder for holder in holders if holder in connected):
            try:
                payload = await self._parts.mesh.request(
                    server, Kind.GET_BLOB, GetBlob(digest=digest), timeout_s=_FETCH_TIMEOUT_S
                )
                blob = decode(payload, Blob).blob
                if blob is not None:
                    self._hold(blob, digest)
                    return blob
            except (TransportError, AdmissionError):
                continue
            except RemoteProtocolError as error:
                self._parts.metrics.integrity_fail.inc("blob")
                self._log.warning("blob_refused", server=int(server), reason=error.reason)
        return None

    def _hold(self, blob: bytes, expected: Digest | None) -> Digest:
        digest = self._parts.blobs.put(blob, expected=expected)
        self._round_blobs.note(digest, blob)
        return digest

    # -- effects -------------------------------------------------------------------------------

    def trace(self, effect: Effect) -> None:
        """Note in the round's trace what is about to be performed."""
        if isinstance(effect, PublishOpened):
            self._parts.rounds.opened(effect.signed.header)
        else:
            self._parts.rounds.phase(_PHASES.get(type(effect), ""))

    async def perform(self, effect: Effect) -> None:  # noqa: C901, PLR0912 - the table of effects
        """Do one effect, as far as its duty says before the next one may be looked at.

        Raises:
            SafeMode: When something could not be made durable.
        """
        parts = self._parts
        match effect:
            case Propose():
                await self._begin(self._propose(effect.command))
            case OpenRoundWith():
                signed = sign_header(effect.header, parts.identity)
                await self._begin(self._propose(OpenRound(signed)))
            case KeepAggregate():
                await asyncio.to_thread(parts.blobs.keep, effect.aggregate)
            case PersistRelease():
                await asyncio.to_thread(parts.releases.append, effect.released.encode())
            case Unblind():
                await self._begin(self._unblind(effect))
            case RefuseRelease():
                parts.metrics.partials_refused.inc(effect.reason)
                self._log.warning("release_refused", round=effect.round, reason=effect.reason)
            case SharePartial():
                await self._share(effect)
            case Fetch():
                await self._begin(self._fetch(effect))
            case AssembleRecord():
                await self._begin(self._assemble(effect))
            case StoreRecord():
                await self._store(effect)
            case CatchUpRecords():
                await parts.keeper.catch_up(effect.next_sequence)
            case StepChains():
                await self._step_chains(effect)
            case AdmitClient():
                await self._begin(self._clients.admit(effect.change))
            case RetireChain():
                await self._in_custody(lambda: parts.custody.retire(effect.index))
                if effect.registration is not None:
                    await asyncio.to_thread(parts.blobs.drop, [effect.registration])
            case RetireOtherChains():
                await self._in_custody(lambda: parts.custody.retire_others(effect.kept))
            case AnnounceKemKey():
                await self._begin(self._clients.announce_kem(effect))
            case PublishOpened():
                parts.metrics.rounds_opened.inc()
                await parts.keeper.announce_opened(effect.signed)
            case PublishAborted():
                await self._publish_aborted(effect)
            case EnforceRevocation():
                await self.revoking.on_log(effect)
            case UseDescriptor():
                await parts.live.use(effect.descriptor)
            case _:
                assert_never(effect)

    async def _begin(self, work: Coroutine[object, object, None]) -> None:
        await self._running.put(work)

    async def enter_safe_mode(self) -> None:
        """Have the node enter safe mode: an operator asked for it."""
        asked = SafeMode("an operator put this node into safe mode", cause="operator")
        await self._begin(_fail(asked))

    @property
    def clients(self) -> ServerClients:
        """Who is admitted, and the keys they register under."""
        return self._clients

    async def _in_custody(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    async def _propose(self, command: Command) -> None:
        try:
            await self.propose(command)
        except ConsensusError as error:
            # The machine asks again while it still wants this.
            self._log.debug("proposal_failed", reason=error.reason)

    async def _unblind(self, effect: Unblind) -> None:
        parts, header = self._parts, effect.header
        params = parts.descriptor.params
        try:
            body = await self._in_custody(
                lambda: parts.custody.unblind(header, effect.participants, params, parts.engine)
            )
        except GuardError:
            self._log.warning("unblinding_failed", round=header.round, reason="missing_chain")
            await parts.events.post(UnblindFailed(header.round))
            return
        blob = Partial(
            header.round, header.hash, self._server, effect.aggregate, bytes(body)
        ).encode()
        digest = content_digest(blob)
        self._withheld = {digest: blob}
        await parts.events.post(Unblinded(header.round, digest))

    async def _share(self, effect: SharePartial) -> None:
        blob = self._withheld.pop(effect.partial, None)
        if blob is None:
            return
        self._hold(blob, effect.partial)
        self._parts.metrics.partials_submitted.inc()
        self._parts.mesh.push_all(Kind.PUT_BLOB, PutBlob(blob=blob))

    async def _fetch(self, effect: Fetch) -> None:
        blob = await self.obtain_blob(effect.digest, effect.holders)
        if blob is not None:
            await self._notice(effect.digest, blob)

    async def _notice(self, digest: Digest, blob: bytes) -> None:
        """Tell the machine about a blob the log names; a blob that lies is worth a warning."""
        parts = self._parts
        state = parts.machine.state
        try:
            if state.chosen is not None and digest == state.chosen.aggregate:
                _, aggregate = decode_aggregate(blob, parts.descriptor.params)
                await parts.events.post(
                    AggregateArrived(
                        digest, aggregate.round, aggregate.header_hash, aggregate.participants
                    )
                )
            for server, posted in tuple(state.partials.items()):  # the log may go on meanwhile
                if posted == digest:
                    self._require_partial(blob, server)
                    await parts.events.post(PartialArrived(server, digest))
        except RemoteProtocolError as error:
            parts.metrics.integrity_fail.inc("blob")
            self._log.warning("blob_refused", reason=error.reason)

    def _require_partial(self, blob: bytes, server: ServerIndex) -> Partial:
        header, chosen = self._parts.machine.state.header, self._parts.machine.state.chosen
        _, partial = decode_partial(blob, self._parts.descriptor.params)
        if header is None or chosen is None:
            raise RemoteProtocolError("partial came when no round waits for one")
        named = (partial.round, partial.header_hash, partial.server, partial.aggregate)
        if named != (header.round, header.hash, server, chosen.aggregate):
            raise RemoteProtocolError("partial is for another round, server or aggregate")
        return partial

    async def _assemble(self, effect: AssembleRecord) -> None:
        parts, header = self._parts, effect.header
        params = parts.descriptor.params
        blob = await self.obtain_blob(effect.aggregate, header.roster)
        partials = [await self.obtain_blob(digest, header.roster) for digest in effect.partials]
        bodies = [decode_partial(item, params)[1].body for item in partials if item is not None]
        if blob is None or len(bodies) < len(partials):
            return  # dropped under memory pressure and nobody has it now; the machine asks again
        _, aggregate = decode_aggregate(blob, params)
        clear = await asyncio.to_thread(_fold, aggregate.body, bodies)
        shared = parts.committee_secrets.of_round(header.descriptor_version)
        if shared is None:
            return  # the operator has not given it to this server yet; the machine asks again
        with shared.reveal() as secret:
            salt = keyed("participants-salt", secret, header.hash)
        content = assemble_content(
            header,
            sequence=effect.sequence,
            participants=len(aggregate.participants),
            commitment=aggregate.participants.commitment(salt),
            clear_body=clear,
            params=params,
        )
        record = content.hash
        # Before it is signed: after the last signature nobody could make it again.
        await self._drafts.keep(content, stored=parts.keeper.next_sequence)
        signature = await asyncio.to_thread(parts.identity.sign, RECORD_SIGNATURE_USE, record)
        await parts.events.post(RecordAssembled(header.round, record, content.schedule, signature))

    async def _store(self, effect: StoreRecord) -> None:
        content = await self._drafts.find(effect.sealed.record)
        if content is None:
            await self._parts.keeper.catch_up(effect.sealed.sequence + 1)
            return
        await self._parts.keeper.store(Record(content, effect.sealed.signatures))

    async def _step_chains(self, effect: StepChains) -> None:
        await self._in_custody(lambda: self._parts.custody.step_past(effect.round))
        self._withheld.clear()
        await asyncio.to_thread(self._parts.blobs.drop, self._round_blobs.close(effect.round))
        await self._drafts.drop_aggregates(effect.round)

    async def _publish_aborted(self, effect: PublishAborted) -> None:
        aborted = effect.aborted
        reason = aborted.why.name.lower()
        absent = [int(server) for server in aborted.absent]
        self._parts.metrics.rounds_aborted.inc(reason)
        self._parts.rounds.closed(int(aborted.round), "aborted", reason=reason)
        self._log.warning("round_aborted", round=aborted.round, reason=reason, absent=absent)
        await self._parts.keeper.announce_aborted(aborted)


async def _fail(error: SafeMode) -> None:
    """End the driver: it runs in the group that this is begun in."""
    raise error


def _fold(aggregate: bytes, partials: list[bytes]) -> bytearray:
    """XOR the aggregate with all partials: the clear round vector."""
    clear = bytearray(aggregate)
    view = np.frombuffer(clear, dtype=np.uint8)
    for partial in partials:
        np.bitwise_xor(view, np.frombuffer(partial, dtype=np.uint8), out=view)
    return clear

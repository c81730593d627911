"""The second consensus engine: etcd, run beside each server, as the committee's log.

Implements :class:`zipnet.ports.Consensus` for operators who run etcd already, or want an engine
that many others run. Raft, disks, membership and the links between members are etcd's own; this
module keeps one log in it and follows that log. Each server speaks only to the etcd member beside
it.

Keys, below ``zipnet/<group in hex>/``::

    head             = index u64                          of the last command
    log/<index hex>  = command
    snapshot         = index u64 ‖ count u32 ‖ BLAKE3 32 of the state
    state/<index hex>/<number hex> = pieces of the state
    leader           = server u8                          on a lease

Rules:

1. A command enters by one transaction: the head is what was read, and becomes one more. So indexes
   are gapless, and a transaction that etcd answered is committed and durable on a majority.
2. A transaction that was not answered may have been done: ``propose`` says so.
3. Reads that move a member on are transactions, so linearizable: what was acknowledged to anybody
   before is in them.
4. A snapshot's pieces are there before it is named, it is named before the commands it stands for
   go, and only the leader makes one. Whoever misses commands begins from it.
5. The leader is who holds the lease; it counts itself as such only while its last renewal that was
   answered is younger than the lease. Two leaders for an instant do no harm: the log decides.
6. ``receive`` refuses everything: members of this engine say nothing over the node's links.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from zipnet.consensus.etcd_http import EtcdHttp, KeyValue, text
from zipnet.consensus.members import MAX_STATE_BYTES
from zipnet.consensus.messages import MAX_COMMAND_BYTES
from zipnet.errors import ConsensusError, LocalProtocolError, RemoteProtocolError
from zipnet.ports import CommittedCommand, CommittedSnapshot

if TYPE_CHECKING:
    import ssl

__all__ = ["EtcdConsensus"]

_LEASE_S: Final = 3
_RENEW_S: Final = 0.7
_RETRY_S: Final = 0.2
#: A watch that says nothing for so long is not believed; the log is read again.
_WATCH_S: Final = 2.0
_CALL_S: Final = 3.0
_PAGE: Final = 64
#: etcd takes requests up to 1.5 MiB; base64 makes four bytes of three.
_PIECE_BYTES: Final = 512 << 10
_INDEX: Final = struct.Struct(">Q")
_POINTER: Final = struct.Struct(">QI32s")


class EtcdConsensus:
    """Consensus through etcd. Implements :class:`zipnet.ports.Consensus`.

    Args:
        server: Index of this server.
        group: Group id (32 bytes); committees that share an etcd never meet.
        host: Host of the etcd member beside this server.
        port: Its client port.
        tls: For mutual TLS with it; None speaks plain HTTP, for a loopback address.
        clock: Monotonic seconds; the running loop's own by default.
    """

    def __init__(
        self,
        *,
        server: int,
        group: bytes,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._server = server
        self._prefix = f"zipnet/{group.hex()}/".encode()
        self._http = EtcdHttp(host, port, tls=tls)
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._ready: deque[Sequence[CommittedCommand | CommittedSnapshot]] = deque()
        self._ready_changed = asyncio.Event()
        self._read_soon = asyncio.Event()
        self._head = 0
        self._handed_out = 0
        self._level = False
        self._leader: tuple[int, float] | None = None
        self._lease: str | None = None
        self._compaction: tuple[int, bytes] | None = None
        self._compact_soon = asyncio.Event()

    async def start(self) -> None:
        """Begin to follow the log, and to stand for leader."""
        steps = (self._follow, self._watch, self._stand, self._compact)
        self._tasks = [asyncio.create_task(self._repeat(step)) for step in steps]

    async def stop(self) -> None:
        """Stop, giving leadership up where etcd can still be told. Idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._ready_changed.set()
        if self._lease is not None:
            with contextlib.suppress(ConsensusError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._http.revoke(self._lease)

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        """Return once ``command`` is committed.

        Raises:
            ConsensusError: It was not accepted in time, or its fate is not known.
            LocalProtocolError: It is larger than the port allows.
        """
        if len(command) > MAX_COMMAND_BYTES:
            raise LocalProtocolError(f"a command of {len(command)} bytes is too large")
        if self._stopping.is_set():
            raise ConsensusError("the consensus engine has stopped")
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._offer(command):
                    """Somebody was faster; the head is known now."""
        except TimeoutError as error:
            raise ConsensusError("a command was not known to be committed in time") from error
        self._read_soon.set()

    async def batches(self) -> AsyncIterator[Sequence[CommittedCommand | CommittedSnapshot]]:
        """Yield committed commands as they become known; a snapshot where commands are gone."""
        while True:
            while self._ready:
                yield self._ready.popleft()
            if self._stopping.is_set():
                return
            self._ready_changed.clear()
            await self._ready_changed.wait()

    def compact(self, index: int, state: bytes) -> None:
        """Let ``state`` stand for all commands up to ``index``; acted on where this server leads.

        Raises:
            LocalProtocolError: The state is too large, or ``index`` was not handed out.
        """
        if len(state) > MAX_STATE_BYTES or not 0 < index <= self._handed_out:
            raise LocalProtocolError("a snapshot too large, or of commands not handed out")
        self._compaction = index, state
        self._compact_soon.set()

    def receive(self, server: int, message: bytes) -> None:
        """Refuse.

        Raises:
            RemoteProtocolError: Always (rule 6).
        """
        del server, message
        raise RemoteProtocolError("a consensus message, where etcd carries the log")

    def link_changed(self, server: int, *, up: bool) -> None:
        """Do nothing: etcd has links of its own."""

    def leader(self) -> int | None:
        """Index of the server that holds the lease, as far as was heard lately."""
        if self._leader is None or self._clock() > self._leader[1]:
            return None
        return self._leader[0]

    def caught_up(self) -> bool:
        """Whether everything known to be committed has been handed out by :meth:`batches`."""
        return self._level and self._handed_out >= self._head and not self._ready

    # -- the log -----------------------------------------------------------------------------------

    async def _offer(self, command: bytes) -> bool:
        head = self._head
        key = self._prefix + b"head"
        unchanged = _equals(key, _INDEX.pack(head)) if head else _is_missing(key)
        result = await self._http.txn(
            [unchanged],
            [_put(key, _INDEX.pack(head + 1)), _put(self._log_key(head + 1), command)],
            [_range(key)],
        )
        if not result.succeeded:
            kvs = result.ranges()[0].kvs
            self._head = max(self._head, _index_in(kvs[0].value)) if kvs else 0
            return False
        self._head = max(self._head, head + 1)
        return True

    async def _follow(self) -> None:
        """Hand out what is new, then wait until there may be more."""
        while True:
            self._read_soon.clear()
            while not await self._read_page():
                """More is there."""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_S):
                    await self._read_soon.wait()

    async def _read_page(self) -> bool:
        """Hand out one page; True when that was all there is."""
        first = self._handed_out + 1
        async with asyncio.timeout(_CALL_S):
            result = await self._http.txn(
                [],
                [
                    _range(self._prefix + b"head"),
                    _range(self._prefix + b"snapshot"),
                    _range(self._log_key(first), self._prefix + b"log0", limit=_PAGE),
                ],
            )
        head, pointer, page = result.ranges()
        self._head = max(self._head, _index_in(head.kvs[0].value) if head.kvs else 0)
        batch: list[CommittedCommand | CommittedSnapshot] = []
        known = _POINTER.unpack(pointer.kvs[0].value) if pointer.kvs else None
        if known is not None and known[0] >= first:
            state = await self._read_state(*known)
            if state is None:
                return False  # a newer one took its place meanwhile
            batch.append(CommittedSnapshot(known[0], state))
            self._handed_out = known[0]
        for item in page.kvs:
            if self._index_of(item) == self._handed_out + 1:
                self._handed_out += 1
                batch.append(CommittedCommand(self._handed_out, item.value))
        if batch:
            self._ready.append(tuple(batch))
            self._ready_changed.set()
        self._level = self._handed_out >= self._head
        return self._level

    async def _watch(self) -> None:
        head = self._prefix + b"head"
        async with self._http.watch(head, head + b"\0") as changes:
            async for _ in changes:
                self._read_soon.set()
        raise ConsensusError("etcd ended a watch")

    def _log_key(self, index: int) -> bytes:
        return self._prefix + b"log/%016x" % index

    def _index_of(self, item: KeyValue) -> int:
        return int(item.key[len(self._prefix) + 4 :], 16)

    # -- snapshots ---------------------------------------------------------------------------------

    def _state_key(self, index: int, number: int = 0) -> bytes:
        return self._prefix + b"state/%016x/%08x" % (index, number)

    async def _read_state(self, index: int, count: int, digest: bytes) -> bytes | None:
        pieces: list[bytes] = []
        for number in range(count):
            async with asyncio.timeout(_CALL_S):
                result = await self._http.txn([], [_range(self._state_key(index, number))])
            (found,) = result.ranges()
            if not found.kvs:
                return None
            pieces.append(found.kvs[0].value)
        state = b"".join(pieces)
        return state if hmac.compare_digest(blake3(state).digest(), digest) else None

    async def _compact(self) -> None:
        while True:
            await self._compact_soon.wait()
            self._compact_soon.clear()
            compaction, self._compaction = self._compaction, None
            if compaction is not None and self.leader() == self._server:
                await self._write_snapshot(*compaction)

    async def _write_snapshot(self, index: int, state: bytes) -> None:
        key = self._prefix + b"snapshot"
        (found,) = (await self._http.txn([], [_range(key)])).ranges()
        if found.kvs and _POINTER.unpack(found.kvs[0].value)[0] >= index:
            return
        starts = range(0, max(len(state), 1), _PIECE_BYTES)
        for number, start in enumerate(starts):
            piece = state[start : start + _PIECE_BYTES]
            await self._http.txn([], [_put(self._state_key(index, number), piece)])
        pointer = _POINTER.pack(index, len(starts), blake3(state).digest())
        unchanged = _equals(key, found.kvs[0].value) if found.kvs else _is_missing(key)
        if not (await self._http.txn([unchanged], [_put(key, pointer)])).succeeded:
            return
        gone = await self._http.txn(
            [],
            [
                _delete(self._log_key(0), self._log_key(index + 1)),
                _delete(self._state_key(0), self._state_key(index)),
            ],
        )
        with contextlib.suppress(ConsensusError):  # somebody else was there before
            await self._http.compact(int(gone.header.revision))

    # -- leadership --------------------------------------------------------------------------------

    async def _stand(self) -> None:
        """Take or keep the lease, or note who has it."""
        while True:
            asked = self._clock()
            async with asyncio.timeout(_CALL_S):
                if self._lease is None or not await self._http.keep_alive(self._lease):
                    self._lease = (await self._http.grant(_LEASE_S)).ID
                await self._claim(asked)
            await asyncio.sleep(_RENEW_S)

    async def _claim(self, asked: float) -> None:
        key = self._prefix + b"leader"
        lease = {"lease": self._lease}
        mine = {"request_put": {"key": text(key), "value": text(bytes([self._server]))} | lease}
        result = await self._http.txn([_is_missing(key)], [mine], [_range(key)])
        holder = self._server
        if not result.succeeded:
            kvs = result.ranges()[0].kvs
            if not kvs or len(kvs[0].value) != 1:
                return
            holder = kvs[0].value[0]
        # From before the question, so that the lease outlives what is believed of it.
        self._leader = holder, asked + _LEASE_S

    async def _repeat(self, step: Callable[[], object]) -> None:
        """Run a step that ends in failures only, again and again."""
        while True:
            try:
                pending = step()
                assert asyncio.iscoroutine(pending)
                await pending
            except (ConsensusError, TimeoutError, struct.error, ValueError, IndexError):
                self._level = False
            await asyncio.sleep(_RETRY_S)


def _index_in(value: bytes) -> int:
    number: int = _INDEX.unpack(value)[0]
    return number


def _equals(key: bytes, value: bytes) -> Mapping[str, object]:
    return {"key": text(key), "target": "VALUE", "result": "EQUAL", "value": text(value)}


def _is_missing(key: bytes) -> Mapping[str, object]:
    return {"key": text(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}


def _put(key: bytes, value: bytes) -> Mapping[str, object]:
    return {"request_put": {"key": text(key), "value": text(value)}}


def _range(key: bytes, end: bytes = b"", *, limit: int = 0) -> Mapping[str, object]:
    body: dict[str, object] = {"key": text(key)}
    if end:
        body |= {"range_end": text(end), "limit": str(limit)}
    return {"request_range": body}


def _delete(key: bytes, end: bytes) -> Mapping[str, object]:
    return {"request_delete_range": {"key": text(key), "range_end": text(end)}}

"""The contracts between pure logic and the outside world: adapters implement, nodes compose.

Duties are stated once, here. Every adapter of a port passes that port's conformance suite under
``tests/conformance``. Nothing in this module performs I/O.

Ports:

* :class:`Connection`, :class:`Listener`, :class:`Transport` — framed, ordered, authenticated links.
* :class:`Consensus` — orders small commands among the committee.
* :class:`Journal` — an append-only, checksummed, durable sequence of byte strings.
* :class:`CompactingJournal` — the same, with snapshots that let it forget its beginning.
* :class:`Blobs`, :class:`RecordStore` — blobs by digest; sealed records by sequence.
* :class:`Clock` — wall and monotonic time.
* :class:`Attestor` — shows evidence of this machine, judges that of others.
* :class:`KeyCustody` — keeps a party's signing keys, and signs with them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from zipnet.admission import EvidenceView, Judgement
    from zipnet.protocol.attestation import AttestationTerms
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.ids import Digest
    from zipnet.wire.frames import Frame

__all__ = [
    "Attestor",
    "Blobs",
    "Clock",
    "CommittedCommand",
    "CommittedSnapshot",
    "CompactingJournal",
    "Connection",
    "Consensus",
    "ConsensusMesh",
    "Journal",
    "KeyCustody",
    "Listener",
    "PeerCertificate",
    "RecordStore",
    "Transport",
]


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What the transport itself proved about the other side.

    Attributes:
        public_key: Raw Ed25519 key (32 bytes) of the certificate the peer proved possession of,
            or None where this transport did not ask the peer for one (a client on any transport).
    """

    public_key: bytes | None


@runtime_checkable
class Connection(Protocol):
    """One encrypted, ordered, bidirectional link that carries frames.

    Duties: frames arrive whole, in order, at most once; ``send`` waits while the peer is slow
    (back-pressure) and raises :class:`~zipnet.errors.TransportError` when the link is gone or a
    deadline passes; ``receive`` raises :class:`~zipnet.errors.TransportError` on end of stream and
    :class:`~zipnet.errors.RemoteProtocolError` on bytes that are no frame; both adapters accept
    and refuse exactly the same frames. ``close`` is idempotent, flushes what was sent, and is
    bounded in time.
    """

    @property
    def peer_certificate(self) -> PeerCertificate: ...

    @property
    def local_certificate(self) -> PeerCertificate:
        """What this side proved to the peer on this very connection."""
        ...

    @property
    def remote_address(self) -> str:
        """``host:port`` of the peer, for refusal logs only."""
        ...

    async def send(self, frame: Frame) -> None: ...

    async def receive(self) -> Frame: ...

    async def close(self, *, code: int = 0, reason: str = "") -> None: ...


class Listener(Protocol):
    """A bound socket that hands each connection to its handler; ``close`` stops and waits."""

    @property
    def port(self) -> int: ...

    async def close(self) -> None: ...


class Transport(Protocol):
    """Makes and accepts :class:`Connection` objects over one engine (``quic`` or ``tls``).

    Duties: TLS 1.3 only; the listening side always presents the node's self-signed Ed25519
    certificate; ``connect`` verifies that the certificate of the far side carries exactly
    ``expected_key`` and raises :class:`~zipnet.errors.TransportError` otherwise, before a single
    frame is sent. The handler's task is owned by the listener and cancelled by ``close``.
    """

    name: str

    async def connect(
        self, host: str, port: int, *, expected_key: bytes, timeout_s: float
    ) -> Connection: ...

    async def listen(
        self, host: str, port: int, handler: Callable[[Connection], Awaitable[None]]
    ) -> Listener: ...


@dataclass(frozen=True, slots=True)
class CommittedCommand:
    """One committed entry of the committee's log: its position (gapless, from 1) and its bytes."""

    index: int
    command: bytes


@dataclass(frozen=True, slots=True)
class CommittedSnapshot:
    """What the commands up to ``index`` led to, in place of those commands.

    Attributes:
        index: The last command it stands for; the next one handed out is ``index + 1``.
        state: What some member gave to :meth:`Consensus.compact` for that index.
    """

    index: int
    state: bytes = field(repr=False)


class ConsensusMesh(Protocol):
    """What a consensus engine needs from the node: FIFO messages between committee members.

    Duties: ``send`` never blocks and never raises; it drops when there is no link or its bounded
    queue is full (the engine retransmits). Messages of one link arrive in order. ``connected``
    tells which members have a live authenticated link now.
    """

    def send(self, server: int, message: bytes) -> None: ...

    def connected(self) -> frozenset[int]: ...


class Consensus(Protocol):
    """Orders small commands (at most 8 KiB each) among the committee, crash-fault tolerant.

    Duties: every member's ``batches`` yields the same commands in the same order without gaps or
    doubles, from index 1 after each start (state machines are rebuilt by replay), except that a
    :class:`CommittedSnapshot` may stand for all commands up to its index: first after a start, and
    later where this member was too far behind. A command that ``propose`` returned for is committed
    and durable on a majority; ``propose`` raises :class:`~zipnet.errors.ConsensusError` when the
    command was not accepted *or its fate is not known*, so commands must be idempotent. What all
    members pass to ``compact`` for one index must be the same bytes. Privacy never rests on this
    port.
    """

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def propose(self, command: bytes, *, timeout_s: float) -> None: ...

    def batches(self) -> AsyncIterator[Sequence[CommittedCommand | CommittedSnapshot]]:
        """Committed commands, grouped as they became known; ends when the engine stops."""
        ...

    def compact(self, index: int, state: bytes) -> None:
        """Let ``state`` stand for all commands up to ``index``, which this member has applied.

        A hint that returns at once; the engine may also go on without acting on it.
        """
        ...

    def receive(self, server: int, message: bytes) -> None:
        """Feed one message of another member's engine; malformed bytes: RemoteProtocolError."""
        ...

    def link_changed(self, server: int, *, up: bool) -> None:
        """Tell the engine that the link to a member came up or went down."""
        ...

    def leader(self) -> int | None:
        """Index of the member believed to lead now, if any."""
        ...

    def caught_up(self) -> bool:
        """Whether everything known to be committed has been handed out by ``batches``."""
        ...


class Journal(Protocol):
    """An append-only sequence of byte strings that survives SIGKILL and power loss.

    Duties: ``append`` returns only after the entry is durable (fsync of file, and of the folder
    when the file is new); entries carry a checksum; opening truncates a torn tail, refuses
    corruption before the tail with :class:`~zipnet.errors.StorageError`, and never loses an entry
    whose ``append`` returned. A failed append or fsync raises :class:`~zipnet.errors.SafeMode` and
    every later append does too. A second process on the same file is refused.
    """

    def entries(self) -> Sequence[bytes]: ...

    def append(self, entry: bytes) -> None: ...

    def append_group(self, entries: Sequence[bytes]) -> None:
        """Append several entries with one fsync: after a crash all of them are there, or none."""
        ...

    def truncate(self, count: int) -> None:
        """Drop all entries from position ``count`` on, durably."""
        ...

    def close(self) -> None: ...


class CompactingJournal(Protocol):
    """A :class:`Journal` of groups that can put a snapshot in the place of its beginning.

    Duties: those of :class:`Journal` for what is appended. ``compact`` is atomic: after a crash
    there is either everything as before, or exactly the new snapshot and entries. A snapshot
    damaged later is noticed on opening, never handed out, and made up for by what was there before
    or refused with :class:`~zipnet.errors.StorageError`; in the first case ``entries`` are those
    after the older snapshot, and repeat what was restated for the newer one.
    """

    def snapshot(self) -> bytes | None: ...

    def entries(self) -> Sequence[bytes]: ...

    def append_group(self, entries: Sequence[bytes]) -> None: ...

    def compact(self, snapshot: bytes, entries: Sequence[bytes]) -> None: ...

    def close(self) -> None: ...


class Blobs(Protocol):
    """Blobs by content digest: recent ones bounded, kept ones until they are dropped.

    Duties: what ``get`` returns has the digest it was asked by; ``keep`` returns once the blob
    lasts as long as this store does. Methods may be called from several threads.
    """

    def put(self, blob: bytes, *, expected: Digest | None = None) -> Digest:
        """Hold a blob; RemoteProtocolError when its digest is not the expected one."""
        ...

    def keep(self, digest: Digest, blob: bytes | None = None) -> None:
        """Keep a blob, which is held unless it is given; SafeMode when it cannot be durable."""
        ...

    def pin(self, digests: frozenset[Digest]) -> None:
        """Let go of none of these, whatever else comes, until other ones are named."""
        ...

    def kept(self) -> list[Digest]:
        """The digests of all kept blobs."""
        ...

    def get(self, digest: Digest) -> bytes | None: ...

    def drop(self, digests: Iterable[Digest]) -> None: ...


class RecordStore(Protocol):
    """Sealed records by sequence, one writer, any number of readers.

    Duties: ``append`` returns once the record lasts as long as this store does, and takes only the
    next sequence; the very first record may have any sequence where ``begins_anywhere``. ``read``
    gives records without gaps, from the sequence asked for or the oldest one held on.
    """

    @property
    def begins_anywhere(self) -> bool: ...

    @property
    def first_sequence(self) -> int:
        """The sequence of the oldest record held, or of the next one where none is."""
        ...

    @property
    def next_sequence(self) -> int: ...

    def append(self, sequence: int, data: bytes) -> None: ...

    def read(self, from_sequence: int, limit: int, *, max_bytes: int = ...) -> list[bytes]: ...

    def close(self) -> None: ...


class Clock(Protocol):
    """Time as the node sees it."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class Attestor(Protocol):
    """Shows evidence of the platform this process runs on, and judges that of others.

    Duties: ``show`` binds a quote to exactly the view it is given and compares what came back
    before it is shown; tickets may be kept until they are due for renewal, answers to challenges
    never. ``judge`` refuses with :class:`~zipnet.errors.AdmissionError`, whatever the bytes.
    ``wait_changed`` returns when what is demanded has changed, so that standing bonds are judged
    again.
    """

    @property
    def terms(self) -> AttestationTerms:
        """What the group asks; never ``off``."""
        ...

    def now(self) -> int:
        """Unix seconds, as evidence is judged by."""
        ...

    async def show(self, view: EvidenceView) -> bytes:
        """Return evidence bound to the view; AdmissionError when this machine cannot make any."""
        ...

    def judge(self, data: bytes | None, view: EvidenceView, *, now: int | None = None) -> Judgement:
        """Judge a peer's evidence, at an earlier moment where ``now`` is given."""
        ...

    async def wait_changed(self) -> None:
        """Return when what is demanded has changed."""
        ...


class KeyCustody(Protocol):
    """Keeps the signing keys of one party, in a file, in memory or in a token (row L3).

    Duties: ``open`` lends an identity that signs; it is the same party each time. Whatever the
    keeper holds for itself, such as a token, never enters this process, and the identity says so
    rather than hand it out. After ``close`` what was lent signs no more. ``repr`` and errors name
    the keeper and nothing of the keys. Methods are called from one thread.
    """

    @property
    def described(self) -> str:
        """Where the keys are, in words for a person."""
        ...

    def open(self) -> Identity:
        """Lend the identity; ConfigError when the keeper is not there or not ours to use."""
        ...

    def close(self) -> None:
        """Take back what was lent. Idempotent."""
        ...

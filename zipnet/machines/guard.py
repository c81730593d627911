"""The release guard: the last thing between a server's pads and the world (protocol.md §6, §8).

Two partials for two participant sets of one round would unmask the difference. So, whatever the
log, the leader or an aggregator say, this server releases only when:

1. it is in the round's roster, and the aggregate is of exactly this round and header;
2. the participants are at least its *own* ``min_participants``, all registered for this round and
   admitted by this server;
3. the round is newer than any it ever released, or it is the very same release again;
4. ``released(round, digest)`` is durable before anything leaves (the driver's ``Persist`` duty).

The guard believes nothing but its arguments and its own memory, which survives restarts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zipnet.errors import StorageError
from zipnet.protocol.encoding import Reader, Writer
from zipnet.protocol.ids import Digest, RoundNumber, derive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.ids import RegistryIndex, ServerIndex
    from zipnet.protocol.participants import Participants

__all__ = ["RefusedRelease", "ReleaseGuard", "ReleaseRequest", "Released"]


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """What a server is asked to release its pads for."""

    header: RoundHeader
    aggregate_round: RoundNumber
    aggregate_header_hash: Digest
    participants: Participants


@dataclass(frozen=True, slots=True)
class Released:
    """A release as it is remembered for ever: the round, and what its partial depends on."""

    round: RoundNumber
    digest: Digest

    def encode(self) -> bytes:
        """Lay the release out as one journal entry."""
        return Writer().u64(self.round).fixed(self.digest, 32).take()

    @staticmethod
    def decode(data: bytes) -> Released:
        """Parse one journal entry.

        Raises:
            RemoteProtocolError: When the bytes are not one release.
        """
        reader = Reader(data)
        released = Released(RoundNumber(reader.u64()), Digest(reader.fixed(32)))
        reader.finish()
        return released


@dataclass(frozen=True, slots=True)
class RefusedRelease:
    """The guard's no; ``reason`` is a stable word for logs and metrics."""

    reason: str


class ReleaseGuard:
    """Decides releases for one server.

    Args:
        server: This server's index.
        min_participants: Fewest distinct, registered and admitted clients it will unblind for.
        history: Every release this server ever made, oldest first, from its durable journal; None
            when that memory is lost. Then nothing is released before :meth:`enter` was called.

    Raises:
        StorageError: When the history is not strictly ascending: the journal cannot be trusted.
    """

    def __init__(
        self, *, server: ServerIndex, min_participants: int, history: Iterable[Released] | None = ()
    ) -> None:
        self._server = server
        self._min_participants = min_participants
        self._last = Released(RoundNumber(0), Digest(bytes(32)))
        self._entered = history is not None
        for released in history or ():
            if released.round <= self._last.round:
                raise StorageError("the release journal goes backwards; it cannot be trusted")
            self._last = released

    @property
    def last_round(self) -> RoundNumber:
        """Newest round this server ever released."""
        return self._last.round

    def enter(self, last_opened: RoundNumber) -> None:
        """Begin after a loss of memory: rounds up to ``last_opened`` are refused for ever.

        Changes nothing for a guard that remembers. The caller knows everything that was committed
        before this process began, so every round an earlier life released for is among those.
        """
        if not self._entered:
            self._entered = True
            self._last = Released(last_opened, self._last.digest)

    def decide(
        self, request: ReleaseRequest, *, admitted: Callable[[RegistryIndex], bool]
    ) -> Released | RefusedRelease:
        """Decide on a release; changes nothing.

        Args:
            request: What is to be unblinded.
            admitted: Whether a registry index is registered for this round, unrevoked, and
                admitted by this very server.

        Returns:
            The release to persist first and make then, or the refusal.
        """
        header = request.header
        # 1. This round, this header, this server, and nothing forgotten.
        misfit = self._misfit(request)
        if misfit is not None:
            return RefusedRelease(misfit)
        # 2. Enough distinct clients, every one of them admitted here.
        if len(request.participants) < self._min_participants:
            return RefusedRelease("below_minimum")
        if not all(admitted(index) for index in request.participants):
            return RefusedRelease("not_admitted")
        # 3. Never a second release for a round, nor one for an older round.
        released = Released(header.round, _digest(header, request.participants))
        if released == self._last:
            return released
        if header.round == self._last.round:
            return RefusedRelease("second_release")
        if header.round < self._last.round:
            return RefusedRelease("older_round")
        return released

    def _misfit(self, request: ReleaseRequest) -> str | None:
        header = request.header
        if not self._entered:
            return "memory_lost"
        if self._server not in header.roster:
            return "not_in_roster"
        named = (request.aggregate_round, request.aggregate_header_hash)
        return None if named == (header.round, header.hash) else "other_header"

    def remember(self, released: Released) -> None:
        """Take note of a release once it is durable.

        Raises:
            StorageError: When it is not newer than the last one, which only a bug can cause.
        """
        if released != self._last and released.round <= self._last.round:
            raise StorageError("a release was persisted out of order")
        self._last = released


def _digest(header: RoundHeader, participants: Participants) -> Digest:
    # A partial is a function of header hash and participant set, so those two are remembered.
    return derive("release", header.hash, participants.digest)

"""The registry as its changes make it: who is registered at which version, and from which round.

protocol.md §4, §7. The registry is a list of changes; its version is their number, its digest
chains over them. Servers apply what their log commits, aggregators apply what a server sent them
and compare the digest with the signed header's.

Rules:

1. An index is given once, in order, and never again, also after it is retired.
2. One identity has at most one index that is not retired.
3. Membership is asked for one version *and* one round, so all who hold the same header agree.
4. ``apply`` takes all of a list or nothing.
5. A list may begin with a new beginning, and nowhere else have one: then it says all that counts
   from there on, and everything known before is forgotten. First come those still active, under
   the indexes they had.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError
from zipnet.protocol.ids import Digest, PeerId, RegistryIndex, RoundNumber
from zipnet.protocol.registration import (
    EMPTY_REGISTRY_DIGEST,
    RegistryChange,
    extend_registry_digest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Registered", "RegistryView"]


@dataclass(frozen=True, slots=True)
class Registered:
    """One index of the registry.

    Attributes:
        index: The index itself.
        peer: Peer id of the client.
        key: Its Ed25519 key, 32 bytes.
        since_version: Version that added it.
        first_round: First round it is good for.
        until_version: Version that retired it, None while it is active.
        end_round: First round it is no longer good for, None while it is active.
    """

    index: RegistryIndex
    peer: PeerId
    key: bytes
    since_version: int
    first_round: RoundNumber
    until_version: int | None = None
    end_round: RoundNumber | None = None


class RegistryView:
    """Everything a list of registry changes says."""

    def __init__(self) -> None:
        self._entries: dict[int, Registered] = {}
        self._next_index = 0
        #: Versions before the first change held; indexes below this one may be added again, as long
        #: as nothing else happened since; the next of them that may.
        self._offset = 0
        self._old_indexes = 0
        self._again_from = 0
        self._active: dict[PeerId, RegistryIndex] = {}
        self._by_peer: dict[PeerId, list[RegistryIndex]] = {}
        self._digests: list[Digest] = [EMPTY_REGISTRY_DIGEST]
        self._changes: list[RegistryChange] = []

    @property
    def version(self) -> int:
        """How many changes were applied."""
        return self._offset + len(self._changes)

    @property
    def base_version(self) -> int:
        """The version before the first change held: 0, or where the last new beginning was."""
        return self._offset

    @property
    def digest(self) -> Digest:
        """Digest chained over all changes."""
        return self._digests[-1]

    @property
    def next_index(self) -> RegistryIndex:
        """The index the next added client gets."""
        return RegistryIndex(self._next_index)

    @property
    def active_count(self) -> int:
        """How many indexes are not retired."""
        return len(self._active)

    @property
    def active_peers(self) -> Mapping[PeerId, RegistryIndex]:
        """Index of every client that is not retired, by peer id; read only."""
        return MappingProxyType(self._active)

    def digest_at(self, version: int) -> Digest | None:
        """Return the digest chained over the first ``version`` changes; None where not known."""
        position = version - self._offset
        known = 0 < position < len(self._digests) or (version == 0 == self._offset)
        return self._digests[position] if known else None

    def changes_from(self, version: int, limit: int) -> tuple[RegistryChange, ...]:
        """Return up to ``limit`` changes, the first of which made version ``version + 1``.

        Where that one is forgotten the first is the new beginning, which says so itself.
        """
        position = max(0, version - self._offset)
        return tuple(self._changes[position : position + limit])

    def rebase(self) -> None:
        """Begin anew: keep only what is active, so that the registry stays as large as it counts.

        Whoever holds an older version fetches this one whole.
        """
        begin = RegistryChange(self.next_index, None, None, RoundNumber(0), base=self.version)
        self.apply((begin, *self.active_changes()))

    def active_changes(self) -> tuple[RegistryChange, ...]:
        """Return the changes that added what is not retired, by index."""
        added = (change for change in self._changes if change.client is not None)
        return tuple(change for change in added if self.is_active(change.index))

    def apply(self, changes: Sequence[RegistryChange]) -> None:
        """Apply changes in order, all of them or none.

        Raises:
            RemoteProtocolError: When a change breaks a rule; the view stays as it was.
        """
        if changes and changes[0].base is not None:
            self._begin_anew(changes[0], changes[1:])
        else:
            self._extend(changes)

    def _extend(self, changes: Sequence[RegistryChange]) -> None:
        self._check(changes)
        for change in changes:
            self._digests.append(extend_registry_digest(self.digest, change))
            self._changes.append(change)
            if change.client is None:
                self._retire(change.index, change.first_round)
            else:
                self._add(change, *change.client)

    def _begin_anew(self, begin: RegistryChange, rest: Sequence[RegistryChange]) -> None:
        assert begin.base is not None
        if begin.base < self.version or begin.index < self.next_index:
            raise RemoteProtocolError("registry begins anew before what is known of it")
        fresh = RegistryView()
        fresh._offset = begin.base
        fresh._next_index = fresh._old_indexes = int(begin.index)
        fresh._digests.append(extend_registry_digest(EMPTY_REGISTRY_DIGEST, begin))
        fresh._changes.append(begin)
        fresh._extend(rest)
        self.__dict__.update(vars(fresh))

    def _add(self, change: RegistryChange, peer: PeerId, key: bytes) -> None:
        entry = Registered(change.index, peer, key, self.version, change.first_round)
        self._entries[change.index] = entry
        self._again_from = change.index + 1
        self._next_index = max(self._next_index, change.index + 1)
        self._active[peer] = change.index
        self._by_peer.setdefault(peer, []).append(change.index)

    def _retire(self, index: RegistryIndex, end_round: RoundNumber) -> None:
        entry = self._entries[index]
        self._again_from = self._next_index
        self._entries[index] = Registered(
            entry.index,
            entry.peer,
            entry.key,
            entry.since_version,
            entry.first_round,
            self.version,
            end_round,
        )
        del self._active[entry.peer]

    def _check(self, changes: Sequence[RegistryChange]) -> None:
        next_index = int(self.next_index)
        added: dict[PeerId, RegistryIndex] = {}
        again_from, given, retired = self._again_from, set[int](), set[RegistryIndex]()
        for change in changes:
            index = change.index
            if change.base is not None:
                raise RemoteProtocolError("registry begins anew in the middle of a list")
            if change.client is None:
                if index in retired or not (self.is_active(index) or index in given):
                    raise RemoteProtocolError("registry retires an index that is not active")
                retired.add(index)
                again_from = next_index
                continue
            if index != next_index and not again_from <= index < self._old_indexes:
                raise RemoteProtocolError("registry gives indexes out of order")
            again_from = index + 1
            given.add(index)
            peer, _key = change.client
            held = added.get(peer, self._active.get(peer))
            if held is not None and held not in retired:
                raise RemoteProtocolError("registry adds an identity that is active already")
            added[peer] = index
            next_index = max(next_index, index + 1)

    def entry(self, index: int) -> Registered | None:
        """Return what is known of an index, None when it was never given."""
        return self._entries.get(index)

    def index_of(self, peer: PeerId) -> RegistryIndex | None:
        """Return the active index of an identity, None when it has none."""
        return self._active.get(peer)

    def is_active(self, index: int) -> bool:
        """Tell whether an index was given and not retired, by the latest version."""
        entry = self.entry(index)
        return entry is not None and entry.until_version is None

    def is_member(self, index: int, version: int, round_number: RoundNumber) -> bool:
        """Tell whether an index counts in a round whose header names a registry version."""
        return self.member_at(index, version, round_number) is not None

    def member_at(self, index: int, version: int, round_number: RoundNumber) -> Registered | None:
        """Return the entry of an index that counts in such a round, else None."""
        entry = self.entry(index)
        if entry is None or entry.since_version > version or entry.first_round > round_number:
            return None
        retired = entry.until_version is not None and entry.until_version <= version
        if retired and entry.end_round is not None and entry.end_round <= round_number:
            return None
        return entry

    def active_at(self, version: int, round_number: RoundNumber) -> frozenset[RegistryIndex]:
        """Return all indexes that count in a round whose header names a registry version."""
        return frozenset(
            entry.index
            for entry in self._entries.values()
            if self.is_member(entry.index, version, round_number)
        )

    def peer_index_at(
        self, peer: PeerId, version: int, round_number: RoundNumber
    ) -> RegistryIndex | None:
        """Return the index under which an identity counts in such a round, else None."""
        for index in reversed(self._by_peer.get(peer, ())):  # the newest registration first
            if self.is_member(index, version, round_number):
                return index
        return None

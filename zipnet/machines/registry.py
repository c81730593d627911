"""The registry as its changes make it: who is registered at which version, and from which round.

protocol.md §4, §7. The registry is a list of changes; its version is their number, its digest
chains over them. Servers apply what their log commits, aggregators apply what a server sent them
and compare the digest with the signed header's.

Rules:

1. An index is given once, in order, and never again, also after it is retired.
2. One identity has at most one index that is not retired.
3. Membership is asked for one version *and* one round, so all who hold the same header agree.
4. ``apply`` takes all of a list or nothing.
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
        self._entries: list[Registered] = []
        self._active: dict[PeerId, RegistryIndex] = {}
        self._by_peer: dict[PeerId, list[RegistryIndex]] = {}
        self._digests: list[Digest] = [EMPTY_REGISTRY_DIGEST]
        self._changes: list[RegistryChange] = []

    @property
    def version(self) -> int:
        """How many changes were applied."""
        return len(self._changes)

    @property
    def digest(self) -> Digest:
        """Digest chained over all changes."""
        return self._digests[-1]

    @property
    def next_index(self) -> RegistryIndex:
        """The index the next added client gets."""
        return RegistryIndex(len(self._entries))

    @property
    def active_count(self) -> int:
        """How many indexes are not retired."""
        return len(self._active)

    @property
    def active_peers(self) -> Mapping[PeerId, RegistryIndex]:
        """Index of every client that is not retired, by peer id; read only."""
        return MappingProxyType(self._active)

    def digest_at(self, version: int) -> Digest | None:
        """Return the digest chained over the first ``version`` changes, None beyond the last."""
        return self._digests[version] if 0 <= version < len(self._digests) else None

    def changes_from(self, version: int, limit: int) -> tuple[RegistryChange, ...]:
        """Return up to ``limit`` changes, the first of which made version ``version + 1``."""
        return tuple(self._changes[version : version + limit])

    def active_changes(self) -> tuple[RegistryChange, ...]:
        """Return the changes that added what is not retired, by index."""
        added = (change for change in self._changes if change.client is not None)
        return tuple(change for change in added if self.is_active(change.index))

    def apply(self, changes: Sequence[RegistryChange]) -> None:
        """Apply changes in order, all of them or none.

        Raises:
            RemoteProtocolError: When a change breaks a rule; the view stays as it was.
        """
        self._check(changes)
        for change in changes:
            self._digests.append(extend_registry_digest(self.digest, change))
            self._changes.append(change)
            if change.client is None:
                self._retire(change.index, change.first_round)
            else:
                self._add(change, *change.client)

    def _add(self, change: RegistryChange, peer: PeerId, key: bytes) -> None:
        entry = Registered(change.index, peer, key, self.version, change.first_round)
        self._entries.append(entry)
        self._active[peer] = change.index
        self._by_peer.setdefault(peer, []).append(change.index)

    def _retire(self, index: RegistryIndex, end_round: RoundNumber) -> None:
        entry = self._entries[index]
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
        first_new, retired = next_index, set[RegistryIndex]()
        for change in changes:
            index = change.index
            if change.client is None:
                known = self.is_active(index) or first_new <= index < next_index
                if index in retired or not known:
                    raise RemoteProtocolError("registry retires an index that is not active")
                retired.add(index)
                continue
            if index != next_index:
                raise RemoteProtocolError("registry gives indexes out of order")
            peer, _key = change.client
            held = added.get(peer, self._active.get(peer))
            if held is not None and held not in retired:
                raise RemoteProtocolError("registry adds an identity that is active already")
            added[peer] = index
            next_index += 1

    def entry(self, index: int) -> Registered | None:
        """Return what is known of an index, None when it was never given."""
        return self._entries[index] if 0 <= index < len(self._entries) else None

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
            for entry in self._entries
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

"""The aggregator's machine: which submissions count, when folding ends, what goes up the tree.

protocol.md §6 "fold". An aggregator is trusted with delivery only; what it checks keeps junk from
spoiling a round, never privacy.

Rules:

1. A round is folded under a header that verifies: signed by its opener, of this group, with a
   roster the descriptor allows, newer than every round folded before.
2. Folding begins once the registry is known at the header's version with the header's digest. What
   does not lead to that digest is not believed: the source is replaced.
3. An envelope counts when its sender is registered in this round, is the peer that sent it, and
   header, size and signature are right. One envelope an index: a byte-identical copy is answered
   again, anything else is refused, also after folding ended.
4. A child's aggregate counts when the child is this node's own, the aggregate is of this header,
   every participant is registered and none is in the fold already.
5. Folding ends when everyone who is connected and may send has sent, or at the node's deadline:
   ``fold_deadline * (height + 1) / (root's height + 1)``. With nobody to wait for it is a quarter
   of that. Then the aggregate goes up once, empty or not, and what comes later is refused.
6. A peer may try a bounded number of times in a round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.errors import ProtocolError, VerificationError
from zipnet.machines.aggregator_effects import (
    Accept,
    ArmTimer,
    ChildAggregate,
    DescriptorChanged,
    Distrust,
    Effect,
    EnvelopeReceived,
    Event,
    FetchRegistry,
    HeaderReceived,
    PeerGone,
    PeerHere,
    Refuse,
    RegistryReceived,
    RelayHeader,
    RoundOver,
    SendAggregate,
    SourceChanged,
    TimerFired,
)
from zipnet.machines.fold import Fold
from zipnet.machines.registry import RegistryView
from zipnet.protocol.envelope import admit_envelope
from zipnet.protocol.header import verify_header
from zipnet.protocol.ids import RoundNumber, content_digest
from zipnet.protocol.registration import extend_registry_digest

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import AggregatorEntry, TrustedDescriptor
    from zipnet.protocol.header import RoundHeader, SignedHeader
    from zipnet.protocol.ids import Digest, PeerId
    from zipnet.protocol.params import Cadence
    from zipnet.protocol.registration import RegistryChange

__all__ = ["MAX_ATTEMPTS", "AggregatorMachine", "fold_deadline_s"]

MAX_ATTEMPTS = 8
"""Submissions one peer may make in one round, copies and refused ones included."""

_IDLE_SHARE = 0.25
_REGISTRY_RETRY_S = 0.5


def fold_deadline_s(descriptor: TrustedDescriptor, name: str, cadence: Cadence) -> float:
    """Return how long the aggregator ``name`` folds, in seconds from the header (rule 5)."""
    parents = {e.node.name: e.parent for e in descriptor.descriptor.aggregators}
    root = name
    while (parent := parents[root]) is not None:
        root = parent
    levels = descriptor.aggregator_height(root) + 1
    share = (descriptor.aggregator_height(name) + 1) / levels
    return cadence.fold_deadline_ms / 1000 * share


class AggregatorMachine:
    """One aggregator as a pure machine; ``now`` is monotonic time in seconds.

    Args:
        descriptor: The trusted descriptor.
        entry: This node's own entry in it.
        cadence: Deadlines to keep; the descriptor's when None.
    """

    def __init__(
        self,
        descriptor: TrustedDescriptor,
        entry: AggregatorEntry,
        *,
        cadence: Cadence | None = None,
    ) -> None:
        self.registry = RegistryView()
        self._cadence = cadence if cadence is not None else descriptor.descriptor.cadence
        self._go_by(descriptor, entry)
        self._here: dict[PeerId, int] = {}
        self._fold: Fold | None = None
        self._last_round = RoundNumber(0)
        self._waiting: SignedHeader | None = None
        self._changes: list[RegistryChange] = []
        self._asked_at = float("-inf")

    @property
    def open_header(self) -> SignedHeader | None:
        """The header of the round that is being folded, None while none is."""
        return None if self._fold is None or self._fold.closed else self._fold.signed

    @property
    def last_round(self) -> RoundNumber:
        """The newest round this node folded or folds."""
        return self._last_round

    def step(self, event: Event, now: float) -> list[Effect]:  # noqa: C901 - the table of events
        """Take one event and return what to do, in order."""
        effects: list[Effect] = []
        match event:
            case SourceChanged():
                self._on_source_changed(now, effects)
            case HeaderReceived():
                self._on_header(event.signed, now, effects)
            case RegistryReceived():
                self._on_registry(event, now, effects)
            case PeerHere():
                self._on_peer_here(event.peer)
            case PeerGone():
                self._on_peer_gone(event.peer)
            case EnvelopeReceived():
                effects.append(self._on_envelope(event))
            case ChildAggregate():
                effects.append(self._on_child(event))
            case RoundOver():
                self._on_round_over(event.round)
            case DescriptorChanged():
                self._go_by(event.descriptor, event.entry)
            case TimerFired():
                self._on_timer(now, effects)
        self._look_at_fold(now, effects)
        return effects

    def _go_by(self, descriptor: TrustedDescriptor, entry: AggregatorEntry) -> None:
        self._descriptor = descriptor
        self._deadline_s = fold_deadline_s(descriptor, entry.node.name, self._cadence)
        children = descriptor.children(entry.node.name)
        self._children = frozenset(child.node.peer_id for child in children)

    # -- headers and registry --------------------------------------------------------------

    def _on_source_changed(self, now: float, effects: list[Effect]) -> None:
        # A source that lied about a round far ahead must not make the next one look stale.
        if self._fold is None or self._fold.closed:
            self._last_round = RoundNumber(0)
        self._changes.clear()
        if self._waiting is not None:
            self._ask(now, effects)

    def _on_header(self, signed: SignedHeader, now: float, effects: list[Effect]) -> None:
        newest = self._last_round if self._waiting is None else self._waiting.header.round
        again = self._fold is not None and self._fold.signed.header == signed.header
        if signed.header.round <= newest or again:
            return
        reason = self._header_fault(signed)
        if reason is not None:
            effects.append(Distrust(reason))
            return
        self._waiting = signed
        self._open_when_known(now, effects)

    def _header_fault(self, signed: SignedHeader) -> str | None:
        """Rule 1, its numbered steps."""
        header, descriptor = signed.header, self._descriptor
        # 1. It is of this group and of this descriptor.
        if header.group != descriptor.group:
            return "other_group"
        if header.descriptor_version != descriptor.descriptor.version:
            return "other_descriptor"
        # 2. Its roster is allowed, 3. and its opener signed it.
        try:
            descriptor.require_roster(header.roster)
            verify_header(signed, descriptor.committee_keys)
        except (ProtocolError, VerificationError):
            return "bad_header"
        return None

    def _open_when_known(self, now: float, effects: list[Effect]) -> None:
        if self._waiting is None:
            return
        header = self._waiting.header
        if header.registry_version > self.registry.version:
            self._ask(now, effects)
            return
        if self.registry.digest_at(header.registry_version) != header.registry_digest:
            # The registry here was checked against an earlier header: this one forks it.
            self._waiting = None
            effects.append(Distrust("registry_fork"))
            return
        self._open(self._waiting, now, effects)

    def _open(self, signed: SignedHeader, now: float, effects: list[Effect]) -> None:
        self._waiting = None
        self._last_round = signed.header.round
        fold = Fold(signed, self._descriptor.params.body_bytes, now)
        fold.awaited.update(peer for peer in self._here if self._may_send(peer, fold))
        fold.expects = bool(fold.awaited)
        self._fold = fold
        effects.append(RelayHeader(signed))
        effects.append(ArmTimer(now + self._deadline_s * _IDLE_SHARE))
        effects.append(ArmTimer(now + self._deadline_s))

    def _ask(self, now: float, effects: list[Effect]) -> None:
        self._asked_at = now
        effects.append(FetchRegistry(self._held_version() + len(self._changes)))
        effects.append(ArmTimer(now + _REGISTRY_RETRY_S))

    def _held_version(self) -> int:
        """The version the changes at hand follow: of the registry, or of a new beginning."""
        first = self._changes[0].base if self._changes else None
        return self.registry.version if first is None else first

    def _on_registry(self, event: RegistryReceived, now: float, effects: list[Effect]) -> None:
        if self._waiting is None or event.from_version != self._held_version() + len(self._changes):
            return
        header = self._waiting.header
        if event.changes and event.changes[0].base is not None:
            if event.changes[0].base >= header.registry_version:
                # The round that names the older version is over: its registry is gone.
                self._waiting = None
                self._changes.clear()
                return
            self._changes.clear()  # the server has forgotten what they follow
        self._changes.extend(event.changes)
        missing = header.registry_version - self._held_version()
        if len(self._changes) < missing:
            if not event.changes:
                self._disbelieve("registry_incomplete", effects)
            else:
                self._ask(now, effects)
            return
        self._believe(header, self._changes[:missing], now, effects)

    def _believe(
        self, header: RoundHeader, changes: list[RegistryChange], now: float, effects: list[Effect]
    ) -> None:
        """Rule 2: the changes count only if they lead to the digest the opener signed."""
        self._changes = []
        digest = self.registry.digest
        for change in changes:
            digest = extend_registry_digest(digest, change)
        if digest != header.registry_digest:
            self._disbelieve("registry_digest", effects)
            return
        try:
            self.registry.apply(changes)
        except ProtocolError:
            self._waiting = None
            self._disbelieve("registry_malformed", effects)
            return
        self._open_when_known(now, effects)

    def _disbelieve(self, reason: str, effects: list[Effect]) -> None:
        self._changes.clear()
        effects.append(Distrust(reason))

    # -- submissions -----------------------------------------------------------------------

    def _on_envelope(self, event: EnvelopeReceived) -> Effect:
        reason = self._envelope_fault(event)
        return Accept(event.ticket) if reason is None else Refuse(event.ticket, reason)

    def _on_child(self, event: ChildAggregate) -> Effect:
        reason = self._child_fault(event)
        return Accept(event.ticket) if reason is None else Refuse(event.ticket, reason)

    def _round_fault(self, fold: Fold, source: PeerId, round_number: RoundNumber) -> str | None:
        """What is wrong with the round a submission names, or with its source's appetite."""
        if round_number != fold.header.round:
            return "round_not_open" if round_number > self._last_round else "round_closed"
        return "quota_exceeded" if fold.count_attempt(source) > MAX_ATTEMPTS else None

    def _envelope_fault(self, event: EnvelopeReceived) -> str | None:
        """Rule 3, its numbered steps; folds the envelope when nothing is wrong with it."""
        fold, envelope = self._fold, event.envelope
        # 1. It is for the round that is folded here, and the peer has tries left.
        if fold is None:
            return "round_not_open"
        reason = self._round_fault(fold, event.source, envelope.round)
        if reason is not None:
            return reason
        # 2. The sender counts in this round, and is who sent it.
        header = fold.header
        member = self.registry.member_at(envelope.sender, header.registry_version, header.round)
        if member is None:
            return "not_registered"
        if member.peer != event.source:
            return "wrong_sender"
        # 3. It is the sender's first, or a copy of it.
        digest = content_digest(envelope.body)
        known = fold.envelope_of(envelope.sender)
        if known == (digest, envelope.signature):
            return None
        if envelope.sender in fold.participants:  # by itself, or in a child's aggregate
            return "duplicate_envelope"
        if fold.closed:
            return "round_closed"
        return self._admit(fold, event, member.key, digest)

    def _admit(self, fold: Fold, event: EnvelopeReceived, key: bytes, digest: Digest) -> str | None:
        """Rule 3, last step: header, size and signature are right."""
        try:
            admitted = admit_envelope(
                event.envelope,
                header_hash=fold.header_hash,
                round_number=fold.header.round,
                params=self._descriptor.params,
                sender_key=key,
            )
        except ProtocolError:
            return "malformed_envelope"
        except VerificationError:
            return "bad_signature"
        fold.add_envelope(admitted.sender, admitted.body, digest, event.envelope.signature)
        fold.awaited.discard(event.source)
        return None

    def _child_fault(self, event: ChildAggregate) -> str | None:
        """Rule 4, its numbered steps; folds the aggregate when nothing is wrong with it."""
        fold, aggregate = self._fold, event.aggregate
        # 1. The source is this node's own child.
        if event.source not in self._children:
            return "not_a_child"
        # 2. It is for the round that is folded here, under the same header.
        if fold is None:
            return "round_not_open"
        reason = self._round_fault(fold, event.source, aggregate.round)
        if reason is not None:
            return reason
        if aggregate.header_hash != fold.header_hash:
            return "other_header"
        # 3. It is the child's first, or a copy of it.
        known = fold.child_digest(event.source)
        if known is not None:
            return None if known == event.digest else "duplicate_aggregate"
        return "round_closed" if fold.closed else self._take_child(fold, event)

    def _take_child(self, fold: Fold, event: ChildAggregate) -> str | None:
        """Rule 4, last step: everyone in it counts in this round, nobody is in the fold yet."""
        aggregate, header = event.aggregate, fold.header
        if len(aggregate.body) != self._descriptor.params.body_bytes:
            return "malformed_aggregate"
        if not aggregate.participants.isdisjoint(fold.participants):
            return "overlapping_participants"
        version, number = header.registry_version, header.round
        peers: list[PeerId] = []
        for index in aggregate.participants:
            member = self.registry.member_at(index, version, number)
            if member is None:
                return "not_registered"
            peers.append(member.peer)
        fold.add_child(event.source, event.digest, aggregate)
        fold.awaited.difference_update(peers, (event.source,))
        return None

    # -- the end of folding ----------------------------------------------------------------

    def _on_peer_here(self, peer: PeerId) -> None:
        self._here[peer] = self._here.get(peer, 0) + 1
        if self._fold is not None and not self._fold.closed and self._may_send(peer, self._fold):
            self._fold.expects = True
            self._fold.awaited.add(peer)

    def _on_peer_gone(self, peer: PeerId) -> None:
        left = self._here.get(peer, 0) - 1
        if left > 0:
            self._here[peer] = left
            return
        self._here.pop(peer, None)
        if self._fold is not None:
            self._fold.awaited.discard(peer)

    def _may_send(self, peer: PeerId, fold: Fold) -> bool:
        """Whether a connected peer still owes this fold something."""
        if peer in self._children:
            return fold.child_digest(peer) is None
        header = fold.header
        index = self.registry.peer_index_at(peer, header.registry_version, header.round)
        return index is not None and index not in fold.participants

    def _on_round_over(self, round_number: RoundNumber) -> None:
        # Said by a verified record only: an abort is not signed, so it proves nothing.
        if self._fold is not None and self._fold.header.round == round_number:
            self._fold.closed = True
        if self._waiting is not None and self._waiting.header.round == round_number:
            self._waiting = None

    def _on_timer(self, now: float, effects: list[Effect]) -> None:
        if self._waiting is not None and now >= self._asked_at + _REGISTRY_RETRY_S:
            self._ask(now, effects)

    def _look_at_fold(self, now: float, effects: list[Effect]) -> None:
        """Rule 5: close the fold when nobody is missing or time is up."""
        fold = self._fold
        if fold is None or fold.closed:
            return
        expects = fold.expects or len(fold.participants) > 0
        share = 1.0 if expects else _IDLE_SHARE
        late = now >= fold.opened_at + self._deadline_s * share
        if late or (expects and not fold.awaited):
            blob = fold.close().encode()
            count, own = len(fold.participants), fold.own_envelopes
            effects.append(SendAggregate(fold.header.round, count, own, blob))

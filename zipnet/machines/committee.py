"""The committee's replicated state machine (protocol.md §6): what every server agrees on.

Rules:

1. ``apply`` takes the bytes of one committed command and never raises: what is malformed,
   unsigned or out of place becomes :class:`Refused` and changes nothing.
2. Everything is decided by the log alone: no clock, no view of who is connected. All servers that
   applied the same prefix are in the same state.
3. A round number is opened once. Only one aggregate is chosen for it; each roster server posts one
   partial digest for it; once all are posted the round can no longer be aborted, because partials
   may be on their way (commit, then reveal).
4. A record is final with the signatures of its whole roster, or, where somebody asks for it, with
   as many as the descriptor's ``max_absent`` leaves.
5. Applying a command twice changes nothing the second time.
6. Where a partial that was committed to never comes, the round ends all the same, without a record:
   when every server of the roster says which partials nobody could give it, all the same ones, and
   nobody has signed. Those that are waited for must say so themselves, except as many as
   ``max_absent`` leaves. One live server that holds the partial, or still hopes, prevents it.
7. What the operator, or whoever has its warrant, revokes is out from that command on, for good: a
   revoked client is retired and not registered again, a revoked server's commands change nothing
   and no roster has it.
8. What the operator signed as the next version of the descriptor is in force from
   ``AdoptDescriptor`` on, between two rounds. Where it replaces a server, every client is retired:
   none has a ciphertext for the newcomer.

Privacy does not rest on this file: each server also asks its own ``guard`` before it releases
anything, and the guard does not believe the log.

Long because it is one transition table: a command's case is read beside the others'.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.machines.committee_outcomes import (
    ClientRegistered,
    ClientRetired,
    KemAnnounced,
    PartialMissed,
    PartialPosted,
    PrincipalRevoked,
    Refused,
    RoundAborted,
    RoundChosen,
    RoundOpened,
    RoundSealed,
    SignaturePosted,
)
from zipnet.machines.offers import DescriptorAdopted, DescriptorOffered, Offers
from zipnet.machines.registry import RegistryView
from zipnet.protocol.command import (
    AbortReason,
    AbortRound,
    AdoptDescriptor,
    AnnounceKem,
    ChooseAggregate,
    Command,
    OfferDescriptor,
    OpenRound,
    PostPartial,
    RegisterClient,
    RetireClient,
    Revoke,
    SealRecord,
    SignRecord,
    open_command,
)
from zipnet.protocol.header import verify_header
from zipnet.protocol.identity import verify_hybrid
from zipnet.protocol.ids import PeerId, RegistryIndex, RoundNumber
from zipnet.protocol.record import RECORD_SIGNATURE_USE, ZERO_RECORD_HASH
from zipnet.protocol.registration import RegistryChange
from zipnet.protocol.reservation import EMPTY_SCHEDULE_HASH
from zipnet.protocol.revocation import RevokedKind
from zipnet.protocol.succession import open_by_operators, replaced_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.machines.committee_outcomes import Outcome
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.header import RoundHeader, SignedHeader
    from zipnet.protocol.ids import Digest, ServerIndex
    from zipnet.protocol.revocation import Revocation

__all__ = ["MAX_REVOCATIONS", "REGISTRY_HISTORY", "CommitteeState", "Phase"]

REGISTRY_HISTORY = 4096
"""Changes of the registry that are always kept; beyond them at most four for each client."""

MAX_REVOCATIONS = 8192
"""Statements that are kept; only the operator and its warrants make any."""


class Phase(Enum):
    """Where the current round stands."""

    IDLE = "idle"
    OPEN = "open"
    CHOSEN = "chosen"
    REVEALED = "revealed"


class CommitteeState:
    """The replicated state and its one way to change: :meth:`apply`.

    Args:
        descriptor: The trusted descriptor the log begins under.
        max_clients: Bound on registered clients; more are refused, so memory stays bounded.
    """

    def __init__(self, descriptor: TrustedDescriptor, *, max_clients: int = 100_000) -> None:
        self.descriptor = descriptor
        self.registry = RegistryView()
        self.max_clients = max_clients
        self.phase = Phase.IDLE
        self.kem: dict[ServerIndex, KemAnnounced] = {}
        self.last_round = RoundNumber(0)
        self.signed: SignedHeader | None = None
        self.chosen: ChooseAggregate | None = None
        self.partials: dict[ServerIndex, Digest] = {}
        self.signatures: dict[ServerIndex, SignRecord] = {}
        self.missed: dict[ServerIndex, frozenset[ServerIndex]] = {}
        self.last_final = RoundNumber(0)
        self.last_record = ZERO_RECORD_HASH
        self.schedule = EMPTY_SCHEDULE_HASH
        self.next_sequence = 0
        self.serials: dict[PeerId, int] = {}
        self.registry_version = 0
        self.revoked: dict[tuple[RevokedKind, bytes], bytes] = {}
        self.offers = Offers()
        # The whole of what may happen when: (phase, command) -> transition.
        self._transitions: dict[
            tuple[Phase, type[Command]], Callable[[ServerIndex, Command], Outcome]
        ] = {
            (Phase.IDLE, OpenRound): self._on_open,
            (Phase.OPEN, ChooseAggregate): self._on_choose,
            (Phase.OPEN, AbortRound): self._on_abort,
            (Phase.CHOSEN, PostPartial): self._on_partial,
            (Phase.CHOSEN, AbortRound): self._on_abort,
            (Phase.REVEALED, SignRecord): self._on_sign,
            (Phase.REVEALED, SealRecord): self._on_seal,
            (Phase.REVEALED, AbortRound): self._on_missed,
            (Phase.IDLE, AdoptDescriptor): self._on_adopt,
        }
        for phase in Phase:
            self._transitions[phase, AnnounceKem] = self._on_announce
            self._transitions[phase, RegisterClient] = self._on_register
            self._transitions[phase, RetireClient] = self._on_retire
            self._transitions[phase, Revoke] = self._on_revoke
            self._transitions[phase, OfferDescriptor] = self._on_offer

    @property
    def header(self) -> RoundHeader | None:
        """Header of the round that is under way, None while idle."""
        return None if self.signed is None else self.signed.header

    def has_untold_retirements(self) -> bool:
        """Whether somebody was retired after the registry version of the last opened round."""
        told = self.registry_version
        changes = self.registry.changes_from(told, self.registry.version - told)
        return self.last_round > 0 and any(change.client is None for change in changes)

    def is_revoked(self, peer: PeerId) -> bool:
        """Tell whether a peer was revoked, whatever it was."""
        return (RevokedKind.PEER, peer) in self.revoked

    def is_revoked_server(self, server: ServerIndex) -> bool:
        """Tell whether a member of the committee was revoked."""
        return bool(self.revoked) and self.is_revoked(self.descriptor.committee[server].peer_id)

    def revocation_of(self, statement: bytes, *, ever: bool = False) -> Revocation:
        """Check a statement against this group's operators, or all there ``ever`` were.

        Raises:
            RemoteProtocolError: It is no statement of this group.
            VerificationError: Nobody entitled signed it.
        """
        return open_by_operators(statement, self.descriptor, ever=ever)

    def apply(self, data: bytes) -> Outcome:
        """Apply one committed command and say what became of it."""
        descriptor = self.descriptor
        try:
            signed = open_command(data, descriptor.group, descriptor.committee_keys)
        except RemoteProtocolError:
            return Refused("malformed")
        except VerificationError:
            return Refused("bad_signature")
        if self.is_revoked_server(signed.author):
            return Refused("revoked")
        handler = self._transitions.get((self.phase, type(signed.command)))
        if handler is None:
            return Refused("out_of_place")
        return handler(signed.author, signed.command)

    def _on_announce(self, author: ServerIndex, command: Command) -> Outcome:
        assert isinstance(command, AnnounceKem)
        known = self.kem.get(author)
        if known is not None and known.epoch >= command.epoch:
            return Refused("stale_epoch")
        announced = KemAnnounced(author, command.epoch, command.announcement)
        self.kem[author] = announced
        return announced

    def _on_register(self, _author: ServerIndex, command: Command) -> Outcome:
        assert isinstance(command, RegisterClient)
        if command.serial <= self.serials.get(command.peer, -1):
            return Refused("stale_registration")
        if self.is_revoked(command.peer):
            return Refused("revoked")
        old = self.registry.index_of(command.peer)
        if old is None and self.registry.active_count >= self.max_clients:
            return Refused("registry_full")
        if old is not None:
            self._retire(old)
        change = RegistryChange(
            index=self.registry.next_index,
            client=(command.peer, command.ed25519),
            registration=command.registration,
            first_round=RoundNumber(self.last_round + 1),
        )
        self.registry.apply((change,))
        self._note_serial(command.peer, command.serial)
        return ClientRegistered(command.peer, change, self.registry.version, old)

    def _note_serial(self, peer: PeerId, serial: int) -> None:
        """Remember a client's serial, and forget those of the clients longest gone.

        What is forgotten could be registered again by an old blob; servers open that only as long
        as they hold the KEM epoch it names, and nobody sends under it.
        """
        self.serials.pop(peer, None)
        self.serials[peer] = serial
        if len(self.serials) > 2 * self.max_clients:
            gone = [peer for peer in self.serials if self.registry.index_of(peer) is None]
            for old in gone[: 1 + len(gone) // 16]:
                del self.serials[old]

    def _on_retire(self, _author: ServerIndex, command: Command) -> Outcome:
        assert isinstance(command, RetireClient)
        if not self.registry.is_active(command.index):
            return Refused("not_registered")
        self._retire(command.index)
        return ClientRetired(command.index)

    def _on_revoke(self, _author: ServerIndex, command: Command) -> Outcome:
        """Rule 7."""
        assert isinstance(command, Revoke)
        try:
            revocation = self.revocation_of(command.statement)
        except (RemoteProtocolError, VerificationError):
            return Refused("bad_revocation")
        key = (revocation.kind, revocation.target)
        if key in self.revoked:
            return Refused("known_revocation")
        if len(self.revoked) >= MAX_REVOCATIONS:
            return Refused("revocations_full")
        self.revoked[key] = command.statement
        index = None
        if revocation.kind is RevokedKind.PEER:
            index = self.registry.index_of(PeerId(revocation.target))
        if index is not None:
            self._retire(index)
        return PrincipalRevoked(revocation, command.statement, index)

    def _on_offer(self, author: ServerIndex, command: Command) -> Outcome:
        assert isinstance(command, OfferDescriptor)
        reason = self.offers.take(author, command, self.descriptor)
        return DescriptorOffered(author, command.position) if reason is None else Refused(reason)

    def _on_adopt(self, _author: ServerIndex, command: Command) -> Outcome:
        """Rule 8."""
        assert isinstance(command, AdoptDescriptor)
        new = self.offers.find(command.version, command.descriptor)
        if new is None:
            return Refused("not_offered")
        seat = replaced_server(self.descriptor.descriptor, new.descriptor)
        self.descriptor = new
        self.offers.clear()
        retired: tuple[RegistryIndex, ...] = ()
        if seat is not None:
            self.kem.pop(seat, None)
            retired = tuple(change.index for change in self.registry.active_changes())
        for index in retired:
            self._retire(index)
        return DescriptorAdopted(new, seat, retired)

    def _retire(self, index: RegistryIndex) -> None:
        until = RoundNumber(self.last_round + 1)
        self.registry.apply((RegistryChange(index, None, None, until),))

    def _on_open(self, author: ServerIndex, command: Command) -> Outcome:
        assert isinstance(command, OpenRound)
        header = command.signed.header
        reason = self._open_refusal(author, command.signed)
        if reason is not None:
            return Refused(reason)
        self.phase = Phase.OPEN
        self.signed = command.signed
        self.last_round = header.round
        self.registry_version = header.registry_version
        return RoundOpened(command.signed)

    def _open_refusal(self, author: ServerIndex, signed: SignedHeader) -> str | None:
        header = signed.header
        chain = (self.last_round + 1, self.last_final, self.last_record, self.schedule)
        named = (header.round, header.previous_final, header.previous_record, header.schedule)
        if named != chain:
            return "does_not_extend"
        group = (self.descriptor.group, self.descriptor.descriptor.version)
        if (header.group, header.descriptor_version) != group:
            return "other_group"
        if author != header.opener:
            return "not_the_opener"
        known = self.registry_version <= header.registry_version <= self.registry.version
        if not known or self.registry.digest_at(header.registry_version) != header.registry_digest:
            return "unknown_registry"
        if any(self.is_revoked_server(server) for server in header.roster):
            return "roster_not_allowed"
        try:
            self.descriptor.require_roster(header.roster)
            verify_header(signed, self.descriptor.committee_keys)
        except VerificationError:
            return "roster_not_allowed"
        return None

    def _on_choose(self, author: ServerIndex, command: Command) -> Outcome:
        assert isinstance(command, ChooseAggregate)
        refusal = self._round_refusal(author, command.round)
        if refusal is not None:
            return refusal
        if command.count < self.descriptor.params.min_participants:
            return Refused("below_minimum")
        self.phase = Phase.CHOSEN
        self.chosen = command
        return RoundChosen(command)

    def _on_partial(self, author: ServerIndex, command: Command) -> Outcome:
        assert isinstance(command, PostPartial)
        refusal = self._round_refusal(author, command.round)
        if refusal is not None:
            return refusal
        if self.chosen is None or command.aggregate != self.chosen.aggregate:
            return Refused("other_aggregate")
        if author in self.partials:
            return Refused("second_partial")
        self.partials[author] = command.partial
        complete = len(self.partials) == len(self._roster())
        if complete:
            self.phase = Phase.REVEALED
        return PartialPosted(author, complete)

    def _on_sign(self, author: ServerIndex, command: Command) -> Outcome:
        assert isinstance(command, SignRecord)
        refusal = self._round_refusal(author, command.round)
        if refusal is not None:
            return refusal
        if author in self.signatures:
            return Refused("second_signature")
        identity = self.descriptor.committee[author]
        try:
            verify_hybrid(identity, RECORD_SIGNATURE_USE, command.record, command.signature)
        except VerificationError:
            return Refused("bad_record_signature")
        self.signatures[author] = command
        return self._seal_with(len(self._roster())) or SignaturePosted(author)

    def _on_seal(self, author: ServerIndex, command: Command) -> Outcome:
        assert isinstance(command, SealRecord)
        refusal = self._round_refusal(author, command.round)
        if refusal is not None:
            return refusal
        return self._seal_with(self.descriptor.required_signatures) or Refused("too_few_signatures")

    def _seal_with(self, needed: int) -> RoundSealed | None:
        header = self.header
        for candidate in self.signatures.values():
            agreeing = {
                server: item
                for server, item in sorted(self.signatures.items())
                if (item.record, item.schedule) == (candidate.record, candidate.schedule)
            }
            if len(agreeing) >= needed and header is not None:
                return self._seal(header, candidate, agreeing)
        return None

    def _seal(
        self, header: RoundHeader, signed: SignRecord, agreeing: dict[ServerIndex, SignRecord]
    ) -> RoundSealed:
        signatures = tuple((server, item.signature) for server, item in agreeing.items())
        sealed = RoundSealed(header, self.next_sequence, signed.record, signatures)
        self.last_final = header.round
        self.last_record = signed.record
        self.schedule = signed.schedule
        self.next_sequence += 1
        self._close_round()
        return sealed

    def _on_abort(self, author: ServerIndex, command: Command) -> Outcome:
        assert isinstance(command, AbortRound)
        refusal = self._round_refusal(author, command.round)
        if refusal is not None:
            return refusal
        if command.why is AbortReason.PARTIAL_WITHHELD:
            return Refused("out_of_place")
        self._close_round()
        return RoundAborted(command.round, command.why, command.absent)

    def _on_missed(self, author: ServerIndex, command: Command) -> Outcome:
        """Rule 6: count who misses what; the round ends when all agree."""
        assert isinstance(command, AbortRound)
        refusal = self._round_refusal(author, command.round)
        if refusal is not None:
            return refusal
        missing = frozenset(command.absent)
        known = missing and missing.issubset(self._roster())
        if command.why is not AbortReason.PARTIAL_WITHHELD or not known:
            return Refused("out_of_place")
        if self.signatures:
            return Refused("already_signed")  # the signer has all partials, and gives them
        if self.missed.get(author) == missing:
            return Refused("second_word")
        self.missed[author] = missing
        if not self._all_miss(missing):
            return PartialMissed(author, command.absent)
        self._close_round()
        return RoundAborted(command.round, command.why, command.absent)

    def _all_miss(self, missing: frozenset[ServerIndex]) -> bool:
        roster = self._roster()
        silent = {server for server in roster if self.missed.get(server) != missing}
        absent = len(self.descriptor.committee) - len(roster) + len(silent)
        return silent <= missing and absent <= self.descriptor.descriptor.max_absent

    def _round_refusal(self, author: ServerIndex, round_number: RoundNumber) -> Refused | None:
        if round_number != self.last_round:
            return Refused("other_round")
        if author not in self._roster():
            return Refused("not_in_roster")
        return None

    def _trim_registry(self) -> None:
        """Let the registry begin anew once most of what it holds is history (between rounds only).

        Headers that name an older version are refused from then on: nobody could check them.
        """
        held = self.registry.version - self.registry.base_version
        if held > max(REGISTRY_HISTORY, 4 * self.registry.active_count):
            self.registry.rebase()
            self.registry_version = self.registry.version

    def _roster(self) -> tuple[ServerIndex, ...]:
        return () if self.header is None else self.header.roster

    def _close_round(self) -> None:
        self._trim_registry()
        self.phase = Phase.IDLE
        self.signed = None
        self.chosen = None
        self.partials = {}
        self.signatures = {}
        self.missed = {}

"""What became of one committed command: the outcomes of ``CommitteeState.apply``.

protocol.md §6. Every server that applied the same command in the same place got the same outcome;
what it does about it is its own machine's affair (``zipnet.machines.server``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zipnet.machines.offers import DescriptorAdopted, DescriptorOffered

if TYPE_CHECKING:
    from zipnet.protocol.command import AbortReason, ChooseAggregate
    from zipnet.protocol.header import RoundHeader, SignedHeader
    from zipnet.protocol.ids import Digest, PeerId, RegistryIndex, RoundNumber, ServerIndex
    from zipnet.protocol.registration import RegistryChange
    from zipnet.protocol.revocation import Revocation

__all__ = [
    "ClientRegistered",
    "ClientRetired",
    "KemAnnounced",
    "Outcome",
    "PartialMissed",
    "PartialPosted",
    "PrincipalRevoked",
    "Refused",
    "RoundAborted",
    "RoundChosen",
    "RoundOpened",
    "RoundSealed",
    "SignaturePosted",
]


@dataclass(frozen=True, slots=True)
class Refused:
    """The command changed nothing; ``reason`` is a stable word for logs and metrics."""

    reason: str


@dataclass(frozen=True, slots=True)
class KemAnnounced:
    """A server's current KEM key is now the announcement with this digest."""

    server: ServerIndex
    epoch: int
    announcement: Digest


@dataclass(frozen=True, slots=True)
class ClientRegistered:
    """A client is in the registry, from this version and round on."""

    peer: PeerId
    change: RegistryChange
    version: int
    replaced: RegistryIndex | None


@dataclass(frozen=True, slots=True)
class ClientRetired:
    """A registry index is out for good."""

    index: RegistryIndex


@dataclass(frozen=True, slots=True)
class PrincipalRevoked:
    """A capability or a peer is out for good; a client's ``index`` with it."""

    revocation: Revocation
    statement: bytes = field(repr=False)
    index: RegistryIndex | None = None


@dataclass(frozen=True, slots=True)
class RoundOpened:
    """A round opened."""

    signed: SignedHeader


@dataclass(frozen=True, slots=True)
class RoundChosen:
    """The aggregate of the open round is fixed."""

    chosen: ChooseAggregate


@dataclass(frozen=True, slots=True)
class PartialPosted:
    """A server committed to its partial; ``complete`` when the whole roster has."""

    server: ServerIndex
    complete: bool


@dataclass(frozen=True, slots=True)
class PartialMissed:
    """A server says that these servers' partials cannot be had."""

    server: ServerIndex
    missing: tuple[ServerIndex, ...]


@dataclass(frozen=True, slots=True)
class SignaturePosted:
    """A server signed the round's record."""

    server: ServerIndex


@dataclass(frozen=True, slots=True)
class RoundSealed:
    """A record is final.

    Attributes:
        header: Header of its round.
        sequence: Its place in the log of records.
        record: Its hash.
        signatures: Committee signatures by ascending server index.
    """

    header: RoundHeader
    sequence: int
    record: Digest
    signatures: tuple[tuple[ServerIndex, bytes], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RoundAborted:
    """A round was given up; its chains step all the same."""

    round: RoundNumber
    why: AbortReason
    absent: tuple[ServerIndex, ...]


Outcome = (
    Refused
    | KemAnnounced
    | ClientRegistered
    | ClientRetired
    | PrincipalRevoked
    | RoundOpened
    | RoundChosen
    | PartialPosted
    | PartialMissed
    | SignaturePosted
    | RoundSealed
    | RoundAborted
    | DescriptorOffered
    | DescriptorAdopted
)

"""Bind a quote to who shows it: report data over keys, role, network, validity and freshness.

``report_data = SHA-512(application "/tdx-binding/v1" || for each field: u32 length || bytes)``,
big-endian, all 64 bytes compared. Two modes share the layout:

* A *ticket* has no nonce. It may be shown to anybody for a short window; stolen, it is useless
  without the private key of the TLS key it names, and useless after the window.
* A *challenge* also covers the verifier's nonce, the TLS exporter, both certificates and who is
  attesting. A nonce alone could be relayed to a genuine machine, and an exporter alone, being the
  same on both ends, could be answered with the verifier's own quote.

The attester computes the report data before it asks for a quote, and compares it in the quote it
got; the verifier computes it from what it sees on the connection. Both sides run this same code.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha512
from typing import TYPE_CHECKING

from tdx.errors import Check, PolicyError, QuoteError, moment

if TYPE_CHECKING:
    from tdx.collateral import Bundle
    from tdx.policy import Policy
    from tdx.trust import TrustRoot
    from tdx.verify import Memo, RollbackMemory, Verdict

__all__ = [
    "MAX_TICKET_LIFETIME_S",
    "Challenge",
    "Direction",
    "Ticket",
    "check_own_quote",
    "renew_at",
    "verify_bound",
]

MAX_TICKET_LIFETIME_S = 600
MAX_CLOCK_SKEW_S = 30
_DOMAIN = b"/tdx-binding/v1"
_HASH_BYTES = 32
_MAX_INSTANT = 2**63 - 1


class Direction(StrEnum):
    """Say which end of a connection attests in a challenge."""

    INITIATOR_ATTESTS = "initiator"
    RESPONDER_ATTESTS = "responder"


@dataclass(frozen=True, slots=True)
class Ticket:
    """Hold what a quote is bound to.

    Attributes:
        application: Names the application, so that no quote serves two of them.
        network_id: The group or network, 32 bytes.
        role: The role the peer plays.
        spki: DER SubjectPublicKeyInfo of the peer's TLS or identity key.
        protocol_keys: Encoded public keys the peer uses in the protocol, in a fixed order.
        not_before: Unix seconds.
        not_after: Unix seconds.
        boot_id: 32 random bytes drawn when the peer started.
    """

    application: str
    network_id: bytes
    role: str
    spki: bytes
    protocol_keys: tuple[bytes, ...]
    not_before: int
    not_after: int
    boot_id: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.not_before <= self.not_after <= _MAX_INSTANT:
            raise PolicyError("a ticket's window starts before it ends, in Unix seconds")
        if len(self.network_id) != _HASH_BYTES or len(self.boot_id) != _HASH_BYTES:
            raise PolicyError("network id and boot id have 32 bytes")
        if not (self.application.isascii() and self.application and self.spki):
            raise PolicyError("a ticket names an application, in ASCII, and a key")

    def report_data(self) -> bytes:
        """Return the 64 bytes that bind a quote to this ticket."""
        return _hash(self.application, [*self._fields(), b""])

    def _fields(self) -> list[bytes]:
        return [
            self.network_id,
            self.role.encode(),
            self.spki,
            b"".join(_prefixed(key) for key in self.protocol_keys),
            self.not_before.to_bytes(8, "big"),
            self.not_after.to_bytes(8, "big"),
            self.boot_id,
        ]


@dataclass(frozen=True, slots=True)
class Challenge:
    """Hold a ticket made fresh for one connection and one direction.

    Attributes:
        ticket: What is bound in any case.
        nonce: 32 bytes drawn by the verifier for this challenge alone.
        exporter: 32 bytes exported from the TLS session, or the hash of a signed transcript.
        attester_certificate: SHA-256 of the attester's leaf certificate.
        verifier_certificate: SHA-256 of the verifier's leaf certificate.
        direction: Who attests.
    """

    ticket: Ticket
    nonce: bytes = field(repr=False)
    exporter: bytes = field(repr=False)
    attester_certificate: bytes
    verifier_certificate: bytes
    direction: Direction

    def __post_init__(self) -> None:
        parts = (self.nonce, self.exporter, self.attester_certificate, self.verifier_certificate)
        if any(len(part) != _HASH_BYTES for part in parts):
            raise PolicyError("nonce, exporter and certificate hashes have 32 bytes")

    def report_data(self) -> bytes:
        """Return the 64 bytes that bind a quote to this challenge."""
        return _hash(
            self.ticket.application,
            [
                *self.ticket._fields(),
                self.nonce,
                self.exporter,
                self.attester_certificate,
                self.verifier_certificate,
                self.direction.encode(),
            ],
        )


def verify_bound(  # noqa: PLR0913 - what `verify` takes, and the window
    quote: bytes,
    bundle: Bundle,
    binding: Ticket | Challenge,
    *,
    root: TrustRoot,
    now: int,
    policy: Policy,
    seen: RollbackMemory | None = None,
    max_lifetime_s: int = MAX_TICKET_LIFETIME_S,
    memo: Memo | None = None,
    second_opinion: bool = False,
) -> Verdict:
    """Verify a quote and that it is bound to what the verifier sees.

    Args:
        quote: The quote.
        bundle: Its collateral.
        binding: Built by the verifier from its own view: the key and certificates of the
            connection, its own nonce. Only the window and boot id come from the peer.
        root: The trusted root.
        now: Unix seconds.
        policy: What is accepted.
        seen: Numbers of earlier collateral.
        max_lifetime_s: Longest window accepted.
        memo: What was read of certificates and collateral before; it changes no verdict.
        second_opinion: Whether the ``dcap-qvl`` wheel must reach the same status.

    Raises:
        QuoteError: ``binding_window``, or any check of ``tdx.verify.verify`` or ``verify_twice``.
        PolicyError: A second opinion is demanded and the wheel is not installed.
    """
    # Here, not above: who only builds bindings, such as a client of a group that attests nothing,
    # loads no X.509 and no policies.
    from tdx.verify import verify, verify_twice  # noqa: PLC0415

    ticket = binding.ticket if isinstance(binding, Challenge) else binding
    _check_window(ticket, now, max_lifetime_s)
    judge = verify_twice if second_opinion else verify
    return judge(
        quote,
        bundle,
        root=root,
        now=now,
        policy=policy,
        report_data=binding.report_data(),
        seen=seen,
        memo=memo,
    )


def check_own_quote(quote: bytes, binding: Ticket | Challenge) -> None:
    """Check, before showing a quote, that the platform bound what it was asked to bind.

    Raises:
        QuoteError: The quote does not parse, or carries other report data.
    """
    from tdx.quote import parse_quote  # noqa: PLC0415 - as above

    found = parse_quote(quote).report.report_data
    if not hmac.compare_digest(found, binding.report_data()):
        raise QuoteError(Check.REPORT_DATA, "the platform quoted what it was asked to")


def renew_at(ticket: Ticket) -> int:
    """Return when to replace a ticket: two thirds into its window, Unix seconds."""
    return ticket.not_before + 2 * (ticket.not_after - ticket.not_before) // 3


def _check_window(ticket: Ticket, now: int, max_lifetime_s: int) -> None:
    lifetime = ticket.not_after - ticket.not_before
    if lifetime > max_lifetime_s:
        raise QuoteError(
            Check.BINDING_WINDOW, f"a window is at most {max_lifetime_s} s", value=lifetime
        )
    # A peer's clock may be a little ahead; behind it has no excuse, its ticket has simply lapsed.
    if not ticket.not_before - MAX_CLOCK_SKEW_S <= now <= ticket.not_after:
        raise QuoteError(
            Check.BINDING_WINDOW,
            f"the window holds {moment(now)}",
            value=f"{moment(ticket.not_before)} to {moment(ticket.not_after)}",
        )


def _hash(application: str, fields: list[bytes]) -> bytes:
    state = sha512(application.encode() + _DOMAIN)
    for piece in fields:
        state.update(_prefixed(piece))
    return state.digest()


def _prefixed(piece: bytes) -> bytes:
    return len(piece).to_bytes(4, "big") + piece

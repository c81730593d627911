"""Evidence: a quote with its collateral, and what it must be bound to for the one who looks.

protocol.md §7; the binding itself is ``tdx.binding``. Used on both sides: who shows evidence binds
its quote to an :class:`EvidenceView`, who judges it computes the same view from what *it* sees on
the link. Only the window and the boot id are taken from the peer.

Rules:

1. What the evidence claims about itself (key, direction, nonce) decides nothing; it only lets a
   refusal say what happened: relayed, reflected or replayed. The report data decides.
2. A challenge covers the verifier's nonce, the transcript both sides signed, both certificate keys
   and the direction; a ticket covers none of these and lives for a short window.
3. Every refusal is an :class:`~zipnet.errors.AdmissionError` with a stable code: ``evidence_…`` for
   the binding, ``tdx_`` and the failed check for the quote.
4. Time is an argument.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from tdx.binding import Challenge, Direction, Ticket, verify_bound
from tdx.errors import Check, QuoteError
from zipnet.errors import AdmissionError, RemoteProtocolError
from zipnet.protocol.attestation import AttestationTerms, Gate
from zipnet.protocol.ids import derive
from zipnet.wire.handshake import Role, Side

if TYPE_CHECKING:
    from tdx.policy import Policy
    from tdx.verify import Memo, RollbackMemory, Verdict
    from zipnet.protocol.identity import PublicIdentity
    from zipnet.protocol.ids import GroupId

__all__ = [
    "MAX_COLLATERAL_BYTES",
    "ChallengeView",
    "Evidence",
    "EvidenceView",
    "Judgement",
    "bind",
    "boot_id_of",
    "decode_evidence",
    "encode_evidence",
    "evidence_due",
    "gate_of",
    "is_lasting_refusal",
    "judge_evidence",
    "kem_key_view",
]

_APPLICATION: Final = "zipnet"
_MAX_QUOTE_BYTES: Final = 16 * 1024
MAX_COLLATERAL_BYTES: Final = 96 * 1024
_MAX_INSTANT: Final = 2**62
# RFC 8410: SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING } around a raw Ed25519 key.
_SPKI_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")

_LASTING: Final = frozenset(
    {"evidence_kind", "evidence_malformed", "evidence_missing", "evidence_not_due"}
)
_GATES: Final = {
    Role.SERVER: Gate.COMMITTEE,
    Role.AGGREGATOR: Gate.AGGREGATOR,
    Role.CLIENT: Gate.CLIENT,
}
_DIRECTIONS: Final = {
    Side.INITIATOR: Direction.INITIATOR_ATTESTS,
    Side.ACCEPTOR: Direction.RESPONDER_ATTESTS,
}

_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Instant = Annotated[int, Meta(ge=0, le=_MAX_INSTANT)]


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A quote, the collateral it is judged by, and what its bearer says about it.

    Attributes:
        quote: The quote, at most 16 KiB.
        collateral: A collateral bundle as JSON, at most 96 KiB.
        not_before: Start of the window, Unix seconds.
        not_after: End of the window, Unix seconds.
        boot_id: 32 bytes that differ for every start of the bearer.
        key: SHA-256 of the key the quote is said to be bound to.
        direction: Who attests, in answer to a challenge; None in a ticket.
        nonce: The verifier's nonce, in answer to a challenge; None in a ticket.
    """

    quote: Annotated[bytes, Meta(max_length=_MAX_QUOTE_BYTES)]
    collateral: Annotated[bytes, Meta(max_length=MAX_COLLATERAL_BYTES)]
    not_before: _Instant
    not_after: _Instant
    boot_id: _Bytes32
    key: _Bytes32
    direction: Direction | None
    nonce: _Bytes32 | None

    def __repr__(self) -> str:
        """Name the type alone."""
        return "Evidence(…)"


@dataclass(frozen=True, slots=True)
class ChallengeView:
    """What makes evidence good for one link and one question only.

    Attributes:
        nonce: 32 bytes drawn by the verifier.
        transcript: SHA-256 of the handshake transcript both sides signed.
        attester_key: Certificate key (32 bytes) of the side that attests.
        verifier_key: Certificate key (32 bytes) of the side that judges.
        attester_side: Which side of the link attests.
    """

    nonce: bytes = field(repr=False)
    transcript: bytes = field(repr=False)
    attester_key: bytes
    verifier_key: bytes
    attester_side: Side


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """What evidence must be bound to, as one side of a link sees it.

    Attributes:
        group: The group.
        role: Role of the side that attests.
        identity: Its proved identity.
        extra_keys: Further keys or signed statements the quote vouches for, in a fixed order.
        boot_id: 32-byte boot id, where the link told it; None takes the evidence's word.
        challenge: What the verifier asked; None for a ticket.
    """

    group: GroupId
    role: Role
    identity: PublicIdentity
    extra_keys: tuple[bytes, ...] = field(default=(), repr=False)
    boot_id: bytes | None = None
    challenge: ChallengeView | None = None

    @property
    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo of the identity's Ed25519 key, which is its TLS key as well."""
        return _spki(self.identity.ed25519)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Evidence that passed.

    Attributes:
        not_before: Start of its window, Unix seconds.
        not_after: When it lapses: the end of the window or of the collateral, Unix seconds.
        verdict: What was verified.
    """

    not_before: int
    not_after: int
    verdict: Verdict

    @property
    def renew_at(self) -> int:
        """When fresh evidence is asked for: two thirds into the window, Unix seconds."""
        return self.not_before + 2 * (self.not_after - self.not_before) // 3


def kem_key_view(group: GroupId, server: PublicIdentity, announcement: bytes) -> EvidenceView:
    """Return what a server's evidence for its announced KEM key is bound to.

    Args:
        group: The group.
        server: The server's identity.
        announcement: Its signed announcement, as it travels.
    """
    return EvidenceView(group=group, role=Role.SERVER, identity=server, extra_keys=(announcement,))


def gate_of(role: Role) -> Gate | None:
    """Return whose policy applies to a role; None for readers, who are nobody in particular."""
    return _GATES.get(role)


def evidence_due(terms: AttestationTerms, attester: Role, verifier: Role) -> Policy | None:
    """Return the policy one side of a link must satisfy for the other, None where none applies."""
    gate = gate_of(attester)
    if gate is None or verifier is Role.READER:
        return None
    return terms.policy_for(gate)


def is_lasting_refusal(code: str) -> bool:
    """Whether a refusal is about evidence, a capability or a peer, and waiting does not mend it."""
    return code.startswith(("tdx_", "capability_")) or code in _LASTING or code == "revoked"


def boot_id_of(link_boot_id: bytes) -> bytes:
    """Return the 32-byte boot id that stands for a link's 16 bytes."""
    return derive("evidence-boot", link_boot_id)


def encode_evidence(
    view: EvidenceView,
    *,
    quote: bytes,
    collateral: bytes,
    not_before: int,
    not_after: int,
    boot_id: bytes,
) -> bytes:
    """Return evidence as it travels: a quote bound to ``view``, and what to judge it by."""
    challenge = view.challenge
    return _ENCODER.encode(
        Evidence(
            quote=quote,
            collateral=collateral,
            not_before=not_before,
            not_after=not_after,
            boot_id=boot_id,
            key=sha256(view.spki).digest(),
            direction=None if challenge is None else _DIRECTIONS[challenge.attester_side],
            nonce=None if challenge is None else challenge.nonce,
        )
    )


def decode_evidence(data: bytes) -> Evidence:
    """Parse evidence.

    Raises:
        RemoteProtocolError: When the bytes are not exactly one piece of evidence.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RemoteProtocolError("not a piece of evidence") from error


def bind(
    view: EvidenceView, *, not_before: int, not_after: int, boot_id: bytes
) -> Ticket | Challenge:
    """Return what a quote for this view is bound to (protocol.md §7).

    Args:
        view: What is seen of the link.
        not_before: Start of the window, Unix seconds.
        not_after: End of the window, Unix seconds.
        boot_id: 32-byte boot id of the side that attests.
    """
    ticket = Ticket(
        application=_APPLICATION,
        network_id=view.group,
        role=view.role.value,
        spki=view.spki,
        protocol_keys=(view.identity.encode(), *view.extra_keys),
        not_before=not_before,
        not_after=not_after,
        boot_id=boot_id,
    )
    challenge = view.challenge
    if challenge is None:
        return ticket
    return Challenge(
        ticket=ticket,
        nonce=challenge.nonce,
        exporter=challenge.transcript,
        attester_certificate=sha256(_spki(challenge.attester_key)).digest(),
        verifier_certificate=sha256(_spki(challenge.verifier_key)).digest(),
        direction=_DIRECTIONS[challenge.attester_side],
    )


def judge_evidence(
    data: bytes | None,
    view: EvidenceView,
    terms: AttestationTerms,
    *,
    now: int,
    seen: RollbackMemory | None = None,
    local: Policy | None = None,
    memo: Memo | None = None,
    second_opinion: bool = False,
) -> Judgement:
    """Judge what a peer showed.

    Args:
        data: The evidence as it came; None where the peer showed nothing.
        view: What it must be bound to.
        terms: What the group asks.
        now: Unix seconds.
        seen: Numbers of collateral seen before.
        local: A policy of this node's operator, asked on top of the group's.
        memo: What was read of collateral before; it changes no verdict.
        second_opinion: Whether a second verifier must agree.

    Raises:
        AdmissionError: With the code of rule 3.
    """
    gate = gate_of(view.role)
    policy = None if gate is None else terms.policy_for(gate)
    if policy is None or terms.root is None:
        raise AdmissionError("this role shows no evidence", code="evidence_not_due")
    # 1. There is evidence, and it parses.
    evidence = _parsed(data)
    # 2. Its own words do not contradict what is seen, for a clear refusal (rule 1).
    _check_claims(evidence, view)
    # 3. Quote, collateral and binding, in full. Who judges nothing loads no X.509 for it.
    from tdx.collateral import Bundle  # noqa: PLC0415

    try:
        binding = bind(
            view,
            not_before=evidence.not_before,
            not_after=evidence.not_after,
            boot_id=evidence.boot_id,
        )
        verdict = verify_bound(
            evidence.quote,
            Bundle.from_json(evidence.collateral),
            binding,
            root=terms.root,
            now=now,
            policy=policy,
            seen=seen,
            max_lifetime_s=terms.lifetime_s,
            memo=memo,
            second_opinion=second_opinion,
        )
        # 4. What this node's operator asks besides.
        if local is not None:
            local.check_tcb(verdict.assessment, now=now)
            local.check_td(verdict.report)
            local.check_freshness(verdict.assessment, now=now)
    except QuoteError as error:
        raise _refusal(error) from error
    return Judgement(evidence.not_before, min(evidence.not_after, verdict.expires_at), verdict)


def _parsed(data: bytes | None) -> Evidence:
    if data is None:
        raise AdmissionError(
            "the peer showed no evidence of its platform, this group demands it",
            code="evidence_missing",
        )
    try:
        evidence = decode_evidence(data)
    except RemoteProtocolError as error:
        raise AdmissionError(str(error), code="evidence_malformed") from error
    if evidence.not_before > evidence.not_after:
        raise AdmissionError("evidence ends before it begins", code="evidence_malformed")
    return evidence


def _check_claims(evidence: Evidence, view: EvidenceView) -> None:
    challenge = view.challenge
    asked = None if challenge is None else _DIRECTIONS[challenge.attester_side]
    if evidence.direction is not asked:
        if evidence.direction is None or asked is None:
            raise AdmissionError(
                "a ticket and the answer to a challenge are not the same", code="evidence_kind"
            )
        raise AdmissionError(
            "the evidence was made for the other direction of a link", code="evidence_reflected"
        )
    if not hmac.compare_digest(evidence.key, sha256(view.spki).digest()):
        raise AdmissionError(
            "the evidence is bound to another key than this link's", code="evidence_relayed"
        )
    nonce = None if challenge is None else challenge.nonce
    if (evidence.nonce or b"") != (nonce or b""):
        raise AdmissionError("the evidence answers another challenge", code="evidence_replayed")
    if view.boot_id is not None and evidence.boot_id != view.boot_id:
        raise AdmissionError(
            "the evidence is of an earlier start of this peer", code="evidence_replayed"
        )


def _refusal(error: QuoteError) -> AdmissionError:
    match error.check:
        case Check.REPORT_DATA:
            return AdmissionError(
                "the quote is bound to something else than this link", code="evidence_unbound"
            )
        case Check.BINDING_WINDOW:
            return AdmissionError(str(error), code="evidence_lapsed")
        case _:
            return AdmissionError(str(error), code=f"tdx_{error.check.value}")


def _spki(ed25519: bytes) -> bytes:
    return _SPKI_PREFIX + ed25519


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Evidence, strict=True)

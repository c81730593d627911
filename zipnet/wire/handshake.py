"""HELLO: who speaks to whom about which group, proved before anything else is accepted.

The four messages of the session handshake, the transcript that both sides sign, and the refusals
that end it (protocol.md §7). The transport proved possession of certificate keys; this proves the
hybrid identities, the role, the group and, among servers, knowledge of the committee secret.

Order: initiator ``Hello``, acceptor ``HelloReply`` with its signature, initiator ``Proof``,
acceptor ``Welcome``. A ``Refusal`` may stand in for any message of the acceptor. A reader sends
neither identity nor ``Proof``. Where a group attests its platforms, ``Proof`` and ``Welcome`` carry
evidence, which is no part of the transcript but bound to it (``zipnet.admission``).
``zipnet.transport.session`` moves these messages.

Rules:

1. Messages travel as msgspec; what is signed or MACed is the hand-laid :class:`Transcript`.
2. The transcript holds everything either side said and the certificate keys of the very channel it
   was said on: a proof is worthless on any other channel, in any other group or direction.
3. The committee secret never travels. Each server proves it by a MAC over the transcript, under a
   label of its own direction, and the acceptor only after the initiator has.
4. A refusal carries a stable code, and becomes the same error class on the other side.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from zipnet.errors import (
    AdmissionError,
    DuplicateIdentityError,
    PolicyMismatchError,
    RemoteProtocolError,
    UnknownInstanceError,
    VerificationError,
    ZipnetError,
)
from zipnet.protocol import ids
from zipnet.protocol.encoding import Writer
from zipnet.protocol.identity import (
    HYBRID_SIGNATURE_BYTES,
    Identity,
    PublicIdentity,
    verify_hybrid,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.protocol.ids import GroupId, InstanceId, PeerId
    from zipnet.protocol.secret import Secret

__all__ = [
    "BOOT_ID_BYTES",
    "MAX_EVIDENCE_BYTES",
    "NONCE_BYTES",
    "VERSIONS",
    "Attest",
    "Hello",
    "HelloFacts",
    "HelloReply",
    "Proof",
    "Refusal",
    "Role",
    "Side",
    "Transcript",
    "Welcome",
    "committee_mac",
    "decode_handshake",
    "encode_handshake",
    "error_to_refusal",
    "refusal_to_error",
    "sign_transcript",
    "verify_committee_mac",
    "verify_transcript",
]

VERSIONS: Final = (1,)
"""Wire versions this code speaks, best first."""

NONCE_BYTES = 32
BOOT_ID_BYTES = 16
MAX_EVIDENCE_BYTES = 128 * 1024
"""Most bytes of one piece of evidence: a quote and its collateral (``zipnet.admission``)."""

_MAX_RETRY_AFTER_S = 86_400.0
_MAX_REASON = 200
_PUBLIC_IDENTITY_BYTES = 1984

_Bytes16 = Annotated[bytes, Meta(min_length=BOOT_ID_BYTES, max_length=BOOT_ID_BYTES)]
_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Signature = Annotated[
    bytes, Meta(min_length=HYBRID_SIGNATURE_BYTES, max_length=HYBRID_SIGNATURE_BYTES)
]
_IdentityBytes = Annotated[
    bytes, Meta(min_length=_PUBLIC_IDENTITY_BYTES, max_length=_PUBLIC_IDENTITY_BYTES)
]
_EvidenceBytes = Annotated[bytes, Meta(max_length=MAX_EVIDENCE_BYTES)]
_Version = Annotated[int, Meta(ge=1, le=0xFFFF)]


class Role(StrEnum):
    """What a party claims to be on this link."""

    CLIENT = "client"
    READER = "reader"
    AGGREGATOR = "aggregator"
    SERVER = "server"


_ROLE_NUMBERS: Final = {Role.CLIENT: 1, Role.READER: 2, Role.AGGREGATOR: 3, Role.SERVER: 4}


class Side(IntEnum):
    """Which end of the link proves something; the label that keeps proofs from being reflected."""

    INITIATOR = 1
    ACCEPTOR = 2


_SIGNATURE_USE: Final = {Side.INITIATOR: "hello-initiator", Side.ACCEPTOR: "hello-acceptor"}
_MAC_USE: Final = {Side.INITIATOR: "committee-initiator", Side.ACCEPTOR: "committee-acceptor"}


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all handshake messages: no unknown fields, contents never shown by ``repr``."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class Hello(_Message, frozen=True, kw_only=True):
    """The initiator introduces itself; ``identity`` is None for a reader only."""

    versions: Annotated[list[_Version], Meta(min_length=1, max_length=8)]
    instance_id: _Bytes32
    group_id: _Bytes32
    role: Role
    identity: _IdentityBytes | None
    nonce: _Bytes32
    boot_id: _Bytes16


class HelloReply(_Message, frozen=True, kw_only=True):
    """The acceptor introduces itself and signs the transcript."""

    version: _Version
    role: Role
    identity: _IdentityBytes
    nonce: _Bytes32
    boot_id: _Bytes16
    signature: _Signature


class Proof(_Message, frozen=True, kw_only=True):
    """The initiator signs the transcript; among servers it proves the committee secret too."""

    signature: _Signature
    committee_mac: _Bytes32 | None
    evidence: _EvidenceBytes | None = None


class Welcome(_Message, frozen=True, kw_only=True):
    """The acceptor lets the initiator in, and proves the committee secret in its turn."""

    committee_mac: _Bytes32 | None
    evidence: _EvidenceBytes | None = None


class Attest(_Message, frozen=True, kw_only=True):
    """Ask the other side of a session for fresh evidence; ``nonce`` only where it is challenged."""

    nonce: _Bytes32 | None


class Refusal(_Message, frozen=True, kw_only=True):
    """A no: a stable code, a line for people and, maybe, seconds to wait before asking again."""

    code: Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_]{0,47}\Z")]
    reason: Annotated[str, Meta(max_length=_MAX_REASON)]
    retry_after: Annotated[float, Meta(ge=0, le=_MAX_RETRY_AFTER_S)] | None


_H = TypeVar("_H", Hello, HelloReply, Proof, Welcome, Refusal, Attest)
_ENCODER = msgspec.msgpack.Encoder()


def encode_handshake(
    message: Hello | HelloReply | Proof | Welcome | Refusal | Attest,
) -> bytes:
    """Return the payload bytes of a handshake message, a refusal or a question for evidence."""
    return _ENCODER.encode(message)


def decode_handshake(payload: bytes, kind: type[_H]) -> _H:
    """Parse a payload as one type of handshake message.

    Raises:
        RemoteProtocolError: When the bytes are not exactly such a message.
    """
    try:
        return msgspec.msgpack.decode(payload, type=kind, strict=True)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # ValueError: msgspec lets the UnicodeDecodeError of a malformed field name through.
        raise RemoteProtocolError(f"not a {kind.__name__} message") from error


@dataclass(frozen=True, slots=True)
class Transcript:
    """Everything the two sides said, as both must have seen it.

    Attributes:
        versions: Wire versions the initiator offered, in its order.
        version: The one the acceptor chose.
        instance_id: Instance (32 bytes) the link is about.
        group_id: Group (32 bytes) the link is about.
        initiator_role: What the initiator claims to be.
        acceptor_role: What the acceptor claims to be.
        initiator_peer: The initiator's peer id, None for an anonymous reader.
        acceptor_peer: The acceptor's peer id.
        initiator_nonce: 32 fresh random bytes.
        acceptor_nonce: 32 fresh random bytes.
        initiator_boot: 16 random bytes drawn when the initiator's process started.
        acceptor_boot: 16 random bytes drawn when the acceptor's process started.
        acceptor_key: Ed25519 key (32 bytes) of the certificate the acceptor showed on this channel.
        initiator_key: The initiator's certificate key, None where it showed no certificate.
    """

    versions: tuple[int, ...]
    version: int
    instance_id: InstanceId
    group_id: GroupId
    initiator_role: Role
    acceptor_role: Role
    initiator_peer: PeerId | None
    acceptor_peer: PeerId
    initiator_nonce: bytes
    acceptor_nonce: bytes
    initiator_boot: bytes
    acceptor_boot: bytes
    acceptor_key: bytes
    initiator_key: bytes | None

    def encode(self) -> bytes:
        """Lay the transcript out: fixed widths, big-endian, absent values as 0 ‖ 32 zero bytes."""
        writer = Writer().u8(len(self.versions))
        for version in self.versions:
            writer.u16(version)
        writer.u16(self.version)
        writer.fixed(self.instance_id, 32).fixed(self.group_id, 32)
        writer.u8(_ROLE_NUMBERS[self.initiator_role]).u8(_ROLE_NUMBERS[self.acceptor_role])
        _optional32(writer, self.initiator_peer)
        writer.fixed(self.acceptor_peer, 32)
        writer.fixed(self.initiator_nonce, NONCE_BYTES).fixed(self.acceptor_nonce, NONCE_BYTES)
        writer.fixed(self.initiator_boot, BOOT_ID_BYTES).fixed(self.acceptor_boot, BOOT_ID_BYTES)
        writer.fixed(self.acceptor_key, 32)
        _optional32(writer, self.initiator_key)
        return writer.take()

    @property
    def among_committee(self) -> bool:
        """Whether both sides claim to be servers, and so must prove the committee secret."""
        return self.initiator_role is Role.SERVER and self.acceptor_role is Role.SERVER


def _optional32(writer: Writer, value: bytes | None) -> None:
    writer.u8(0 if value is None else 1).fixed(value if value is not None else bytes(32), 32)


def sign_transcript(identity: Identity, transcript: Transcript, side: Side) -> bytes:
    """Return this side's hybrid signature over the transcript (protocol.md §7)."""
    return identity.sign(_SIGNATURE_USE[side], transcript.encode())


def verify_transcript(
    identity: PublicIdentity, transcript: Transcript, side: Side, signature: bytes
) -> None:
    """Check the other side's signature over the transcript.

    Raises:
        AdmissionError: With code ``bad_proof`` when it does not verify.
    """
    try:
        verify_hybrid(identity, _SIGNATURE_USE[side], transcript.encode(), signature)
    except VerificationError as error:
        raise AdmissionError(
            "the signature over the handshake does not verify", code="bad_proof"
        ) from error


def committee_mac(secret: Secret, transcript: Transcript, side: Side) -> bytes:
    """Return the 32-byte proof that this side knows the committee secret (protocol.md §7)."""
    with secret.reveal() as key:
        return ids.keyed(_MAC_USE[side], key, transcript.encode())


def verify_committee_mac(
    secrets: Sequence[Secret], transcript: Transcript, side: Side, mac: bytes | None
) -> Secret:
    """Return which committee secret the other side proved to know; compares in constant time.

    Args:
        secrets: What it may be proved with: one, or two while one takes the other's place.
        transcript: The handshake.
        side: Which side's proof it is.
        mac: The proof.

    Raises:
        AdmissionError: With code ``bad_committee_proof`` when it is absent or wrong.
    """
    for secret in secrets:
        if mac is not None and hmac.compare_digest(committee_mac(secret, transcript, side), mac):
            return secret
    raise AdmissionError(
        "the peer does not know this committee's secret",
        code="bad_committee_proof",
        hint="all servers of one instance need the same committee secret",
    )


@dataclass(frozen=True, slots=True)
class HelloFacts:
    """What is proved about an initiator when the node decides whether to let it in.

    Attributes:
        role: The role it claims.
        peer_id: Its proved peer id; None for a reader.
        identity: Its proved public identity; None for a reader.
        boot_id: 16 random bytes of its process start.
        certificate_key: Ed25519 key of its TLS certificate, None where it showed none.
        remote_address: ``host:port``, for refusal logs only.
        committee_proved: Whether it proved the committee secret on this channel.
        evidence_until: When its evidence lapses, Unix seconds; None where none was due.
    """

    role: Role
    peer_id: PeerId | None
    identity: PublicIdentity | None = field(repr=False)
    boot_id: bytes
    certificate_key: bytes | None
    remote_address: str
    committee_proved: bool
    evidence_until: int | None = None


_REFUSAL_CLASSES: Final[dict[str, type[ZipnetError]]] = {
    error.reason: error
    for error in (UnknownInstanceError, PolicyMismatchError, DuplicateIdentityError)
}


def error_to_refusal(error: ZipnetError) -> Refusal:
    """Return what the peer is told about an error: its code, its line, never its hint."""
    code = error.code if isinstance(error, AdmissionError) else error.reason
    retry_after = error.retry_after if isinstance(error, AdmissionError) else None
    if retry_after is not None:
        bounded = min(max(retry_after, 0.0), _MAX_RETRY_AFTER_S)
        retry_after = bounded if isfinite(retry_after) else _MAX_RETRY_AFTER_S
    return Refusal(code=code, reason=_printable(str(error)), retry_after=retry_after)


def refusal_to_error(refusal: Refusal) -> ZipnetError:
    """Return the error a refusal stands for; unknown codes become :class:`AdmissionError`."""
    text = _printable(refusal.reason) or refusal.code
    special = _REFUSAL_CLASSES.get(refusal.code)
    if special is not None:
        return special(text)
    retry_after = refusal.retry_after
    if retry_after is not None and not isfinite(retry_after):
        retry_after = None
    return AdmissionError(text, code=refusal.code, retry_after=retry_after)


def _printable(text: str) -> str:
    # A peer's words end up on somebody's terminal: no control sequences.
    return "".join(character for character in text if character.isprintable())[:_MAX_REASON]

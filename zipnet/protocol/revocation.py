"""Revocations: signed statements that a capability or a peer no longer counts (row Z26).

A statement is signed by the group's operator, or by somebody the operator gave a warrant, and is
whole in itself: whoever has the descriptor can check it, so it may come by any way. The committee
puts it into its log, which is what makes it count everywhere and for good.

Layouts (big-endian)::

    statement = layout u8 = 1 ‖ group 32 ‖ kind u8 ‖ target 32 ‖ at u64 (milliseconds since 1970)
              ‖ warrant var16 (empty: the operator itself) ‖ Ed25519 signature 64
    warrant   = layout u8 = 1 ‖ group 32 ‖ key 32 ‖ until u64 (milliseconds since 1970)
              ‖ Ed25519 signature 64 of the operator

Rules:

1. A warrant is good for statements dated before its end. Whoever accepts a *new* statement from
   outside compares that date with a clock (:func:`require_fresh`); the log does not, since all
   servers must decide alike.
2. A revocation is never taken back. A peer comes back with another identity, a person with another
   token.
3. The signatures are Ed25519 alone, like all of the log's commands: what a forger of them could do
   is keep somebody out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from zipnet.errors import AdmissionError, RemoteProtocolError, VerificationError
from zipnet.protocol.encoding import Reader, Writer
from zipnet.protocol.identity import verify_ed25519

if TYPE_CHECKING:
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.ids import GroupId

__all__ = [
    "MAX_STATEMENT_BYTES",
    "Revocation",
    "RevokedKind",
    "Warrant",
    "open_revocation",
    "open_warrant",
    "require_fresh",
    "sign_revocation",
    "sign_warrant",
]

MAX_STATEMENT_BYTES: Final = 512
_MAX_WARRANT: Final = 256
_LAYOUT: Final = 1
_USE: Final = "revocation"
_WARRANT_USE: Final = "revocation-warrant"
_SIGNATURE_BYTES: Final = 64
_FRESH_MS: Final = 24 * 3600 * 1000
_AHEAD_MS: Final = 60 * 1000


class RevokedKind(IntEnum):
    """What is revoked."""

    TOKEN = 1
    PEER = 2


@dataclass(frozen=True, slots=True)
class Warrant:
    """The operator's word that a key may revoke, until some time.

    Attributes:
        key: Ed25519 key, 32 bytes.
        until_ms: End of its use, milliseconds since 1970.
    """

    key: bytes
    until_ms: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """A statement whose signatures have been checked.

    Attributes:
        kind: What is revoked.
        target: Peer id, or id of a capability; 32 bytes.
        at_ms: When it was signed, milliseconds since 1970, as the signer says.
        signer: Ed25519 key (32 bytes) that signed it.
    """

    kind: RevokedKind
    target: bytes
    at_ms: int
    signer: bytes


def sign_warrant(group: GroupId, key: bytes, until_ms: int, operator: Identity) -> bytes:
    """Return the operator's warrant for a key."""
    body = Writer().u8(_LAYOUT).fixed(group, 32).fixed(key, 32).u64(until_ms).take()
    return body + operator.sign_ed25519(_WARRANT_USE, body)


def open_warrant(data: bytes, group: GroupId, operator_key: bytes) -> Warrant:
    """Parse a warrant and check the operator's signature.

    Raises:
        RemoteProtocolError: When the bytes are no warrant of this group.
        VerificationError: When the operator did not sign it.
    """
    if not _SIGNATURE_BYTES < len(data) <= _MAX_WARRANT:
        raise RemoteProtocolError("warrant has an impossible size")
    body = data[:-_SIGNATURE_BYTES]
    reader = Reader(body)
    if reader.u8() != _LAYOUT or reader.fixed(32) != group:
        raise RemoteProtocolError("warrant of another layout or group")
    key, until_ms = reader.fixed(32), reader.u64()
    reader.finish()
    verify_ed25519(operator_key, _WARRANT_USE, body, data[-_SIGNATURE_BYTES:])
    return Warrant(key, until_ms)


def sign_revocation(
    group: GroupId,
    kind: RevokedKind,
    target: bytes,
    at_ms: int,
    signer: Identity,
    warrant: bytes = b"",
) -> bytes:
    """Return a statement.

    Args:
        group: The group it is about.
        kind: What is revoked.
        target: Peer id, or id of a capability; 32 bytes.
        at_ms: Now, milliseconds since 1970.
        signer: The operator, or whoever the warrant names.
        warrant: The warrant; empty where the operator signs.
    """
    writer = Writer().u8(_LAYOUT).fixed(group, 32).u8(kind).fixed(target, 32).u64(at_ms)
    body = writer.var16(warrant).take()
    return body + signer.sign_ed25519(_USE, body)


def open_revocation(data: bytes, group: GroupId, operator_key: bytes) -> Revocation:
    """Parse a statement and check every signature in it.

    Args:
        data: The statement.
        group: The group it must be about.
        operator_key: Ed25519 key (32 bytes) of the descriptor's operator.

    Raises:
        RemoteProtocolError: When the bytes are no statement of this group.
        VerificationError: When nobody entitled signed it.
    """
    if not _SIGNATURE_BYTES < len(data) <= MAX_STATEMENT_BYTES:
        raise RemoteProtocolError("revocation has an impossible size")
    body = data[:-_SIGNATURE_BYTES]
    reader = Reader(body)
    if reader.u8() != _LAYOUT or reader.fixed(32) != group:
        raise RemoteProtocolError("revocation of another layout or group")
    kind, target, at_ms = reader.u8(), reader.fixed(32), reader.u64()
    warrant = reader.var16(max_len=_MAX_WARRANT)
    reader.finish()
    if kind not in RevokedKind.__members__.values():
        raise RemoteProtocolError("revocation of an unknown kind")
    signer = operator_key
    if warrant:
        granted = open_warrant(warrant, group, operator_key)
        if at_ms >= granted.until_ms:
            raise VerificationError("revocation is dated after the end of its warrant")
        signer = granted.key
    verify_ed25519(signer, _USE, body, data[-_SIGNATURE_BYTES:])
    return Revocation(RevokedKind(kind), target, at_ms, signer)


def require_fresh(revocation: Revocation, now_ms: int) -> None:
    """Refuse a new statement that is not of today (rule 1).

    Raises:
        AdmissionError: It is more than a day old, or dated ahead of this clock.
    """
    if not now_ms - _FRESH_MS <= revocation.at_ms <= now_ms + _AHEAD_MS:
        raise AdmissionError(
            "the statement was not signed within the last day", code="revocation_stale"
        )

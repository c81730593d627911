"""An envelope: one client's padded vector for one round (protocol.md §5, §6 "fold").

The body is the round vector encrypted under one pad per roster server, so it looks random to
everyone below the committee. Ed25519 alone signs it: the signature guards delivery, not privacy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError
from zipnet.protocol.encoding import Writer
from zipnet.protocol.identity import verify_ed25519
from zipnet.protocol.ids import Digest, RegistryIndex, RoundNumber, content_digest

if TYPE_CHECKING:
    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.params import RoundParams

__all__ = ["AdmittedEnvelope", "Envelope", "admit_envelope", "seal_envelope"]

_USE = "envelope"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One client's contribution as it arrived; not yet checked.

    Attributes:
        round: Round the body was padded for.
        header_hash: Hash of the header the client was shown.
        sender: The client's registry index.
        body: ``params.body_bytes`` of padded vector.
        signature: 64 bytes Ed25519 over :func:`_signed_bytes`.
    """

    round: RoundNumber
    header_hash: Digest
    sender: RegistryIndex
    body: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AdmittedEnvelope:
    """An envelope that belongs to this round and is signed by the registered client."""

    sender: RegistryIndex
    body: bytes = field(repr=False)


def _signed_bytes(
    round_number: RoundNumber, header_hash: Digest, sender: RegistryIndex, body: bytes
) -> bytes:
    return (
        Writer()
        .u64(round_number)
        .fixed(header_hash, 32)
        .u64(sender)
        .fixed(content_digest(body), 32)
        .take()
    )


def seal_envelope(
    header: RoundHeader, sender: RegistryIndex, body: bytes, identity: Identity
) -> Envelope:
    """Sign a padded body as the envelope of a round."""
    header_hash = header.hash
    signature = identity.sign_ed25519(_USE, _signed_bytes(header.round, header_hash, sender, body))
    return Envelope(header.round, header_hash, sender, body, signature)


def admit_envelope(
    envelope: Envelope,
    *,
    header_hash: Digest,
    round_number: RoundNumber,
    params: RoundParams,
    sender_key: bytes,
) -> AdmittedEnvelope:
    """Check an envelope against the open round and its sender's registered key.

    Raises:
        RemoteProtocolError: When round, header or size is not the open round's.
        VerificationError: When the signature is not the registered client's.
    """
    # 1 round, 2 header, 3 size: cheap checks first, so that junk costs nothing.
    if envelope.round != round_number:
        raise RemoteProtocolError("envelope is for another round")
    if envelope.header_hash != header_hash:
        raise RemoteProtocolError("envelope was made for another header of this round")
    if len(envelope.body) != params.body_bytes:
        raise RemoteProtocolError(
            f"envelope body has {len(envelope.body)} bytes, the group uses {params.body_bytes}"
        )
    # 4 signature of the registered key over everything above.
    signed = _signed_bytes(envelope.round, envelope.header_hash, envelope.sender, envelope.body)
    verify_ed25519(sender_key, _USE, signed, envelope.signature)
    return AdmittedEnvelope(envelope.sender, envelope.body)

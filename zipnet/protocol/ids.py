"""Ids and the one way to derive them: BLAKE3 under a context string ``zipnet/v1/<use>``.

Rules (protocol.md §2, §3):

1. Every derivation names its use; no two uses can collide.
2. Every part is prefixed with its 64-bit length, so parts cannot be shifted against each other.
3. An id that depends on a secret reveals nothing about it, because the secret is 32 random bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NewType

from blake3 import blake3

from zipnet.errors import ConfigError, LocalProtocolError

if TYPE_CHECKING:
    from zipnet.protocol.encoding import Buffer
    from zipnet.protocol.params import RoundParams
    from zipnet.protocol.secret import Secret

__all__ = [
    "DEFAULT_UNIVERSE",
    "DIGEST_BYTES",
    "MESSAGE_ID_BYTES",
    "DescriptorVersion",
    "Digest",
    "GroupId",
    "InstanceId",
    "MessageId",
    "PeerId",
    "RegistryIndex",
    "RoundNumber",
    "ServerIndex",
    "SlotIndex",
    "committee_fingerprint",
    "content_digest",
    "derive",
    "format_peer_id",
    "group_id",
    "instance_id",
    "keyed",
    "parse_peer_id",
    "short_peer_id",
    "validate_instance_name",
    "validate_universe",
]

RoundNumber = NewType("RoundNumber", int)
ServerIndex = NewType("ServerIndex", int)
RegistryIndex = NewType("RegistryIndex", int)
SlotIndex = NewType("SlotIndex", int)
DescriptorVersion = NewType("DescriptorVersion", int)

Digest = NewType("Digest", bytes)
PeerId = NewType("PeerId", bytes)
GroupId = NewType("GroupId", bytes)
InstanceId = NewType("InstanceId", bytes)
MessageId = NewType("MessageId", bytes)

DEFAULT_UNIVERSE = "zipnet"
DIGEST_BYTES = 32
MESSAGE_ID_BYTES = 16

_CONTEXT = "zipnet/v1/"
_PEER_PREFIX = "zp1"
_MAX_NAME = 128
_MIN_LABELS = 2
_LABEL = re.compile(r"[a-z0-9-]{1,32}")
_PEER_TEXT = re.compile(rf"{_PEER_PREFIX}[0-9a-f]{{64}}")


def derive(use: str, *parts: Buffer) -> Digest:
    """Derive 32 bytes from length-prefixed parts: BLAKE3 derive-key mode (protocol.md §2).

    Args:
        use: What the result is for; the context string is ``zipnet/v1/<use>``.
        parts: The input, each preceded by its length as 8 bytes, big-endian.
    """
    hasher = blake3(derive_key_context=_CONTEXT + use)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return Digest(hasher.digest())


def keyed(use: str, key: Buffer, *parts: Buffer) -> bytes:
    """Compute a 32-byte PRF value or MAC: keyed BLAKE3 under a sub-key of ``key`` for this use.

    Args:
        use: What the result is for; the sub-key is derive-key ``zipnet/v1/<use>`` of the raw key.
        key: Exactly 32 bytes.
        parts: The input, laid out as in :func:`derive`.

    Raises:
        LocalProtocolError: When the key is not 32 bytes long.
    """
    if len(key) != DIGEST_BYTES:
        raise LocalProtocolError(f"key has {len(key)} bytes, {DIGEST_BYTES} are due")
    sub_key = blake3(key, derive_key_context=_CONTEXT + use).digest()
    hasher = blake3(key=sub_key)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.digest()


def content_digest(data: Buffer) -> Digest:
    """Address a blob: derive-key ``zipnet/v1/blob`` of its raw bytes, with no length in front."""
    return Digest(blake3(data, derive_key_context=_CONTEXT + "blob").digest())


def instance_id(universe: str, name: str) -> InstanceId:
    """Derive the id of an instance from its universe and name (protocol.md §3)."""
    return InstanceId(derive("instance", universe.encode(), name.encode()))


def committee_fingerprint(secret: Secret, instance: InstanceId) -> Digest:
    """Derive the public fingerprint of a committee secret within one instance.

    One-way and bound to the instance: the same secret gives unrelated fingerprints elsewhere. It is
    safe to publish because :mod:`zipnet.protocol.secret` admits 32 random bytes only.

    Raises:
        LocalProtocolError: When the secret is not 32 bytes long or has been wiped.
    """
    with secret.reveal() as view:
        return Digest(keyed("committee-fingerprint", view, instance))


def group_id(
    *,
    universe: str,
    instance: str,
    params: RoundParams,
    committee_fingerprint: bytes,
    attestation_policy_digest: bytes,
    trust_root_digest: bytes,
) -> GroupId:
    """Derive the id of all that two parties must agree on before they talk (protocol.md §3)."""
    return GroupId(
        derive(
            "group",
            universe.encode(),
            instance.encode(),
            params.encode(),
            committee_fingerprint,
            attestation_policy_digest,
            trust_root_digest,
        )
    )


def validate_instance_name(text: str) -> str:
    """Return an instance name unchanged if it is well formed, such as ``acme.mainnet``.

    Raises:
        ConfigError: Unless it is two or more labels of 1 … 32 characters ``a-z 0-9 -``, joined by
            dots, 128 characters at most.
    """
    labels = text.split(".")
    if (
        len(text) > _MAX_NAME
        or len(labels) < _MIN_LABELS
        or not all(_LABEL.fullmatch(label) for label in labels)
    ):
        raise ConfigError(
            f"instance name {text[:_MAX_NAME]!r} is not namespaced",
            hint="write at least two labels of a-z, 0-9 and -, such as acme.mainnet",
        )
    return text


def validate_universe(text: str) -> str:
    """Return a universe name unchanged if it is well formed: one or more labels joined by dots.

    Raises:
        ConfigError: Unless labels are 1 … 32 characters ``a-z 0-9 -``, 128 characters in all.
    """
    if len(text) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise ConfigError(
            f"universe {text[:_MAX_NAME]!r} is not a name",
            hint="write labels of a-z, 0-9 and - joined by dots, or leave it unset",
        )
    return text


def format_peer_id(peer: PeerId) -> str:
    """Write a peer id as ``zp1`` and 64 lower-case hexadecimal digits."""
    return _PEER_PREFIX + peer.hex()


def short_peer_id(peer: PeerId) -> str:
    """Write the first 6 bytes of a peer id, for logs about nodes (never about clients)."""
    return _PEER_PREFIX + peer[:6].hex()


def parse_peer_id(text: str) -> PeerId:
    """Read what :func:`format_peer_id` wrote.

    Raises:
        ConfigError: For any other text.
    """
    if not _PEER_TEXT.fullmatch(text):
        raise ConfigError(
            f"peer id of {len(text)} characters is malformed",
            hint=f"a peer id is {_PEER_PREFIX} followed by 64 lower-case hexadecimal digits",
        )
    return PeerId(bytes.fromhex(text[len(_PEER_PREFIX) :]))

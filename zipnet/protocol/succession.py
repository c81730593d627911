"""Versions of a descriptor that follow one another while the instance goes on (protocol.md §3.5).

A version names the one before it by digest, so whoever trusts one can be handed all before it by
anybody; and it is signed by the operator of the one before it, so whoever trusts that one can be
handed all after it. Neither asks a clock: only who begins with a file asks whether it is valid now.

Rules:

1. The number grows by one, and the name, the universe and all the group id is made of stay.
2. One server's identity changes at most; its seat then says ``since`` which version, and nobody
   else's does. Majorities of the committees before and after always meet (decision 0007). Who comes
   never had a seat: in the consensus engine it is a member that nobody ever was.
3. What may change besides: endpoints, certificates, fault domains, entities, the validity, the
   aggregators, and the operator's key. Nothing else: how many servers there are and may be absent,
   their names, the cadence.
4. A version with another operator's key carries, as the last line it signs, a *handover*: the
   signature of the key before it over everything above that line. The key before it may sign
   revocations until the version after that.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError, VerificationError
from zipnet.protocol.descriptor import (
    Descriptor,
    TrustedDescriptor,
    parse_descriptor,
    sign_descriptor,
    trust_descriptor,
)
from zipnet.protocol.identity import HYBRID_SIGNATURE_BYTES, verify_hybrid
from zipnet.protocol.ids import ServerIndex
from zipnet.protocol.revocation import Revocation, open_revocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.protocol.identity import Identity

__all__ = [
    "MAX_VERSIONS",
    "hand_over",
    "link_earlier",
    "open_by_operators",
    "replaced_server",
    "succeed",
    "versions_of",
]

MAX_VERSIONS: Final = 256
"""Versions an instance may have in all; the log keeps every one of them."""

_HANDOVER_PREFIX: Final = b"# zipnet-handover-1: "
_HANDOVER_USE: Final = "descriptor-handover"


def succeed(current: TrustedDescriptor, data: bytes) -> TrustedDescriptor:
    """Return the version that follows ``current``, with all before it.

    Args:
        current: The newest version that is trusted.
        data: The file of the next one.

    Raises:
        VerificationError: When it may not follow; the message says why.
    """
    try:
        new = parse_descriptor(data)
        # Signed by the key it names itself; rules 1 to 4 say what that key has to do with ours.
        trusted = trust_descriptor(new, now=new.not_before)
    except ConfigError as error:
        raise VerificationError(f"no version to follow: {error}") from error
    if len(current.earlier) + 2 > MAX_VERSIONS:
        raise VerificationError(f"an instance has {MAX_VERSIONS} versions at most")
    _require_follows(current.descriptor, new)
    _require_newcomer(current, new)
    _require_same_hands(current.descriptor, new)
    earlier = (*current.earlier, replace(current, earlier=()))
    return replace(trusted, earlier=earlier)


def link_earlier(newest: TrustedDescriptor, older: Sequence[bytes]) -> TrustedDescriptor:
    """Return a trusted version together with those before it, from files anybody may have sent.

    Args:
        newest: The version that is trusted.
        older: Files of the versions before it, oldest first, as far as they are wanted.

    Raises:
        VerificationError: When a file is not the version it is said to be.
    """
    if not older:
        return newest
    line = versions_of((*older, newest.descriptor.file))
    if line.descriptor.digest != newest.descriptor.digest:
        raise VerificationError("these versions lead to another descriptor")
    return line


def versions_of(files: Sequence[bytes]) -> TrustedDescriptor:
    """Return the last of versions that follow one another, with all before it.

    The first is only checked to be signed by the operator it names: who trusts its operator, or the
    last version, trusts them all.

    Raises:
        VerificationError: When one does not follow the one before it.
    """
    try:
        first = parse_descriptor(files[0])
        line = trust_descriptor(first, now=first.not_before)
    except ConfigError as error:
        raise VerificationError(f"no version to begin with: {error}") from error
    for data in files[1:]:
        line = succeed(line, data)
    return line


def replaced_server(old: Descriptor, new: Descriptor) -> ServerIndex | None:
    """Return the seat whose server changes between two versions; None where none does."""
    for index, (before, after) in enumerate(zip(old.servers, new.servers, strict=True)):
        if before.peer_id != after.peer_id:
            return ServerIndex(index)
    return None


def open_by_operators(
    statement: bytes, descriptor: TrustedDescriptor, *, ever: bool = False
) -> Revocation:
    """Check a revocation against the operators of a version and the one before it (rule 4).

    Args:
        statement: The statement.
        descriptor: The version in force, with those before it.
        ever: Whether any operator there was will do: for what was taken earlier.

    Raises:
        RemoteProtocolError: It is no statement of this group.
        VerificationError: Nobody entitled signed it.
    """
    earlier = descriptor.earlier if ever else descriptor.earlier[-1:]
    versions = (descriptor, *reversed(earlier))
    keys = list(dict.fromkeys(item.descriptor.operator.ed25519 for item in versions))
    for key in keys[:-1]:
        try:
            return open_revocation(statement, descriptor.group, key)
        except VerificationError:
            continue
    return open_revocation(statement, descriptor.group, keys[-1])


def _require_follows(old: Descriptor, new: Descriptor) -> None:
    # 1. It is the next one, of the same group.
    if new.version != old.version + 1:
        raise VerificationError(f"version {new.version} does not follow version {old.version}")
    if new.previous != old.digest:
        raise VerificationError(f"version {new.version} follows another version {old.version}")
    if new.group != old.group:
        raise VerificationError(f"version {new.version} is of another group")
    _require_seats(old, new)
    # 3. Nothing else that matters.
    kept = (old.max_absent, old.cadence, old.params, old.attestation)
    if (new.max_absent, new.cadence, new.params, new.attestation) != kept:
        raise VerificationError(f"version {new.version} changes what no version may")


def _require_seats(old: Descriptor, new: Descriptor) -> None:
    """Rule 2."""
    if len(new.servers) != len(old.servers):
        raise VerificationError(f"version {new.version} has another number of servers")
    changed = [
        index
        for index, (before, after) in enumerate(zip(old.servers, new.servers, strict=True))
        if before.peer_id != after.peer_id
    ]
    if len(changed) > 1:
        raise VerificationError(f"version {new.version} replaces more than one server")
    for index, (before, after) in enumerate(zip(old.servers, new.servers, strict=True)):
        if after.since != (new.version if index in changed else before.since):
            raise VerificationError(f"{after.name!r} says wrongly since when it serves")
        if after.name != before.name and index not in changed:
            raise VerificationError(f"{before.name!r} changes its name")


def _require_newcomer(current: TrustedDescriptor, new: Descriptor) -> None:
    """Rule 2, of every version that is known."""
    seat = replaced_server(current.descriptor, new)
    if seat is None:
        return
    comes = new.servers[seat].peer_id
    if current.server_index(comes) is not None:
        raise VerificationError("a server moves to another seat")
    if any(older.server_index(comes) is not None for older in current.earlier):
        raise VerificationError(f"{new.servers[seat].name!r} had a seat before")


def _require_same_hands(old: Descriptor, new: Descriptor) -> None:
    if new.operator.peer_id == old.operator.peer_id:
        return
    body, signature = _split_handover(new.signed_bytes)
    if signature is None:
        raise VerificationError(f"version {new.version} is by another operator")
    verify_hybrid(old.operator, _HANDOVER_USE, body, signature)


def _split_handover(signed: bytes) -> tuple[bytes, bytes | None]:
    start = signed.rfind(b"\n" + _HANDOVER_PREFIX)
    if start < 0 or not signed.endswith(b"\n") or signed.count(b"\n", start + 1) != 1:
        return signed, None
    text = signed[start + 1 + len(_HANDOVER_PREFIX) : -1]
    try:
        signature = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return signed, None
    whole = len(signature) == HYBRID_SIGNATURE_BYTES
    return signed[: start + 1], signature if whole else None


def hand_over(data: bytes, old: Identity, new: Identity) -> bytes:
    """Return a descriptor file that names ``new`` as its operator, with the handover of ``old``.

    Args:
        data: The unsigned text; it names the new key.
        old: The operator of the version before it.
        new: The operator from now on.

    Raises:
        ConfigError: When the text does not parse or names another key.
    """
    body = parse_descriptor(data).signed_bytes
    if not body.endswith(b"\n"):
        body += b"\n"
    signature = base64.b64encode(old.sign(_HANDOVER_USE, body))
    return sign_descriptor(body + _HANDOVER_PREFIX + signature + b"\n", new)

"""Capabilities: whoever holds one may do what it says, for one group, for thirty days at most.

Row M2. A capability is a biscuit: facts signed by an issuer, and blocks that anybody who holds it
may add, each of which can only take away. It is checked offline, with the issuers' public keys
alone. Tokens are made in :mod:`zipnet.access.minting`.

Rules:

1. The first block says for which group and which roles, from when until when, and, where it is
   bound, for which peer. Later blocks hold checks of three shapes and nothing else: an earlier
   end, fewer roles, one peer. A token with anything else in it is refused, whoever signed it, so
   no foreign program ever runs here.
2. The library decides, once for each role; this module bounds what it is given.
3. A lifetime above :data:`MAX_LIFETIME_S` is refused at verification too, whatever the issuer
   wrote.
4. Each block has a revocation id; whoever revokes one revokes everything attenuated from it.
5. A capability bound to a peer counts in that peer's session only, where the handshake proved it.
6. Errors name the rule that was broken and quote nothing: no token ever reaches a log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NewType

from biscuit_auth import (
    Algorithm,
    AuthorizationError,
    AuthorizerBuilder,
    Biscuit,
    BiscuitBlockError,
    BiscuitSerializationError,
    BiscuitValidationError,
    DataLogError,
    PublicKey,
    UnverifiedBiscuit,
)

from zipnet.access.tokentext import MAX_TOKEN_BYTES
from zipnet.errors import AdmissionError
from zipnet.protocol.ids import GroupId, PeerId, derive

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "MAX_BLOCKS",
    "MAX_ISSUERS",
    "MAX_LIFETIME_S",
    "Capability",
    "CapabilityRole",
    "TokenId",
    "inspect_capability",
    "issuer_public",
    "require_role",
    "verify_capability",
]

MAX_BLOCKS: Final = 8
MAX_ISSUERS: Final = 8
MAX_LIFETIME_S: Final = 30 * 24 * 3600
_SKEW_S: Final = 60
_KEY_BYTES: Final = 32
_MAX_TIME: Final = timedelta(milliseconds=250)  # bounded by the shapes below; time is a last resort

TokenId = NewType("TokenId", bytes)
"""32 bytes derived from the revocation id of one block of a token."""


class CapabilityRole(StrEnum):
    """What a capability is good for."""

    PUBLISH = "publish"
    AGGREGATE = "aggregate"
    READ = "read"
    ARCHIVE = "archive"
    ADMIN_READ = "admin-read"
    ADMIN_WRITE = "admin-write"


@dataclass(frozen=True, slots=True)
class Capability:
    """What a token grants.

    Attributes:
        group: The group it is good for.
        roles: What its holder may do.
        issued_s: When it was minted, seconds since 1970.
        expires_s: From when on it is no longer good: the earliest end of all its blocks.
        peer: The only peer that may show it, None for whoever holds it.
        ids: Id of each of its blocks; the last one is its own, the others those of its ancestors.
        issuer: Ed25519 key (32 bytes) that signed it; empty where that was not checked.
    """

    group: GroupId
    roles: frozenset[CapabilityRole]
    issued_s: int
    expires_s: int
    peer: PeerId | None
    ids: tuple[TokenId, ...]
    issuer: bytes = field(default=b"")

    @property
    def key_id(self) -> str:
        """Sixteen hexadecimal digits of its own id: how logs and the audit trail name it."""
        return self.ids[-1].hex()[:16]


@dataclass(frozen=True, slots=True)
class _Claims:
    """What the blocks say, before anybody decided whether it holds."""

    group: bytes
    roles: frozenset[str]
    issued_s: int
    lifetime_s: int
    expires_s: int
    peers: frozenset[bytes]


def verify_capability(
    token: bytes,
    *,
    issuers: Sequence[bytes],
    group: GroupId,
    now_s: float,
    presenter: PeerId | None,
) -> Capability:
    """Decide what a token grants to who showed it; revocation is asked elsewhere.

    Args:
        token: The token, as it travels.
        issuers: Ed25519 keys (32 bytes) that may sign tokens, at most :data:`MAX_ISSUERS`.
        group: The group it must be for.
        now_s: Seconds since 1970.
        presenter: Peer id the session proved; None for a reader, who proves none.

    Raises:
        AdmissionError: When it grants nothing; ``code`` starts with ``capability_``.
    """
    # 1. Its size, then its signatures by one of the issuers.
    biscuit, issuer = _signed(token, issuers)
    # 2. Nothing but the shapes of rule 1.
    blocks = [_block(biscuit, position) for position in range(_count(biscuit.block_count()))]
    claims = _claims(blocks)
    # 3. Its life (rule 3), its group, and who shows it.
    if claims.lifetime_s > MAX_LIFETIME_S or claims.lifetime_s <= 0:
        raise _refused("is made for longer than thirty days", "lifetime")
    if claims.issued_s > now_s + _SKEW_S:
        raise _refused("is dated ahead of this node's clock", "not_yet")
    if now_s >= claims.expires_s:
        raise _refused("has expired", "expired")
    if claims.group != group:
        raise _refused("is for another group", "audience")
    if any(peer != presenter for peer in claims.peers):
        raise _refused("is bound to another peer", "presenter")
    # 4. The library's word, for each role.
    named = frozenset(
        CapabilityRole(role)
        for role in claims.roles
        if _authorized(biscuit, role, group=group, now_s=now_s, presenter=presenter)
    )
    if not named:
        raise _refused("grants nothing here", "role")
    return _capability(claims, named, biscuit.revocation_ids, issuer)


def inspect_capability(token: bytes) -> Capability:
    """Return what a token says, without checking who signed it or whether it still holds.

    Raises:
        AdmissionError: When the bytes are no token of this kind.
    """
    biscuit = _unverified(token)
    try:
        sources = [biscuit.block_source(i) for i in range(_count(biscuit.block_count()))]
    except BiscuitBlockError as error:
        raise _refused("does not parse", "malformed") from error
    claims = _claims(sources)
    roles = frozenset(CapabilityRole(role) for role in claims.roles)
    return _capability(claims, roles, biscuit.revocation_ids, b"")


def require_role(capability: Capability | None, wanted: CapabilityRole, *, now_s: float) -> None:
    """Refuse unless a capability that was verified before grants a role now.

    Raises:
        AdmissionError: There is none, it has another role, or it has expired since.
    """
    if capability is None:
        raise AdmissionError("this needs a capability", code="capability_missing")
    if now_s >= capability.expires_s:
        raise _refused("has expired", "expired")
    if wanted not in capability.roles:
        raise _refused("does not grant this", "role")


# -- signatures --------------------------------------------------------------------------------


def _signed(token: bytes, issuers: Sequence[bytes]) -> tuple[Biscuit, bytes]:
    _require_size(token)
    for issuer in issuers[:MAX_ISSUERS]:
        try:
            return Biscuit.from_bytes(token, issuer_public(issuer)), issuer
        except (BiscuitValidationError, BiscuitSerializationError, ValueError):
            continue
    raise _refused("is by no issuer this node knows", "issuer")


def issuer_public(issuer: bytes) -> PublicKey:
    """Return an issuer's key as the library wants it.

    Raises:
        ValueError: When the bytes are no Ed25519 key.
    """
    # The library's stubs lag behind its keys and limits.
    return PublicKey.from_bytes(issuer, Algorithm.Ed25519)  # type: ignore[attr-defined, call-arg]


def _unverified(token: bytes) -> UnverifiedBiscuit:
    _require_size(token)
    from base64 import urlsafe_b64encode  # noqa: PLC0415 - only looking at a token takes it

    try:
        return UnverifiedBiscuit.from_base64(urlsafe_b64encode(token).decode())
    except (BiscuitValidationError, BiscuitSerializationError, ValueError) as error:
        raise _refused("does not parse", "malformed") from error


def _require_size(token: bytes) -> None:
    if not 0 < len(token) <= MAX_TOKEN_BYTES:
        raise _refused("has an impossible size", "malformed")


def _count(blocks: int) -> int:
    if not 1 <= blocks <= MAX_BLOCKS:
        raise _refused("was attenuated too often", "malformed")
    return blocks


def _block(biscuit: Biscuit, position: int) -> str:
    try:
        if biscuit.block_external_key(position) is not None:
            raise _refused("holds a block of a third party", "malformed")
        return biscuit.block_source(position)
    except BiscuitBlockError as error:
        raise _refused("does not parse", "malformed") from error


def _authorized(
    biscuit: Biscuit, role: str, *, group: bytes, now_s: float, presenter: PeerId | None
) -> bool:
    """Whether the library lets the holder act in a role; every check of every block must pass."""
    facts = "time({now}); audience({group}); operation({role});"
    values: dict[str, object] = {
        "now": datetime.fromtimestamp(int(now_s), UTC),
        "group": group,
        "role": role,
    }
    if presenter is not None:
        facts += " presenter({presenter});"
        values["presenter"] = presenter
    builder = AuthorizerBuilder(f"{facts} allow if group({{group}}), role({{role}});", values)
    limits = builder.limits()  # type: ignore[attr-defined]
    limits.max_time = _MAX_TIME
    builder.set_limits(limits)  # type: ignore[attr-defined]
    try:
        builder.build(biscuit).authorize()
    except (AuthorizationError, DataLogError):
        return False
    return True


# -- the shapes of blocks ----------------------------------------------------------------------

_DATE = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"
_HEX32 = r"hex:([0-9a-f]{64})"
_ROLE = "|".join(CapabilityRole)
_FACTS: Final = {
    "group": re.compile(rf"group\({_HEX32}\)"),
    "issued": re.compile(rf"issued\({_DATE}\)"),
    "expires": re.compile(rf"expires\({_DATE}\)"),
    "role": re.compile(rf'role\("({_ROLE})"\)'),
}
_FIXED: Final = (
    "check if audience($group), group($group)",
    "check if time($now), expires($end), $now < $end",
    "check if operation($role), role($role)",
)
_EARLIER = re.compile(rf"check if time\(\$now\), \$now < {_DATE}")
_FEWER = re.compile(
    rf'check if operation\(\$role\), \{{("(?:{_ROLE})"(?:, "(?:{_ROLE})")*)\}}\.contains\(\$role\)'
)
_BOUND = re.compile(rf"check if presenter\({_HEX32}\)")
_MAX_LINES = 16


def _lines(source: str) -> list[str]:
    lines = source.splitlines()
    if len(lines) > _MAX_LINES or any(not line.endswith(";") for line in lines if line):
        raise _refused("holds what no capability holds", "malformed")
    return [line[:-1] for line in lines if line]


def _claims(sources: Sequence[str]) -> _Claims:
    """Read the blocks of a token by the shapes they may have (rule 1)."""
    authority = _lines(sources[0])
    found: dict[str, list[str]] = {name: [] for name in _FACTS}
    checks: list[str] = []
    for line in authority:
        match = next(((n, m) for n, p in _FACTS.items() if (m := p.fullmatch(line))), None)
        if match is not None:
            found[match[0]].append(match[1].group(1))
        else:
            checks.append(line)
    single = all(len(found[name]) == 1 for name in ("group", "issued", "expires"))
    if not single or not found["role"] or tuple(checks[: len(_FIXED)]) != _FIXED:
        raise _refused("holds what no capability holds", "malformed")
    issued, expires = _seconds(found["issued"][0]), _seconds(found["expires"][0])
    ends, roles, peers = [expires], set(found["role"]), set[bytes]()
    _narrow(checks[len(_FIXED) :], ends, roles, peers)
    for source in sources[1:]:
        _narrow(_lines(source), ends, roles, peers)
    group = bytes.fromhex(found["group"][0])
    return _Claims(group, frozenset(roles), issued, expires - issued, min(ends), frozenset(peers))


def _narrow(lines: Iterable[str], ends: list[int], roles: set[str], peers: set[bytes]) -> None:
    for line in lines:
        if match := _EARLIER.fullmatch(line):
            ends.append(_seconds(match.group(1)))
        elif match := _FEWER.fullmatch(line):
            roles.intersection_update(re.findall(r'"([^"]+)"', match.group(1)))
        elif match := _BOUND.fullmatch(line):
            peers.add(bytes.fromhex(match.group(1)))
        else:
            raise _refused("holds what no capability holds", "malformed")


def _seconds(text: str) -> int:
    try:
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise _refused("holds what no capability holds", "malformed") from error


def _capability(
    claims: _Claims, roles: frozenset[CapabilityRole], ids: Sequence[str], issuer: bytes
) -> Capability:
    peer = PeerId(min(claims.peers)) if claims.peers else None
    return Capability(
        group=GroupId(claims.group),
        roles=roles,
        issued_s=claims.issued_s,
        expires_s=claims.expires_s,
        peer=peer,
        ids=tuple(TokenId(derive("capability", bytes.fromhex(text))) for text in ids),
        issuer=issuer,
    )


def _refused(what: str, code: str) -> AdmissionError:
    return AdmissionError(f"the capability {what}", code=f"capability_{code}")

"""Make capabilities and take from them: the side that signs (row M2).

The library draws the key of each new block by itself; nothing else here is chance, and time is an
argument. What a token may hold is said in :mod:`zipnet.access.capability`, which reads back every
token made here before it is handed out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from biscuit_auth import (
    Algorithm,
    Biscuit,
    BiscuitBuilder,
    BiscuitBuildError,
    BiscuitSerializationError,
    BiscuitValidationError,
    BlockBuilder,
    KeyPair,
    PrivateKey,
)

from zipnet.access.capability import (
    MAX_LIFETIME_S,
    CapabilityRole,
    inspect_capability,
    issuer_public,
)
from zipnet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zipnet.protocol.ids import GroupId, PeerId
    from zipnet.protocol.secret import Secret

__all__ = ["attenuate_capability", "issuer_key", "mint_capability"]

_MIN_LIFETIME_S = 1


def issuer_key(secret: Secret) -> bytes:
    """Return the Ed25519 key (32 bytes) under which an issuer's tokens are checked."""
    return bytes(KeyPair.from_private_key(_private(secret)).public_key.to_bytes())


def _private(secret: Secret) -> PrivateKey:
    with secret.reveal() as view:
        # The library's stubs lag behind its keys.
        return PrivateKey.from_bytes(bytes(view), Algorithm.Ed25519)  # type: ignore[attr-defined, call-arg]


def mint_capability(
    secret: Secret,
    *,
    group: GroupId,
    roles: Iterable[CapabilityRole],
    now_s: int,
    lifetime_s: int,
    peer: PeerId | None = None,
) -> bytes:
    """Sign a new token.

    Args:
        secret: The issuer's secret, 32 bytes.
        group: The group it is good for.
        roles: What its holder may do, at least one.
        now_s: Seconds since 1970.
        lifetime_s: How long it is good, at most thirty days.
        peer: The only peer that may show it; None for whoever holds it.

    Raises:
        ConfigError: No role, or a lifetime out of bounds.
    """
    named = sorted(set(roles))
    if not named:
        raise ConfigError("a capability needs a role", hint="give --role, such as publish")
    if not _MIN_LIFETIME_S <= lifetime_s <= MAX_LIFETIME_S:
        raise ConfigError(
            "a capability lives from one second to thirty days", hint="mint a new one in time"
        )
    facts = "".join(f'role("{role}");\n' for role in named)
    source = (
        "group({group});\nissued({issued});\nexpires({expires});\n"
        + facts
        + "check if audience($group), group($group);\n"
        "check if time($now), expires($end), $now < $end;\n"
        "check if operation($role), role($role);\n"
    )
    values: dict[str, object] = {
        "group": bytes(group),
        "issued": datetime.fromtimestamp(now_s, UTC),
        "expires": datetime.fromtimestamp(now_s + lifetime_s, UTC),
    }
    if peer is not None:
        source += "check if presenter({peer});\n"
        values["peer"] = bytes(peer)
    token = bytes(BiscuitBuilder(source, values).build(_private(secret)).to_bytes())
    inspect_capability(token)
    return token


def attenuate_capability(
    token: bytes,
    issuer: bytes,
    *,
    roles: Iterable[CapabilityRole] | None = None,
    expires_s: int | None = None,
    peer: PeerId | None = None,
) -> bytes:
    """Return a token that grants less; it takes no secret, and nobody can undo it.

    Args:
        token: The token to take from.
        issuer: Ed25519 key (32 bytes) it is signed by.
        roles: The only roles left; what it never had does not come back by being named.
        expires_s: An earlier end, seconds since 1970.
        peer: The only peer that may show it.

    Raises:
        ConfigError: When nothing is taken away, the token is not by that issuer, or it has no room
            for another block.
        AdmissionError: When the bytes are no token.
    """
    inspect_capability(token)
    lines, values = "", dict[str, object]()
    if expires_s is not None:
        lines += "check if time($now), $now < {expires};\n"
        values["expires"] = datetime.fromtimestamp(expires_s, UTC)
    if roles is not None:
        named = ", ".join(f'"{role}"' for role in sorted(set(roles)))
        if not named:
            raise ConfigError("a capability needs a role", hint="give --role, such as publish")
        lines += f"check if operation($role), {{{named}}}.contains($role);\n"
    if peer is not None:
        lines += "check if presenter({peer});\n"
        values["peer"] = bytes(peer)
    if not lines:
        raise ConfigError("nothing to take away", hint="give --role, --hours or --peer")
    try:
        biscuit = Biscuit.from_bytes(token, issuer_public(issuer))
        narrowed = bytes(biscuit.append(BlockBuilder(lines, values)).to_bytes())
    except (
        BiscuitBuildError,
        BiscuitSerializationError,
        BiscuitValidationError,
        ValueError,
    ) as error:
        raise ConfigError(
            "the token is not signed by that issuer", hint="name the file `zipnet token` wrote"
        ) from error
    inspect_capability(narrowed)
    return narrowed

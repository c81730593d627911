"""Chain keys and pad keys: one key schedule, keyed BLAKE3, named here and nowhere else.

Rules (protocol.md §4):

1. ``ck₀`` comes from the shared secret, bound to the group and the KEM epoch.
2. ``F(ck, m)`` is BLAKE3 keyed with the chain key. Each round ``ck ← F(ck, "zipnet/v1/ratchet")``;
   ``pad_key = F(ck, "zipnet/v1/pad" ‖ header_hash)``. The inputs differ in length and beginning, so
   a pad key tells nothing about the chain.
3. A chain key lives in a bytearray that is overwritten in place. The hash library hands out its
   results as immutable bytes; those are dropped at once but cannot be wiped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3

from zipnet.errors import LocalProtocolError
from zipnet.protocol.ids import DIGEST_BYTES, GroupId, derive

if TYPE_CHECKING:
    from zipnet.protocol.encoding import Buffer
    from zipnet.protocol.secret import Secret

__all__ = ["CHAIN_KEY_BYTES", "PAD_KEY_BYTES", "initial_chain_key", "pad_key", "skip", "step"]

CHAIN_KEY_BYTES = 32
PAD_KEY_BYTES = 32

_RATCHET = b"zipnet/v1/ratchet"
_PAD = b"zipnet/v1/pad"


def initial_chain_key(group: GroupId, epoch: int, shared: Secret) -> bytearray:
    """Derive ``ck₀`` of a (client, server) pair (protocol.md §4.1).

    Args:
        group: Id of the group.
        epoch: KEM epoch of the server's key, a 64-bit number.
        shared: What :mod:`zipnet.protocol.kem` agreed on, 32 bytes.

    Raises:
        LocalProtocolError: When the secret is not 32 bytes long, has been wiped, or the epoch does
            not fit 64 bits.
    """
    if len(shared) != CHAIN_KEY_BYTES or not 0 <= epoch < 1 << 64:
        raise LocalProtocolError("chain key needs a 32-byte secret and a 64-bit epoch")
    with shared.reveal() as view:
        return bytearray(derive("chain-key", group, epoch.to_bytes(8, "big"), view))


def step(chain_key: bytearray) -> None:
    """Replace a chain key by its successor, in place (protocol.md §4.2).

    Raises:
        LocalProtocolError: When the key is not 32 bytes long.
    """
    _require_chain_key(chain_key)
    chain_key[:] = blake3(_RATCHET, key=chain_key).digest()


def skip(chain_key: bytearray, rounds: int, *, limit: int) -> None:
    """Step a chain key over ``rounds`` rounds at once, in place.

    Args:
        chain_key: The key, 32 bytes.
        rounds: How many steps; 0 leaves the key as it is.
        limit: Most steps allowed, ``RoundParams.max_skip_rounds``.

    Raises:
        LocalProtocolError: When ``rounds`` is negative or over the limit; the key is unchanged.
    """
    if not 0 <= rounds <= limit:
        raise LocalProtocolError(f"a skip of {rounds} rounds is not within 0 and {limit}")
    _require_chain_key(chain_key)
    for _ in range(rounds):
        chain_key[:] = blake3(_RATCHET, key=chain_key).digest()


def pad_key(chain_key: Buffer, header_hash: Buffer) -> bytearray:
    """Derive the key of one round's pad (protocol.md §4.2, §4.3); the chain key stays as it is.

    Raises:
        LocalProtocolError: When chain key or header hash is not 32 bytes long.
    """
    _require_chain_key(chain_key)
    if len(header_hash) != DIGEST_BYTES:
        raise LocalProtocolError(f"header hash has {len(header_hash)} bytes, 32 are due")
    hasher = blake3(_PAD, key=chain_key)
    hasher.update(header_hash)
    return bytearray(hasher.digest())


def _require_chain_key(chain_key: Buffer) -> None:
    if len(chain_key) != CHAIN_KEY_BYTES:
        raise LocalProtocolError(f"chain key has {len(chain_key)} bytes, 32 are due")

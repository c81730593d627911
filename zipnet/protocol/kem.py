"""X-Wing: X25519 and ML-KEM-768 as one key encapsulation (draft-connolly-cfrg-xwing-kem).

A shared secret stays secret while either part holds. Rules (protocol.md §2, §4.1):

1. A key pair is its 32-byte seed; SHAKE256 makes 96 bytes of it: ML-KEM ``d ‖ z``, then X25519.
2. The shared secret is SHA3-256 of both parts' secrets, the X25519 ciphertext and public key and
   the label; ML-KEM binds its own ciphertext and key.
3. An X25519 exchange that gives all zeros is refused, on either side.
4. :func:`encapsulate` is the one function of the pure layer that is not deterministic: the library
   draws ML-KEM's randomness itself and offers no way to pass it in. Decapsulation has vectors, and
   a pure Python ML-KEM in the tests covers encapsulation with given randomness.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from zipnet.errors import LocalProtocolError, RemoteProtocolError
from zipnet.protocol.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.protocol.encoding import Buffer

__all__ = [
    "KEM_CIPHERTEXT_BYTES",
    "KEM_PUBLIC_BYTES",
    "KEM_SEED_BYTES",
    "KEM_SHARED_BYTES",
    "KemKeyPair",
    "encapsulate",
]

KEM_PUBLIC_BYTES = 1216
KEM_CIPHERTEXT_BYTES = 1120
KEM_SEED_BYTES = 32
KEM_SHARED_BYTES = 32

_LABEL = bytes.fromhex("5c2e2f2f5e5c")
_EXPANDED_BYTES = 96
_MLKEM_SEED_BYTES = 64
_MLKEM_PUBLIC_BYTES = 1184
_MLKEM_CIPHERTEXT_BYTES = 1088
_X25519_BYTES = 32


class KemKeyPair:
    """A server's key pair for one KEM epoch. ``repr`` shows nothing of it.

    Attributes:
        public: X-Wing public key, 1,216 bytes.
    """

    __slots__ = ("_mlkem", "_x25519", "public")

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self._mlkem: MLKEM768PrivateKey | None = mlkem
        self._x25519: X25519PrivateKey | None = x25519
        self.public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    @classmethod
    def from_seed(cls, seed: Secret) -> KemKeyPair:
        """Expand a 32-byte seed.

        Raises:
            LocalProtocolError: When the seed is not 32 bytes long or has been wiped.
        """
        if len(seed) != KEM_SEED_BYTES:
            raise LocalProtocolError(f"KEM seed has {len(seed)} bytes, {KEM_SEED_BYTES} are due")
        with seed.reveal() as view:
            expanded = bytearray(hashlib.shake_256(view).digest(_EXPANDED_BYTES))
        with Secret.take(expanded) as material, material.reveal() as view:
            return cls(
                MLKEM768PrivateKey.from_seed_bytes(view[:_MLKEM_SEED_BYTES]),
                X25519PrivateKey.from_private_bytes(view[_MLKEM_SEED_BYTES:]),
            )

    def decapsulate(self, ciphertext: Buffer) -> Secret:
        """Recover the 32-byte shared secret.

        A ciphertext of the right length made for another key gives an unrelated secret, as ML-KEM's
        implicit rejection demands.

        Raises:
            RemoteProtocolError: When the ciphertext is not 1,120 bytes long or its X25519 part is a
                point of small order.
            LocalProtocolError: When the key pair has been closed.
        """
        if self._mlkem is None or self._x25519 is None:
            raise LocalProtocolError("a closed KEM key pair was used")
        if len(ciphertext) != KEM_CIPHERTEXT_BYTES:
            raise RemoteProtocolError(f"KEM ciphertext has {len(ciphertext)} bytes")
        whole = bytes(ciphertext)
        ct_mlkem, ct_x25519 = whole[:_MLKEM_CIPHERTEXT_BYTES], whole[_MLKEM_CIPHERTEXT_BYTES:]
        ss_mlkem = self._mlkem.decapsulate(ct_mlkem)
        ss_x25519 = _exchange(self._x25519, ct_x25519)
        return _combine(ss_mlkem, ss_x25519, ct_x25519, self.public[_MLKEM_PUBLIC_BYTES:])

    def close(self) -> None:
        """Drop both private keys; the library clears their memory with the last reference."""
        self._mlkem = None
        self._x25519 = None


def encapsulate(public: Buffer, draw: Callable[[int], bytes]) -> tuple[bytes, Secret]:
    """Make a fresh shared secret for the holder of ``public``.

    Args:
        public: X-Wing public key, 1,216 bytes.
        draw: Randomness for the X25519 half. The ML-KEM half draws its own (rule 4).

    Returns:
        The ciphertext (1,120 bytes) and the shared secret (32 bytes).

    Raises:
        RemoteProtocolError: When the public key is malformed or its X25519 part is a point of
            small order.
        LocalProtocolError: When ``draw`` gives another number of bytes than asked for.
    """
    if len(public) != KEM_PUBLIC_BYTES:
        raise RemoteProtocolError(f"KEM public key has {len(public)} bytes")
    whole = bytes(public)
    pk_mlkem, pk_x25519 = whole[:_MLKEM_PUBLIC_BYTES], whole[_MLKEM_PUBLIC_BYTES:]
    with Secret.random(draw, _X25519_BYTES) as seed, seed.reveal() as view:
        ephemeral = X25519PrivateKey.from_private_bytes(view)
    ct_x25519 = ephemeral.public_key().public_bytes_raw()
    ss_x25519 = _exchange(ephemeral, pk_x25519)
    try:
        ss_mlkem, ct_mlkem = MLKEM768PublicKey.from_public_bytes(pk_mlkem).encapsulate()
    except ValueError as error:
        raise RemoteProtocolError("ML-KEM public key is malformed") from error
    return ct_mlkem + ct_x25519, _combine(ss_mlkem, ss_x25519, ct_x25519, pk_x25519)


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise RemoteProtocolError("X25519 exchange gives no secret") from error


def _combine(ss_mlkem: bytes, ss_x25519: bytes, ct_x25519: bytes, pk_x25519: bytes) -> Secret:
    hasher = hashlib.sha3_256()
    for part in (ss_mlkem, ss_x25519, ct_x25519, pk_x25519, _LABEL):
        hasher.update(part)
    return Secret.take(bytearray(hasher.digest()))

"""Identities and signatures: Ed25519 and ML-DSA-65 side by side (protocol.md §2, §3).

Rules:

1. A hybrid signature holds only if both halves do.
2. Every signature covers its use, so one made for a header never passes for a record; a half of a
   hybrid signature never passes for a stand-alone Ed25519 signature either.
3. The hybrid input names the signer's peer id, which binds each half to both public keys.
4. ML-DSA signing is hedged: the library mixes in randomness of its own, so a hybrid signature is
   not a function of its inputs. Verification is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import nacl.bindings
import nacl.exceptions
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from zipnet.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from zipnet.protocol.encoding import Reader, Writer
from zipnet.protocol.ids import PeerId, derive, keyed

if TYPE_CHECKING:
    from zipnet.protocol.encoding import Buffer
    from zipnet.protocol.secret import Secret

__all__ = [
    "ED25519_PUBLIC_BYTES",
    "ED25519_SIGNATURE_BYTES",
    "HYBRID_SIGNATURE_BYTES",
    "MLDSA65_PUBLIC_BYTES",
    "MLDSA65_SIGNATURE_BYTES",
    "PUBLIC_IDENTITY_BYTES",
    "Identity",
    "PublicIdentity",
    "mldsa65_key",
    "verify_ed25519",
    "verify_ed25519_note",
    "verify_hybrid",
]

ED25519_PUBLIC_BYTES = 32
ED25519_SIGNATURE_BYTES = 64
MLDSA65_PUBLIC_BYTES = 1952
MLDSA65_SIGNATURE_BYTES = 3309
PUBLIC_IDENTITY_BYTES = ED25519_PUBLIC_BYTES + MLDSA65_PUBLIC_BYTES
HYBRID_SIGNATURE_BYTES = ED25519_SIGNATURE_BYTES + MLDSA65_SIGNATURE_BYTES

_ED25519_LABEL = "zipnet/v1/ed25519-signature/"
_HYBRID_LABEL = "zipnet/v1/hybrid-signature/"


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """Both public keys of a party.

    Attributes:
        ed25519: Raw Ed25519 key, 32 bytes; also the key of the party's TLS certificate.
        mldsa65: Raw ML-DSA-65 key, 1,952 bytes.
        peer_id: Id derived from both keys (protocol.md §3).

    Raises:
        RemoteProtocolError: When a key has another length.
    """

    ed25519: bytes = field(repr=False)
    mldsa65: bytes = field(repr=False)
    peer_id: PeerId = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Check the lengths and derive the peer id once."""
        if len(self.ed25519) != ED25519_PUBLIC_BYTES or len(self.mldsa65) != MLDSA65_PUBLIC_BYTES:
            raise RemoteProtocolError(
                f"public identity has keys of {len(self.ed25519)} and {len(self.mldsa65)} bytes"
            )
        object.__setattr__(self, "peer_id", PeerId(derive("peer", self.ed25519, self.mldsa65)))

    def encode(self) -> bytes:
        """Lay both keys out: Ed25519, then ML-DSA-65; 1,984 bytes."""
        return self.ed25519 + self.mldsa65

    @classmethod
    def decode(cls, data: Buffer) -> PublicIdentity:
        """Read what :meth:`encode` wrote. Raises RemoteProtocolError for any other length."""
        reader = Reader(data)
        keys = cls(reader.fixed(ED25519_PUBLIC_BYTES), reader.fixed(MLDSA65_PUBLIC_BYTES))
        reader.finish()
        return keys


class Identity:
    """Both private keys of this party. ``repr`` shows the peer id only."""

    __slots__ = ("_ed25519", "_mldsa65", "_public")

    def __init__(self, ed25519: Ed25519PrivateKey, mldsa65: MLDSA65PrivateKey) -> None:
        self._ed25519: Ed25519PrivateKey | None = ed25519
        self._mldsa65: MLDSA65PrivateKey | None = mldsa65
        self._public = PublicIdentity(
            ed25519.public_key().public_bytes_raw(), mldsa65.public_key().public_bytes_raw()
        )

    @classmethod
    def from_secret(cls, secret: Secret) -> Identity:
        """Derive both keys from a node secret of 32 bytes, each under a context of its own.

        Raises:
            LocalProtocolError: When the secret is not 32 bytes long or has been wiped.
        """
        with secret.reveal() as view:
            return cls(
                Ed25519PrivateKey.from_private_bytes(keyed("identity-ed25519", view)),
                mldsa65_key(secret),
            )

    @property
    def public(self) -> PublicIdentity:
        """The public half."""
        return self._public

    @property
    def peer_id(self) -> PeerId:
        """Id derived from both public keys."""
        return self._public.peer_id

    def sign(self, use: str, message: Buffer) -> bytes:
        """Sign for one use with both keys; Ed25519 (64 B) then ML-DSA-65 (3,309 B).

        Raises:
            LocalProtocolError: When the identity has been closed.
        """
        mldsa65 = self._mldsa65
        if mldsa65 is None:
            raise LocalProtocolError("a closed identity was used")
        signed = _hybrid_input(self._public, use, message)
        return self.ed25519_private_key().sign(signed) + mldsa65.sign(signed)

    def sign_ed25519(self, use: str, message: Buffer) -> bytes:
        """Sign for one use with Ed25519 alone; 64 bytes.

        Raises:
            LocalProtocolError: When the identity has been closed.
        """
        return self.ed25519_private_key().sign(_ed25519_input(use, message))

    def sign_text(self, text: bytes) -> bytes:
        """Sign a note's text with Ed25519 and no label, as c2sp.org/signed-note has it; 64 bytes.

        Raises:
            LocalProtocolError: When the text could be taken for anything else that is signed here
                (it begins with no printable character), or the identity has been closed.
        """
        if text[:1] <= b" ":
            raise LocalProtocolError("what is signed without a label begins with a character")
        return self.ed25519_private_key().sign(text)

    def ed25519_private_key(self) -> Ed25519PrivateKey:
        """Return the key object that signs the node's TLS certificate.

        Raises:
            LocalProtocolError: When the identity has been closed.
        """
        if self._ed25519 is None:
            raise LocalProtocolError("a closed identity was used")
        return self._ed25519

    def close(self) -> None:
        """Drop both private keys; the library clears their memory with the last reference."""
        self._ed25519 = None
        self._mldsa65 = None

    def __repr__(self) -> str:
        """Show a short form of the peer id."""
        return f"<Identity {self.peer_id[:6].hex()}>"


def mldsa65_key(secret: Secret) -> MLDSA65PrivateKey:
    """Derive the ML-DSA-65 key of a secret of 32 bytes, for an identity whose other key is kept.

    Raises:
        LocalProtocolError: When the secret is not 32 bytes long or has been wiped.
    """
    with secret.reveal() as view:
        return MLDSA65PrivateKey.from_seed_bytes(keyed("identity-mldsa65", view))


def verify_hybrid(identity: PublicIdentity, use: str, message: Buffer, signature: Buffer) -> None:
    """Accept a hybrid signature only if both halves verify (protocol.md §2).

    Raises:
        VerificationError: When the length is wrong or either half does not verify.
    """
    if len(signature) != HYBRID_SIGNATURE_BYTES:
        raise VerificationError(f"hybrid signature has {len(signature)} bytes")
    signed = _hybrid_input(identity, use, message)
    halves = bytes(signature)
    # 1. Ed25519.
    _verify_ed25519_raw(identity.ed25519, signed, halves[:ED25519_SIGNATURE_BYTES])
    # 2. ML-DSA-65.
    _verify_mldsa65_raw(identity.mldsa65, signed, halves[ED25519_SIGNATURE_BYTES:])


def verify_ed25519(public_key: bytes, use: str, message: Buffer, signature: Buffer) -> None:
    """Accept a stand-alone Ed25519 signature.

    Raises:
        VerificationError: When key or signature has a wrong length or it does not verify.
    """
    if len(public_key) != ED25519_PUBLIC_BYTES or len(signature) != ED25519_SIGNATURE_BYTES:
        raise VerificationError("Ed25519 key or signature has a wrong length")
    _verify_ed25519_raw(public_key, _ed25519_input(use, message), bytes(signature))


def verify_ed25519_note(public_key: bytes, text: bytes, signature: bytes) -> None:
    """Accept an Ed25519 signature over the text of a note, as c2sp.org/signed-note has it.

    Nothing but notes is signed without a label; see ``zipnet.ledger.note``.

    Raises:
        VerificationError: When key or signature has a wrong length or it does not verify.
    """
    if len(public_key) != ED25519_PUBLIC_BYTES or len(signature) != ED25519_SIGNATURE_BYTES:
        raise VerificationError("Ed25519 key or signature has a wrong length")
    _verify_ed25519_raw(public_key, text, signature)


def _ed25519_input(use: str, message: Buffer) -> bytes:
    return Writer().text16(_ED25519_LABEL + use).take() + message


def _hybrid_input(signer: PublicIdentity, use: str, message: Buffer) -> bytes:
    return Writer().text16(_HYBRID_LABEL + use).fixed(signer.peer_id, 32).take() + message


def _verify_ed25519_raw(public_key: bytes, signed: bytes, signature: bytes) -> None:
    try:
        # libsodium verifies faster than the other two bindings at hand, and refuses keys of small
        # order and non-canonical encodings.
        nacl.bindings.crypto_sign_open(signature + signed, public_key)
    except (nacl.exceptions.BadSignatureError, ValueError) as error:
        raise VerificationError("Ed25519 signature does not verify") from error


def _verify_mldsa65_raw(public_key: bytes, signed: bytes, signature: bytes) -> None:
    try:
        MLDSA65PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except (InvalidSignature, ValueError) as error:
        raise VerificationError("ML-DSA-65 signature does not verify") from error

"""ECDSA P-256 with SHA-256 over raw bytes: the only algorithm on this path."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from tdx.errors import Check, QuoteError

__all__ = ["check_der_signature", "check_raw_signature", "load_point"]

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ALGORITHM = ec.ECDSA(SHA256())


def load_point(key: bytes, check: Check) -> ec.EllipticCurvePublicKey:
    """Load X || Y (64 bytes) as a point of P-256.

    Raises:
        QuoteError: ``check`` if the point is not on the curve.
    """
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key)
    except ValueError as error:
        raise QuoteError(check, "the key is a point of P-256") from error


def check_raw_signature(
    key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes, check: Check
) -> None:
    """Verify r || s (64 bytes, big-endian halves) over ``signed``.

    Raises:
        QuoteError: ``check`` if r or s is out of range or the signature is not the key's.
    """
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not (0 < r < _ORDER and 0 < s < _ORDER):
        raise QuoteError(check, "r and s lie between 1 and the order of the group")
    check_der_signature(key, encode_dss_signature(r, s), signed, check)


def check_der_signature(
    key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes, check: Check
) -> None:
    """Verify a DER signature over ``signed``.

    Raises:
        QuoteError: ``check``.
    """
    try:
        key.verify(signature, signed, _ALGORITHM)
    except InvalidSignature:
        raise QuoteError(check, "the signature verifies") from None

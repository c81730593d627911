"""X-Wing from the draft's text: RFC 7748's ladder in integers and a pure Python ML-KEM."""

from __future__ import annotations

import hashlib

from kyber_py.ml_kem import ML_KEM_768

PRIME = 2**255 - 19
BASE = (9).to_bytes(32, "little")
LABEL = rb"\./" + rb"/^" + b"\\"


def x25519(scalar: bytes, point: bytes) -> bytes:
    k = int.from_bytes(scalar, "little")
    k = (k & ~7 & ~(1 << 255)) | (1 << 254)
    x1 = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for bit in range(254, -1, -1):
        k_bit = (k >> bit) & 1
        if swap ^ k_bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swap = k_bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = pow(da + cb, 2, PRIME), x1 * pow(da - cb, 2, PRIME) % PRIME
        x2, z2 = aa * bb % PRIME, e * (aa + 121665 * e) % PRIME
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, PRIME - 2, PRIME) % PRIME).to_bytes(32, "little")


def expand(seed: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """ML-KEM public key, ML-KEM private key, X25519 private key, X25519 public key."""
    wide = hashlib.shake_256(seed).digest(96)
    public, private = ML_KEM_768._keygen_internal(wide[:32], wide[32:64])
    return public, private, wide[64:], x25519(wide[64:], BASE)


def public_key(seed: bytes) -> bytes:
    public, _, _, x_public = expand(seed)
    return bytes(public) + x_public


def combine(ss_m: bytes, ss_x: bytes, ct_x: bytes, pk_x: bytes) -> bytes:
    return hashlib.sha3_256(ss_m + ss_x + ct_x + pk_x + LABEL).digest()


def encapsulate(public: bytes, eseed: bytes) -> tuple[bytes, bytes]:
    """Shared secret and ciphertext, with both halves' randomness given (64 bytes)."""
    ss_m, ct_m = ML_KEM_768._encaps_internal(public[:1184], eseed[:32])
    ct_x = x25519(eseed[32:], BASE)
    ss_x = x25519(eseed[32:], public[1184:])
    return combine(ss_m, ss_x, ct_x, public[1184:]), bytes(ct_m) + ct_x


def decapsulate(seed: bytes, ciphertext: bytes) -> bytes:
    _, private, x_private, x_public = expand(seed)
    ss_m = ML_KEM_768.decaps(private, ciphertext[:1088])
    return combine(ss_m, x25519(x_private, ciphertext[1088:]), ciphertext[1088:], x_public)

"""The arithmetic of run-time measurement registers: each is a chain of SHA-384 hashes."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha384

__all__ = ["REGISTER_BYTES", "extend", "extend_all"]

REGISTER_BYTES = 48


def extend(value: bytes, digest: bytes) -> bytes:
    """Return a register after one extension: SHA-384(value || digest)."""
    return sha384(value + digest).digest()


def extend_all(digests: Iterable[bytes]) -> bytes:
    """Return a register that started at zero after all ``digests``."""
    value = bytes(REGISTER_BYTES)
    for digest in digests:
        value = extend(value, digest)
    return value

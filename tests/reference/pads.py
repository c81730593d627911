"""Pads as bytes: made block by block, XORed byte by byte. What the product must never do."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def aes_block(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - one block
    return encryptor.update(block) + encryptor.finalize()


def materialised_pad(key: bytes, length: int) -> bytes:
    pad = b""
    counter = 2
    while len(pad) < length:
        pad += aes_block(key, b"\0" * 12 + counter.to_bytes(4, "big"))
        counter += 1
    return pad[:length]


def xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))

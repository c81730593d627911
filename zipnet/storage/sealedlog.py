"""Logs put away so that only the holder of a key reads them (row L15).

::

    file  = "ZNSEALED" ‖ version u16 ‖ X-Wing ciphertext 1,120 ‖ chunk*
    chunk = length u32 ‖ AES-256-GCM over up to 64 KiB

The chunk key comes from the shared secret; the nonce of a chunk is its number and whether it is the
last one, so chunks can be neither dropped, swapped nor cut off unnoticed. The header goes into
every tag. Sealing needs the public key only: who takes the host later reads nothing of it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.protocol.ids import keyed
from zipnet.protocol.kem import KEM_CIPHERTEXT_BYTES, KemKeyPair, encapsulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from zipnet.protocol.secret import Secret

__all__ = ["CHUNK_BYTES", "open_sealed", "seal"]

CHUNK_BYTES: Final = 64 * 1024
_MAGIC: Final = b"ZNSEALED"
_VERSION: Final = 1
_HEAD: Final = struct.Struct(">8sH")
_LENGTH: Final = struct.Struct(">I")
_TAG_BYTES: Final = 16
_COUNTER_BYTES: Final = 11


def seal(pieces: Iterable[bytes], public: bytes, draw: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the bytes of a sealed file.

    Args:
        pieces: What to seal, in pieces of any size.
        public: X-Wing public key, 1,216 bytes.
        draw: Source of randomness.

    Raises:
        RemoteProtocolError: When the public key is malformed.
    """
    ciphertext, shared = encapsulate(public, draw)
    header = _HEAD.pack(_MAGIC, _VERSION) + ciphertext
    cipher = _cipher(shared)
    yield header
    number, waiting = 0, bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) > CHUNK_BYTES:  # the last chunk is known only when nothing follows
            yield _chunk(cipher, number, bytes(waiting[:CHUNK_BYTES]), header, last=False)
            del waiting[:CHUNK_BYTES]
            number += 1
    yield _chunk(cipher, number, bytes(waiting), header, last=True)


def open_sealed(read: Callable[[int], bytes], keys: KemKeyPair) -> Iterator[bytes]:
    """Yield what was sealed, each piece only after it was authenticated.

    Args:
        read: Returns up to so many bytes of the file; fewer at its end only.
        keys: The key pair it was sealed for.

    Raises:
        RemoteProtocolError: When it is no sealed file of this version.
        VerificationError: When it was sealed for another key, altered, or cut off; pieces before
            that place have been yielded.
    """
    header = read(_HEAD.size + KEM_CIPHERTEXT_BYTES)
    if len(header) != _HEAD.size + KEM_CIPHERTEXT_BYTES:
        raise RemoteProtocolError("this is no sealed log")
    magic, version = _HEAD.unpack_from(header)
    if magic != _MAGIC or version != _VERSION:
        raise RemoteProtocolError("this is no sealed log of this version")
    cipher = _cipher(keys.decapsulate(header[_HEAD.size :]))
    number, upcoming = 0, _next(read)
    while True:
        box, upcoming = upcoming, _next(read)
        last = not upcoming
        try:
            yield cipher.decrypt(_nonce(number, last=last), box, header)
        except InvalidTag:
            raise VerificationError(
                f"chunk {number} of the sealed log does not verify",
                hint="another key, or a file that was altered or cut off",
            ) from None
        if last:
            return
        number += 1


def _next(read: Callable[[int], bytes]) -> bytes:
    prefix = read(_LENGTH.size)
    if not prefix:
        return b""
    length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else 0
    if not _TAG_BYTES <= length <= CHUNK_BYTES + _TAG_BYTES:
        raise VerificationError("a chunk of the sealed log has an impossible length")
    box = read(length)
    if len(box) != length:
        raise VerificationError("the sealed log was cut off")
    return box


def _chunk(cipher: AESGCM, number: int, data: bytes, header: bytes, *, last: bool) -> bytes:
    box = cipher.encrypt(_nonce(number, last=last), data, header)
    return _LENGTH.pack(len(box)) + box


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(_COUNTER_BYTES, "big") + bytes([last])


def _cipher(shared: Secret) -> AESGCM:
    with shared, shared.reveal() as view:
        return AESGCM(keyed("sealed-log", view))

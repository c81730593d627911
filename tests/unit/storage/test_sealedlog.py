"""Sealed logs: whole and in order, or refused."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.protocol.kem import KEM_CIPHERTEXT_BYTES, KemKeyPair
from zipnet.protocol.secret import Secret
from zipnet.storage.sealedlog import CHUNK_BYTES, open_sealed, seal

KEYS = KemKeyPair.from_seed(Secret(bytes(range(32))))
HEADER = 10 + KEM_CIPHERTEXT_BYTES
FULL = 4 + CHUNK_BYTES + 16


def _sealed(data: bytes) -> bytes:
    return b"".join(seal([data], KEYS.public, os.urandom))


def _opened(data: bytes, keys: KemKeyPair = KEYS) -> bytes:
    return b"".join(open_sealed(io.BytesIO(data).read, keys))


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_pieces_come_back_as_one(pieces: list[bytes]) -> None:
    whole = b"".join(seal(pieces, KEYS.public, os.urandom))
    assert _opened(whole) == b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 200_000])
def test_every_length_around_a_chunk(size: int) -> None:
    data = os.urandom(size)
    whole = _sealed(data)
    assert _opened(whole) == data
    if size > 16:
        assert data[:16] not in whole


def test_nothing_is_sealed_twice_alike() -> None:
    assert _sealed(b"same") != _sealed(b"same")


def test_another_key_opens_nothing() -> None:
    other = KemKeyPair.from_seed(Secret(bytes(range(1, 33))))
    with pytest.raises(VerificationError, match="chunk 0"):
        _opened(_sealed(b"secret"), other)


def test_any_flipped_byte_is_noticed() -> None:
    whole = bytearray(_sealed(b"line\n"))
    for at in (0, 9, 10, HEADER - 1, HEADER, HEADER + 3, HEADER + 4, len(whole) - 1):
        whole[at] ^= 1
        with pytest.raises((VerificationError, RemoteProtocolError)):
            _opened(bytes(whole))
        whole[at] ^= 1
    assert _opened(bytes(whole)) == b"line\n"


def test_chunks_are_neither_dropped_swapped_repeated_nor_cut_off() -> None:
    whole = _sealed(os.urandom(3 * CHUNK_BYTES))
    header, chunks = whole[:HEADER], [whole[HEADER + n * FULL :][:FULL] for n in range(3)]
    for order in ([0, 1], [0], [], [1, 0, 2], [0, 2], [0, 1, 2, 2], [0, 1, 1, 2]):
        with pytest.raises((VerificationError, RemoteProtocolError)):
            _opened(header + b"".join(chunks[n] for n in order))
    for cut in (1, 3, 100):
        with pytest.raises(VerificationError):
            _opened(whole[:-cut])


@given(st.binary(max_size=64))
def test_any_bytes_end_in_an_error_of_ours(data: bytes) -> None:
    for whole in (data, _sealed(b"x")[:HEADER] + data):
        with pytest.raises((RemoteProtocolError, VerificationError)):
            _opened(whole)

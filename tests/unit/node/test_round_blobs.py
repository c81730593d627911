"""Blobs of others end with their round; what is no round's stays."""

from __future__ import annotations

from tests.harness.committee import SMALL
from zipnet.node import round_blobs
from zipnet.node.round_blobs import RoundBlobs
from zipnet.protocol.aggregate import Aggregate, Partial
from zipnet.protocol.ids import Digest, RegistryIndex, RoundNumber, ServerIndex, content_digest
from zipnet.protocol.participants import Participants

ZERO = Digest(bytes(32))
BODY = bytes(SMALL.body_bytes)


def partial(number: int, server: int = 0) -> bytes:
    return Partial(RoundNumber(number), ZERO, ServerIndex(server), ZERO, BODY).encode()


def aggregate(number: int) -> bytes:
    members = Participants(RegistryIndex(i) for i in range(3))
    return Aggregate(RoundNumber(number), ZERO, members, BODY).encode()


def noted(*blobs: bytes) -> RoundBlobs:
    made = RoundBlobs(SMALL)
    for blob in blobs:
        made.note(content_digest(blob), blob)
    return made


def test_a_closed_round_takes_all_its_blobs_with_it_and_no_later_ones() -> None:
    old = [partial(4), partial(5, 0), partial(5, 1), aggregate(5)]
    later = [partial(6), aggregate(7)]
    made = noted(*old, *later)
    assert set(made.close(5)) == {content_digest(blob) for blob in old}
    assert made.close(5) == []
    assert set(made.close(7)) == {content_digest(blob) for blob in later}


def test_what_is_no_rounds_blob_is_left_alone() -> None:
    made = noted(b"a registration", b"", partial(3)[:-1])
    assert made.close(1 << 40) == []


def test_a_flood_is_forgotten_from_its_oldest_end() -> None:
    made = RoundBlobs(SMALL)
    blob = partial(1)
    for number in range(round_blobs._MOST + 10):
        made.note(Digest(number.to_bytes(32, "big")), blob)
    assert len(made.close(1)) == round_blobs._MOST

"""Aggregates and partials: the bulk blobs of a round, addressed by their content (protocol.md §6).

* An aggregate is the XOR of the envelopes of a set of participants.
* A partial is the XOR of one server's pads for exactly that set.

Both travel as blobs whose digest stands in the committee's log. A blob is hashed as it arrived,
never by re-encoding what was parsed from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError
from zipnet.protocol.encoding import Reader, Writer
from zipnet.protocol.ids import Digest, RoundNumber, ServerIndex, content_digest
from zipnet.protocol.participants import MAX_PARTICIPANT_BYTES, Participants

if TYPE_CHECKING:
    from zipnet.protocol.params import RoundParams

__all__ = [
    "Aggregate",
    "Partial",
    "decode_aggregate",
    "decode_partial",
]

_AGGREGATE_LAYOUT = 1
_PARTIAL_LAYOUT = 1
_MAX_BODY = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The XOR of all envelopes of ``participants`` in one round."""

    round: RoundNumber
    header_hash: Digest
    participants: Participants
    body: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Lay the aggregate out as a blob (docs/protocol.md, "Aggregate")."""
        return (
            Writer()
            .u8(_AGGREGATE_LAYOUT)
            .u64(self.round)
            .fixed(self.header_hash, 32)
            .var32(self.participants.encode())
            .var32(self.body)
            .take()
        )


@dataclass(frozen=True, slots=True)
class Partial:
    """One server's pads for the participants of the chosen aggregate, XORed together."""

    round: RoundNumber
    header_hash: Digest
    server: ServerIndex
    aggregate: Digest
    body: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Lay the partial out as a blob (docs/protocol.md, "Partial")."""
        return (
            Writer()
            .u8(_PARTIAL_LAYOUT)
            .u64(self.round)
            .fixed(self.header_hash, 32)
            .u8(self.server)
            .fixed(self.aggregate, 32)
            .var32(self.body)
            .take()
        )


def decode_aggregate(blob: bytes, params: RoundParams) -> tuple[Digest, Aggregate]:
    """Parse an aggregate blob and return it with its content digest.

    Raises:
        RemoteProtocolError: When the bytes are not one aggregate of this group's size.
    """
    reader = Reader(blob)
    if reader.u8() != _AGGREGATE_LAYOUT:
        raise RemoteProtocolError("unknown aggregate layout")
    round_number = RoundNumber(reader.u64())
    header_hash = Digest(reader.fixed(32))
    participants = Participants.decode(reader.var32(max_len=MAX_PARTICIPANT_BYTES))
    body = reader.var32(max_len=_MAX_BODY)
    reader.finish()
    _check_body(body, params)
    return content_digest(blob), Aggregate(round_number, header_hash, participants, body)


def decode_partial(blob: bytes, params: RoundParams) -> tuple[Digest, Partial]:
    """Parse a partial blob and return it with its content digest.

    Raises:
        RemoteProtocolError: When the bytes are not one partial of this group's size.
    """
    reader = Reader(blob)
    if reader.u8() != _PARTIAL_LAYOUT:
        raise RemoteProtocolError("unknown partial layout")
    partial = Partial(
        round=RoundNumber(reader.u64()),
        header_hash=Digest(reader.fixed(32)),
        server=ServerIndex(reader.u8()),
        aggregate=Digest(reader.fixed(32)),
        body=reader.var32(max_len=_MAX_BODY),
    )
    reader.finish()
    _check_body(partial.body, params)
    return content_digest(blob), partial


def _check_body(body: bytes, params: RoundParams) -> None:
    if len(body) != params.body_bytes:
        raise RemoteProtocolError(
            f"round vector has {len(body)} bytes, the group uses {params.body_bytes}"
        )

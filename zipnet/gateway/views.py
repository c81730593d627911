"""What the gateway says, as types: the JSON and its OpenAPI description both come from these.

Everything here is public: it stands in co-signed records, in the signed descriptor, or is this
gateway's own clock. Nothing about who asks is kept or shown.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from zipnet.protocol.slots import SlotState

if TYPE_CHECKING:
    from zipnet.machines.outgoing import Receipt
    from zipnet.machines.reader import Message
    from zipnet.protocol.record import VerifiedRecord

__all__ = [
    "Broadcast",
    "BroadcastPage",
    "Member",
    "Problem",
    "PublishReceipt",
    "PublishRequest",
    "Round",
    "RoundPage",
    "Status",
    "broadcast_of",
    "receipt_of",
    "round_of",
]

_MAX_BASE64 = 1_400_000
_Data = Annotated[str, Meta(description="The bytes, in base64.", max_length=_MAX_BASE64)]


class Broadcast(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was broadcast in full, out of records that this gateway verified."""

    sequence: Annotated[int, Meta(description="The record that completed it.")]
    round: int
    slots: list[int]
    message_id: Annotated[str, Meta(description="16 bytes in hexadecimal.")]
    data: _Data
    text: Annotated[str | None, Meta(description="The bytes as UTF-8, where they are.")] = None
    verified: Literal[True] = True


class BroadcastPage(msgspec.Struct, frozen=True, kw_only=True):
    """The broadcasts that a range of records completed, oldest first."""

    broadcasts: list[Broadcast]
    next: Annotated[int, Meta(description="Ask from this record next.")]
    newest: Annotated[int, Meta(description="The newest record there is; -1 before the first.")]


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One final round, as its record says."""

    sequence: int
    round: int
    opened_at_ms: Annotated[int, Meta(description="The opener's clock, ms since 1970.")]
    participants: int
    roster: Annotated[list[int], Meta(description="Indexes of the servers in it.")]
    valid: int
    void: int
    slots: int
    skipped: Annotated[int, Meta(description="Rounds given up since the record before.")]
    record_hash: str
    latency_ms: Annotated[
        int | None, Meta(description="Opening to arrival here; only for rounds seen live.")
    ] = None
    broadcasts: list[Broadcast]


class RoundPage(msgspec.Struct, frozen=True, kw_only=True):
    """Final rounds in log order."""

    rounds: list[Round]
    next: int
    newest: int


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A committee server, and how many of the last rounds it was part of."""

    index: int
    name: str
    recent_rounds: int
    of_rounds: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The instance and this gateway."""

    instance: str
    universe: str
    descriptor_version: int
    min_participants: int
    attestation: Annotated[str, Meta(description="How the committee is attested.")]
    committee: list[Member]
    newest: int
    following: Annotated[bool, Meta(description="Whether new records arrive.")]
    integrity_failures: Annotated[
        int, Meta(description="Records that some server sent and that did not verify.")
    ]
    publishing: Annotated[bool, Meta(description="Whether POST /v1/publish is served.")]


class PublishRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to publish: `text` or `data`, not both."""

    text: Annotated[str, Meta(max_length=1024 * 1024)] | None = None
    data: _Data | None = None
    salt: (
        Annotated[
            str,
            Meta(
                description="8 bytes in hexadecimal: the same message and salt are one message.",
                pattern="^[0-9a-f]{16}$",
            ),
        ]
        | None
    ) = None
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 60.0


class PublishReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """Proof that a message was broadcast."""

    message_id: str
    round: int
    sequence: int
    slots: list[int]
    participants: int
    record_hashes: list[str]
    proof: Annotated[list[str], Meta(description="The co-signed records, in base64.")]
    notice: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong, as a stable code and in words, and what to do about it."""

    error: str
    text: str
    hint: str | None = None
    message_id: str | None = None
    salt: str | None = None


def broadcast_of(message: Message) -> Broadcast:
    """Turn a verified message into what is shown of it."""
    try:
        text = message.payload.decode()
    except UnicodeDecodeError:
        text = None
    return Broadcast(
        sequence=message.sequence,
        round=message.round,
        slots=[int(slot) for slot in message.slots],
        message_id=message.message_id.hex(),
        data=base64.b64encode(message.payload).decode(),
        text=text,
    )


def round_of(record: VerifiedRecord, messages: list[Message], *, now_ms: int | None) -> Round:
    """Turn a verified record into what is shown of it; ``now_ms`` only where it was seen live."""
    content = record.record.content
    header = content.header
    return Round(
        sequence=record.sequence,
        round=record.round,
        opened_at_ms=header.opened_at_ms,
        participants=content.participants,
        roster=[int(server) for server in header.roster],
        valid=sum(state is SlotState.VALID for state in content.states),
        void=sum(state is SlotState.VOID for state in content.states),
        slots=len(content.states),
        skipped=record.round - header.previous_final - 1,
        record_hash=record.hash.hex(),
        latency_ms=None if now_ms is None else max(now_ms - header.opened_at_ms, 0),
        broadcasts=[broadcast_of(message) for message in messages],
    )


def receipt_of(receipt: Receipt, notice: str) -> PublishReceipt:
    """Turn a receipt into what the publisher's HTTP client is told."""
    return PublishReceipt(
        message_id=receipt.message_id.hex(),
        round=receipt.round,
        sequence=receipt.sequence,
        slots=[int(slot) for slot in receipt.slots],
        participants=receipt.participants,
        record_hashes=[digest.hex() for digest in receipt.record_hashes],
        proof=[base64.b64encode(record).decode() for record in receipt.proof],
        notice=notice,
    )

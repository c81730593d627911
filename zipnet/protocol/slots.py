"""Slots and the messages that travel in them (protocol.md §5).

A slot is always full width::

    tag16 ‖ length u16 ‖ message_id16 ‖ fragment index u16 ‖ fragment count u16 ‖ payload ‖ zeros

Rules:

1. The tag is keyed by the round's header hash and the slot's index and covers everything after it,
   padding included. It detects collisions and corruption; it names nobody.
2. A slot is EMPTY (all zeros), VALID, or VOID. There is one way to write a fragment: padding is
   zero and every fragment but the last is full. Anything else is VOID.
3. A message's payload is ``salt8 ‖ message``; its id is derived from the payload, so a fragment
   that somebody else sends under the same id shows when the message is put together.
4. A :class:`Reassembler` is bounded in messages, bytes and rounds, and says what it gave up.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice, product
from typing import TYPE_CHECKING

from zipnet.errors import LocalProtocolError, RemoteProtocolError
from zipnet.protocol.encoding import Reader, Writer
from zipnet.protocol.ids import (
    MESSAGE_ID_BYTES,
    Digest,
    MessageId,
    RoundNumber,
    SlotIndex,
    derive,
    keyed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zipnet.protocol.encoding import Buffer
    from zipnet.protocol.params import RoundParams

__all__ = [
    "MAX_FRAGMENTS",
    "MAX_MESSAGE_BYTES",
    "SALT_BYTES",
    "TAG_BYTES",
    "Evicted",
    "Fragment",
    "Reassembler",
    "SlotState",
    "decode_slot",
    "encode_slot",
    "fragment_message",
    "max_message_bytes",
    "message_id_of",
]

TAG_BYTES = 16
SALT_BYTES = 8
MAX_FRAGMENTS = 4096
MAX_MESSAGE_BYTES = 1024 * 1024

_MAX_VARIANTS = 2
_MAX_ATTEMPTS = 256
_HASH_BUDGET_BYTES = 16 * 1024 * 1024
_FRAGMENT_COST_BYTES = 64
_REMEMBERED_PER_OPEN = 4


class SlotState(Enum):
    """What a slot of an unblinded round holds; the values are part of the record's layout."""

    EMPTY = 0
    VALID = 1
    VOID = 2


@dataclass(frozen=True, slots=True)
class Fragment:
    """One slot's share of a message.

    Attributes:
        message_id: Id of the message, 16 bytes.
        index: Position among the fragments, from 0.
        count: How many fragments the message has, 1 … 4,096.
        payload: This fragment's bytes of ``salt8 ‖ message``.
    """

    message_id: MessageId
    index: int
    count: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Evicted:
    """A message the reassembler gave up.

    Attributes:
        message_id: Id of the message.
        received: Positions of which at least one fragment had arrived.
        count: Fragments it was said to have.
        reason: ``age`` (incomplete for too long), ``messages`` or ``bytes`` (a bound was reached).
    """

    message_id: MessageId
    received: int
    count: int
    reason: str


def max_message_bytes(params: RoundParams) -> int:
    """Longest message a group's slots can carry, in bytes; never over 1 MiB."""
    return min(MAX_FRAGMENTS * params.fragment_bytes - SALT_BYTES, MAX_MESSAGE_BYTES)


def message_id_of(payload: Buffer) -> MessageId:
    """Derive the id of a message from its payload ``salt8 ‖ message``."""
    return MessageId(derive("message", payload)[:MESSAGE_ID_BYTES])


def fragment_message(
    message: bytes, params: RoundParams, draw: Callable[[int], bytes]
) -> list[Fragment]:
    """Cut a message into fragments, one per slot.

    Args:
        message: At least 1 and at most :func:`max_message_bytes` bytes.
        params: The group's parameters.
        draw: Source of the salt; called once for 8 bytes.

    Raises:
        LocalProtocolError: When the message is empty or too long, or ``draw`` gives another number
            of bytes than asked for.
    """
    limit = max_message_bytes(params)
    if not 0 < len(message) <= limit:
        raise LocalProtocolError(f"message has {len(message)} bytes, 1 to {limit} can be sent")
    salt = draw(SALT_BYTES)
    if len(salt) != SALT_BYTES:
        raise LocalProtocolError(f"randomness source gave {len(salt)} bytes instead of 8")
    payload = salt + message
    size = params.fragment_bytes
    parts = [payload[start : start + size] for start in range(0, len(payload), size)]
    message_id = message_id_of(payload)
    return [Fragment(message_id, index, len(parts), part) for index, part in enumerate(parts)]


def encode_slot(
    fragment: Fragment, params: RoundParams, header_hash: Digest, slot: SlotIndex
) -> bytes:
    """Lay a fragment out as one slot of one round; ``params.slot_bytes`` long.

    Raises:
        LocalProtocolError: When a field is out of range or a fragment before the last is not full.
    """
    if not _is_canonical(fragment, params):
        raise LocalProtocolError("fragment does not fit a slot of this group")
    body = (
        Writer()
        .u16(len(fragment.payload))
        .fixed(fragment.message_id, MESSAGE_ID_BYTES)
        .u16(fragment.index)
        .u16(fragment.count)
        .fixed(fragment.payload, len(fragment.payload))
        .fixed(
            bytes(params.fragment_bytes - len(fragment.payload)),
            params.fragment_bytes - len(fragment.payload),
        )
        .take()
    )
    return _tag(body, header_hash, slot) + body


def decode_slot(
    raw: Buffer, params: RoundParams, header_hash: Digest, slot: SlotIndex
) -> tuple[SlotState, Fragment | None]:
    """Read one slot of an unblinded round; never raises for anything a client could have sent.

    Returns:
        ``(EMPTY, None)``, ``(VALID, fragment)`` or ``(VOID, None)``.

    Raises:
        RemoteProtocolError: When ``raw`` is not ``params.slot_bytes`` long.
    """
    data = bytes(raw)
    if len(data) != params.slot_bytes:
        raise RemoteProtocolError(
            f"slot has {len(data)} bytes, the group's has {params.slot_bytes}"
        )
    # 1. Nobody wrote, or writers cancelled each other exactly.
    if data == bytes(len(data)):
        return SlotState.EMPTY, None
    # 2. The tag covers everything after it.
    tag, body = data[:TAG_BYTES], data[TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(body, header_hash, slot)):
        return SlotState.VOID, None
    # 3. There is one way to write a fragment.
    fragment = _read_fragment(body, params)
    if fragment is None:
        return SlotState.VOID, None
    return SlotState.VALID, fragment


def _tag(body: bytes, header_hash: Digest, slot: SlotIndex) -> bytes:
    return keyed("slot-tag", header_hash, slot.to_bytes(4, "big"), body)[:TAG_BYTES]


def _read_fragment(body: bytes, params: RoundParams) -> Fragment | None:
    reader = Reader(body)
    length = reader.u16()
    message_id = MessageId(reader.fixed(MESSAGE_ID_BYTES))
    index, count = reader.u16(), reader.u16()
    area = reader.fixed(params.fragment_bytes)
    fragment = Fragment(message_id, index, count, area[:length])
    if length > len(area) or any(area[length:]) or not _is_canonical(fragment, params):
        return None
    return fragment


def _is_canonical(fragment: Fragment, params: RoundParams) -> bool:
    size = len(fragment.payload)
    is_last = fragment.index == fragment.count - 1
    return (
        1 <= fragment.count <= MAX_FRAGMENTS
        and 0 <= fragment.index < fragment.count
        and 1 <= size <= params.fragment_bytes
        and (is_last or size == params.fragment_bytes)
    )


class _Partial:
    """Fragments of one (message id, count) that have arrived; up to two variants per position."""

    __slots__ = ("count", "first_round", "size", "variants")

    def __init__(self, count: int, first_round: RoundNumber) -> None:
        self.count = count
        self.first_round = first_round
        self.size = 0
        self.variants: dict[int, list[bytes]] = {}

    def add(self, fragment: Fragment) -> bool:
        """Keep a fragment; return False for a double or a variant too many."""
        known = self.variants.setdefault(fragment.index, [])
        if fragment.payload in known or len(known) >= _MAX_VARIANTS:
            return False
        known.append(fragment.payload)
        self.size += len(fragment.payload) + _FRAGMENT_COST_BYTES
        return True

    def candidates(self, fragment: Fragment) -> Iterator[bytes]:
        """Payloads that contain ``fragment``; combinations without it have been tried before."""
        if len(self.variants) < self.count:
            return
        choices = [
            [fragment.payload] if index == fragment.index else self.variants[index]
            for index in range(self.count)
        ]
        longest = sum(max(map(len, choice)) for choice in choices)
        attempts = max(2, min(_MAX_ATTEMPTS, _HASH_BUDGET_BYTES // longest))
        for parts in islice(product(*choices), attempts):
            yield b"".join(parts)


class Reassembler:
    """Puts messages together from fragments of many rounds; bounded in every direction.

    Against forged fragments under somebody's id it keeps two variants per position and tries up to
    256 combinations, or as many as hash 16 MiB: eight forged positions of an ordinary message are
    seen through. Two forgeries that arrive before the true fragment of a position do stop it.

    Args:
        max_messages: Most incomplete messages kept.
        max_bytes: Most bytes kept for them, each fragment counted with an overhead of 64.
        max_age_rounds: Rounds after its first fragment at which an incomplete message is dropped.
    """

    __slots__ = ("_done", "_evicted", "_max_age", "_max_bytes", "_max_messages", "_open", "_size")

    def __init__(
        self,
        *,
        max_messages: int = 1024,
        max_bytes: int = 16 * 1024 * 1024,
        max_age_rounds: int = 8192,
    ) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._max_age = max_age_rounds
        self._size = 0
        # Insertion order is age: the first entry is the oldest.
        self._open: OrderedDict[tuple[MessageId, int], _Partial] = OrderedDict()
        self._done: OrderedDict[MessageId, None] = OrderedDict()
        self._evicted: list[Evicted] = []

    def offer(self, round_number: RoundNumber, fragment: Fragment) -> bytes | None:
        """Take one valid fragment of a verified record.

        Args:
            round_number: Round of the record; rounds come in ascending order.
            fragment: What :func:`decode_slot` returned.

        Returns:
            The message once its last missing fragment arrives, without the salt; else None. A
            message is returned once, however often it is sent again.
        """
        self._expire(round_number)
        if fragment.message_id in self._done:
            return None
        key = (fragment.message_id, fragment.count)
        partial = self._open.setdefault(key, _Partial(fragment.count, round_number))
        before = partial.size
        if not partial.add(fragment):
            return None
        self._size += partial.size - before
        for payload in partial.candidates(fragment):
            if message_id_of(payload) == fragment.message_id:
                self._finish(fragment.message_id)
                return payload[SALT_BYTES:]
        self._make_room()
        return None

    @property
    def incomplete(self) -> int:
        """How many messages are waiting for fragments."""
        return len(self._open)

    @property
    def kept_bytes(self) -> int:
        """Bytes kept for incomplete messages, overhead included."""
        return self._size

    def take_evicted(self) -> list[Evicted]:
        """Return and forget what was given up since the last call, ``max_messages`` at most."""
        evicted, self._evicted = self._evicted, []
        return evicted

    def _finish(self, message_id: MessageId) -> None:
        # Forged counts of the same id go with the message: they can no longer become one.
        for key in [key for key in self._open if key[0] == message_id]:
            self._size -= self._open.pop(key).size
        self._done[message_id] = None
        if len(self._done) > _REMEMBERED_PER_OPEN * self._max_messages:
            self._done.popitem(last=False)

    def _expire(self, now: RoundNumber) -> None:
        while self._open:
            oldest = next(iter(self._open.values()))
            if now - oldest.first_round < self._max_age:
                return
            self._evict("age")

    def _make_room(self) -> None:
        while len(self._open) > self._max_messages:
            self._evict("messages")
        while self._size > self._max_bytes:
            self._evict("bytes")

    def _evict(self, reason: str) -> None:
        (message_id, count), partial = self._open.popitem(last=False)
        self._size -= partial.size
        self._evicted.append(Evicted(message_id, len(partial.variants), count, reason))
        del self._evicted[: -self._max_messages]

"""Every derivation of the protocol, straight from docs/protocol.md, to check the product against.

Plain bytes in, plain bytes out; no classes, no buffers, no error handling. Nothing here may import
the product: agreement between the two is the point.
"""

from __future__ import annotations

import struct

from blake3 import blake3

TAG = 16
OVERHEAD = 38


def be64(number: int) -> bytes:
    return struct.pack(">Q", number)


def prefixed(parts: tuple[bytes, ...]) -> bytes:
    return b"".join(be64(len(part)) + part for part in parts)


def derive(use: str, *parts: bytes) -> bytes:
    return blake3(prefixed(parts), derive_key_context="zipnet/v1/" + use).digest()


def keyed(use: str, key: bytes, *parts: bytes) -> bytes:
    sub_key = blake3(key, derive_key_context="zipnet/v1/" + use).digest()
    return blake3(prefixed(parts), key=sub_key).digest()


def content_digest(data: bytes) -> bytes:
    return blake3(data, derive_key_context="zipnet/v1/blob").digest()


# --- ids (§3) ------------------------------------------------------------------------------------


def instance_id(universe: str, name: str) -> bytes:
    return derive("instance", universe.encode(), name.encode())


def committee_fingerprint(secret: bytes, universe: str, name: str) -> bytes:
    return keyed("committee-fingerprint", secret, instance_id(universe, name))


def encode_params(slots: int, slot_bytes: int, minimum: int, epoch_s: int, skip: int) -> bytes:
    return struct.pack(">BIIIII", 1, slots, slot_bytes, minimum, epoch_s, skip)


def group_id(
    universe: str, name: str, params: bytes, fingerprint: bytes, policy: bytes, root: bytes
) -> bytes:
    return derive("group", universe.encode(), name.encode(), params, fingerprint, policy, root)


def peer_id(ed25519: bytes, mldsa65: bytes) -> bytes:
    return derive("peer", ed25519, mldsa65)


def identity_seeds(secret: bytes) -> tuple[bytes, bytes]:
    return keyed("identity-ed25519", secret), keyed("identity-mldsa65", secret)


def text16(text: str) -> bytes:
    return struct.pack(">H", len(text.encode())) + text.encode()


def ed25519_signed_input(use: str, message: bytes) -> bytes:
    return text16("zipnet/v1/ed25519-signature/" + use) + message


def hybrid_signed_input(use: str, signer: bytes, message: bytes) -> bytes:
    return text16("zipnet/v1/hybrid-signature/" + use) + signer + message


# --- ratchet (§4) --------------------------------------------------------------------------------


def chain_key(group: bytes, epoch: int, shared: bytes) -> bytes:
    return derive("chain-key", group, be64(epoch), shared)


def next_chain_key(key: bytes) -> bytes:
    return blake3(b"zipnet/v1/ratchet", key=key).digest()


def pad_key(key: bytes, header_hash: bytes) -> bytes:
    return blake3(b"zipnet/v1/pad" + header_hash, key=key).digest()


# --- messages and slots (§5) ---------------------------------------------------------------------


def message_id(salt: bytes, message: bytes) -> bytes:
    return derive("message", salt + message)[:16]


def fragments(message: bytes, salt: bytes, slot_bytes: int) -> list[tuple[bytes, int, int, bytes]]:
    payload, room = salt + message, slot_bytes - OVERHEAD
    count = (len(payload) + room - 1) // room
    identifier = message_id(salt, message)
    return [(identifier, i, count, payload[i * room : (i + 1) * room]) for i in range(count)]


def slot(
    identifier: bytes,
    index: int,
    count: int,
    payload: bytes,
    *,
    slot_bytes: int,
    header_hash: bytes,
    position: int,
) -> bytes:
    body = struct.pack(">H", len(payload)) + identifier + struct.pack(">HH", index, count) + payload
    body += b"\0" * (slot_bytes - TAG - len(body))
    return slot_tag(header_hash, position, body) + body


def slot_tag(header_hash: bytes, position: int, body: bytes) -> bytes:
    return keyed("slot-tag", header_hash, struct.pack(">I", position), body)[:TAG]


# --- reservations (§5) ---------------------------------------------------------------------------


def reservations(
    key: bytes, header_hash: bytes, num_slots: int, count: int
) -> list[tuple[int, int]]:
    result: list[tuple[int, int]] = []
    counter = 0
    while len(result) < count:
        block = keyed("reservation", key, header_hash, struct.pack(">I", counter))
        counter += 1
        numbers = struct.unpack(">QQQQ", block)
        for raw_position, raw_value in (numbers[:2], numbers[2:]):
            position = raw_position % (8 * num_slots)
            if position not in [taken for taken, _ in result]:
                result.append((position, 1 + raw_value % 65535))
    return result[:count]


def vector(num_slots: int, entries: list[tuple[int, int]]) -> bytes:
    numbers = [0] * (8 * num_slots)
    for position, value in entries:
        numbers[position] = value
    return struct.pack(f">{len(numbers)}H", *numbers)


def schedule_hash(vector_bytes: bytes) -> bytes:
    return derive("schedule", vector_bytes)


def granted(
    vector_bytes: bytes, entries: list[tuple[int, int]], num_slots: int
) -> list[int | None]:
    numbers = struct.unpack(f">{8 * num_slots}H", vector_bytes)
    result: list[int | None] = []
    for position, value in entries:
        rank = len([n for n in numbers[:position] if n != 0])
        result.append(rank if numbers[position] == value and rank < num_slots else None)
    return result

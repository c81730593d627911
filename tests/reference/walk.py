"""One whole round by hand: every client, every server, every pad as bytes (§4, §5, §6)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.reference import derivations, pads


@dataclass(frozen=True)
class Walk:
    """What a round leaves behind, step by step."""

    envelopes: list[bytes]
    aggregate: bytes
    partials: list[bytes]
    clear: bytes


def chains(group: bytes, epoch: int, shared: list[list[bytes]], rounds: int) -> list[list[bytes]]:
    """Chain key of each client (row) with each server (column) after so many rounds."""
    table = [[derivations.chain_key(group, epoch, secret) for secret in row] for row in shared]
    for _ in range(rounds):
        table = [[derivations.next_chain_key(key) for key in row] for row in table]
    return table


def walk_round(keys: list[list[bytes]], header_hash: bytes, bodies: list[bytes]) -> Walk:
    """Blind each body under every server's pad, sum, strip one server's pads at a time."""
    length = len(bodies[0])
    all_pads = [
        [pads.materialised_pad(derivations.pad_key(key, header_hash), length) for key in row]
        for row in keys
    ]
    envelopes = []
    for body, row in zip(bodies, all_pads, strict=True):
        envelope = body
        for pad in row:
            envelope = pads.xor(envelope, pad)
        envelopes.append(envelope)
    aggregate = bytes(length)
    for envelope in envelopes:
        aggregate = pads.xor(aggregate, envelope)
    partials = []
    for server in range(len(keys[0])):
        partial = bytes(length)
        for row in all_pads:
            partial = pads.xor(partial, row[server])
        partials.append(partial)
    clear = aggregate
    for partial in partials:
        clear = pads.xor(clear, partial)
    return Walk(envelopes, aggregate, partials, clear)

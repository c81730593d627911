"""A client that takes part by the rules and writes noise where others write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.model.publishing import ModelPublisher
from zipnet.protocol.ids import Digest, derive

if TYPE_CHECKING:
    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.params import RoundParams

__all__ = ["JammingPublisher", "jam"]

_SHARE = 8


def jam(body: bytearray, params: RoundParams, header_hash: Digest, name: str) -> None:
    """Write noise over one slot in eight of a round vector, and over as many reservations."""
    noise = derive("sim-jam", header_hash, name.encode())
    for count in range(max(1, params.num_slots // _SHARE)):
        draw = derive("sim-jam-slot", noise, count.to_bytes(4, "big"))
        slot = int.from_bytes(draw[:8], "big") % params.num_slots
        start = slot * params.slot_bytes
        fill = (draw * -(-params.slot_bytes // len(draw)))[: params.slot_bytes]
        body[start : start + params.slot_bytes] = fill
        entry = int.from_bytes(draw[8:16], "big") % params.reservation_entries
        offset = params.matrix_bytes + 2 * entry
        body[offset : offset + 2] = draw[16:18]


class JammingPublisher(ModelPublisher):
    """Fills one slot in eight, and as many reservations, with noise in each of its rounds."""

    def _fill(self, header: RoundHeader, header_hash: Digest) -> bytearray:
        body = super()._fill(header, header_hash)
        jam(body, self._origin.params, header_hash, self.name)
        return body

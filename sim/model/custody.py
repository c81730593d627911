"""A server's chains in the simulator: the shipped key custody, with its key agreement derived.

Stepping, retiring and unblinding are :class:`zipnet.storage.custody.KeyCustody`'s own. What a
ciphertext would have opened to is derived from the seed instead (see :mod:`sim.model.group`).

In a cost-only group nobody has chains: the stand-in vectors are digests of who sent them, the first
server of the roster releases their XOR and the others zeros, so that a record comes out clean
exactly when the participants everybody agreed on are those whose vectors were folded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.protocol.ids import Digest, RegistryIndex, RoundNumber, ServerIndex, derive
from zipnet.storage.custody import KeyCustody, _Chain
from zipnet.storage.memory import MemoryCustody

if TYPE_CHECKING:
    from sim.model.group import Group
    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.pads import PadEngine
    from zipnet.protocol.params import RoundParams
    from zipnet.protocol.participants import Participants

__all__ = ["CostCustody", "ModelCustody", "stand_in"]

_SERIAL_BYTES = 8


def stand_in(header_hash: Digest, index: RegistryIndex, size: int) -> bytes:
    """Return the vector that stands for a cost-only client's envelope."""
    block = derive("sim-stand-in", header_hash, index.to_bytes(_SERIAL_BYTES, "big"))
    return (block * -(-size // len(block)))[:size]


class ModelCustody(KeyCustody):
    """Chains of one server, surviving its crashes as durable ones do."""

    def __init__(self, group: Group, server: ServerIndex) -> None:
        skip = group.params.max_skip_rounds
        super().__init__(MemoryCustody(), group=group.group, max_skip_rounds=skip)
        self._origin = group
        self._server = server

    def begin(
        self, index: RegistryIndex, first_round: RoundNumber, name: str, serial: int, epoch: int
    ) -> None:
        """Begin a client's chain, or leave it as it is where it is held."""
        if not self.holds(index):
            key = self._origin.chain(name, serial, self._server, epoch)
            chain = _Chain(key, first_round)
            self._advance(chain)
            self._chains[index] = chain


class CostCustody(ModelCustody):
    """A server of a cost-only group: no chains, stand-ins for pads."""

    def begin(
        self, index: RegistryIndex, first_round: RoundNumber, name: str, serial: int, epoch: int
    ) -> None:
        """Do nothing: there is no chain."""

    def unblind(
        self,
        header: RoundHeader,
        participants: Participants,
        params: RoundParams,
        engine: PadEngine,
    ) -> bytearray:
        """Return the XOR of the participants' stand-ins, or zeros."""
        del engine
        total = 0
        if self._server == header.roster[0]:
            header_hash = header.hash
            for index in participants:
                total ^= int.from_bytes(stand_in(header_hash, index, params.body_bytes), "big")
        return bytearray(total.to_bytes(params.body_bytes, "big"))

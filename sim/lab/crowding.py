"""Adversaries inside the crowd: Sybils with a dropping aggregator, colluding servers, jammers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.lab.spy import Spy
from zipnet.errors import GuardError
from zipnet.protocol.ids import RegistryIndex, ServerIndex, SlotIndex
from zipnet.protocol.participants import Participants
from zipnet.protocol.slots import SlotState, decode_slot

if TYPE_CHECKING:
    from zipnet.protocol.envelope import Envelope

__all__ = ["ColludingServers", "SybilFlood"]


class SybilFlood(Spy):
    """Runs the clients from ``honest`` on, and an aggregator that drops honest ones at will.

    Args:
        mutant: As for all.
        honest: How many clients are not its own.
        drops: Whether it drops every honest client but the target, number 0.
    """

    def __init__(self, mutant: str | None = None, *, honest: int, drops: bool) -> None:
        super().__init__(mutant)
        self._honest = honest
        self._drops = drops

    def envelope(self, leaf: str, envelope: Envelope) -> bool:
        """Drop the honest, except the target."""
        super().envelope(leaf, envelope)
        return not self._drops or not 0 < int(envelope.sender) < self._honest

    def honest_left(self) -> list[int]:
        """Return, of each message of the target, how many honest clients may have written it."""
        return [
            sum(1 for candidate in exposure.candidates if candidate < self._honest)
            for exposure in self.exposures()
            if self.index_of_author(exposure.message) == 0
        ]


class ColludingServers(Spy):
    """The servers below ``count`` take their own pads off every single envelope.

    Where all of them do, envelopes lie open; one honest server is enough that none does.
    """

    def __init__(self, mutant: str | None = None, *, count: int) -> None:
        super().__init__(mutant)
        self._count = count
        self.opened: dict[int, set[bytes]] = {}
        self.read = self.tried = 0

    def envelope(self, leaf: str, envelope: Envelope) -> bool:
        """Strip the colluders' pads and look whether what is left reads as a round vector."""
        super().envelope(leaf, envelope)
        assert self.world is not None
        params = self.world.group.params
        body = bytearray(envelope.body)
        machine = self.world.servers[0].machine
        header = None if machine is None else machine.state.header
        if header is None or header.hash != envelope.header_hash:
            return True
        alone = Participants((RegistryIndex(envelope.sender),))
        for index in range(self._count):
            custody = self.world.servers[ServerIndex(index)].custody
            try:
                pad = custody.unblind(header, alone, params, self.world.group.engine)
            except GuardError:
                return True
            body = bytearray(a ^ b for a, b in zip(body, pad, strict=True))
        self.tried += 1
        states = [
            decode_slot(
                bytes(body[i * params.slot_bytes : (i + 1) * params.slot_bytes]),
                params,
                envelope.header_hash,
                SlotIndex(i),
            )[0]
            for i in range(params.num_slots)
        ]
        if SlotState.VOID not in states:
            self.read += 1
        return True

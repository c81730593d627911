"""Where an adversary reaches into the model: what it sees, and what it may do in others' place.

Every hook does by default what an honest party does. Adversaries of the laboratory override some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.model.fabric import Packet
    from sim.model.publishing import ModelPublisher
    from sim.model.server_body import ServerBody
    from sim.model.world import World
    from zipnet.machines.aggregator_effects import SendAggregate
    from zipnet.machines.guard import Released, ReleaseGuard
    from zipnet.protocol.envelope import Envelope
    from zipnet.protocol.header import RoundHeader, SignedHeader
    from zipnet.protocol.ids import ServerIndex
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["Hooks"]


class Hooks:
    """An adversary that does nothing; also the honest run's."""

    publisher_type: type[ModelPublisher] | None = None
    """Publishers of this kind in place of the shipped one: for mutants."""

    def begin(self, world: World) -> None:
        """Called once everything stands and before anything moves."""

    def packet(self, packet: Packet) -> None:
        """See a packet pass, as a global observer does."""

    def envelope(self, leaf: str, envelope: Envelope) -> bool:
        """See an envelope at an aggregator; return False to drop it there."""
        del leaf, envelope
        return True

    def aggregate(self, node: str, effect: SendAggregate) -> list[tuple[ServerIndex | None, bytes]]:
        """Decide what an aggregator sends up: blobs, each to one server or to all (None)."""
        del node
        return [(None, effect.blob)]

    def relay(self, node: str, signed: SignedHeader, target: str) -> list[SignedHeader]:
        """Decide which headers a server or an aggregator shows to a subscriber."""
        del node, target
        return [signed]

    def open_with(self, server: ServerBody, header: RoundHeader) -> RoundHeader:
        """Decide which header a leader opens a round with."""
        del server
        return header

    def guard(self, honest: ReleaseGuard) -> ReleaseGuard:
        """Return the release guard of a server: for mutants."""
        return honest

    def released(self, server: ServerIndex, released: Released) -> None:
        """See a release become durable."""

    def record(self, record: VerifiedRecord) -> None:
        """See a record become final."""

    def partial(self, server: ServerIndex, round_number: int, blob: bytes) -> None:
        """See a partial leave a server."""

"""Cost-only clients: they take part in every round and say nothing, by the hundred thousand.

What is real: the registry entry, the Ed25519 signature under the round's header, every check of the
aggregator that gets it, the participant set, the guard. What is not: the vector is a stand-in of 80
bytes, links and processors are charged for the nominal one; there is no publisher machine, chain or
pad behind it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sim.model.custody import stand_in
from sim.model.publishing import ENVELOPE_FIXED
from zipnet.protocol.envelope import Envelope, seal_envelope
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import PeerId, RegistryIndex, RoundNumber, derive

if TYPE_CHECKING:
    from sim.model.aggregating import ModelAggregator
    from sim.model.fabric import Port
    from sim.model.world import World
    from zipnet.protocol.header import SignedHeader
    from zipnet.protocol.record import VerifiedRecord

__all__ = ["CrowdIdentity", "CrowdMember"]

_MLDSA_BYTES = 1952


class CrowdIdentity(Identity):
    """An identity with an Ed25519 key only: what signs envelopes, and nothing else."""

    __slots__ = ("_peer",)

    def __init__(self, seed: int, name: str) -> None:
        secret = derive("sim-identity", seed.to_bytes(8, "big"), name.encode())
        self._ed25519 = Ed25519PrivateKey.from_private_bytes(secret)
        self._mldsa65 = None
        self._peer = PeerId(derive("sim-peer", secret))

    @property
    def peer_id(self) -> PeerId:
        """An id of its own: there is no second public key to derive it from."""
        return self._peer

    def ed25519_public(self) -> bytes:
        """Return the public half."""
        return self.ed25519_private_key().public_key().public_bytes_raw()


@dataclass(slots=True)
class CrowdMember:
    """One cost-only client."""

    world: World
    name: str
    index: RegistryIndex
    leaf: ModelAggregator
    port: Port
    identity: CrowdIdentity

    def opened(self, signed: SignedHeader) -> None:
        """A header arrived: send when a real client's work would be done and jitter is over."""
        world, costs = self.world, self.world.costs
        roster, size = len(signed.header.roster), world.scenario.wire_body_bytes
        work = costs.ed25519_verify + costs.seal(roster, size, world.scenario.reservations, roster)
        drawn = derive("sim-jitter", signed.header.hash, self.index.to_bytes(8, "big"))
        jitter = int.from_bytes(drawn[:8], "big") / 2**64 * world.scenario.jitter_s
        loop = asyncio.get_running_loop()
        loop.call_at(loop.time() + max(work, jitter), self._send, signed)

    def _send(self, signed: SignedHeader) -> None:
        header, world = signed.header, self.world
        body = stand_in(header.hash, self.index, world.group.params.body_bytes)
        envelope = seal_envelope(header, self.index, body, self.identity)
        world.note("envelope_sent", self.name, round_number=header.round, keep=False)
        size = world.scenario.wire_body_bytes + ENVELOPE_FIXED
        leaf = self.leaf
        world.fabric.send(self.port, leaf.port, "envelope", size, lambda: self._arrive(envelope))

    def _arrive(self, envelope: Envelope) -> None:
        self.leaf.envelope(self, envelope)

    def sealed(self, record: VerifiedRecord, size: int) -> None:
        """A record arrived; nothing depends on it."""

    def aborted(self, number: RoundNumber, why: int) -> None:
        """Nothing depends on it."""

    def answered(self, number: RoundNumber, refusal: str | None) -> None:
        """Nothing depends on it."""

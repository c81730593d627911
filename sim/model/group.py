"""Everything a simulated instance begins with, derived from one seed.

Two things of the real set-up are replaced, because their libraries draw randomness of their own and
a run must repeat exactly: X-Wing's shared secrets and the signatures of registrations are derived
from the seed (their cost is charged), and the descriptor is put together without being signed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from zipnet.protocol.attestation import ATTESTATION_OFF
from zipnet.protocol.descriptor import AggregatorEntry, Descriptor, NodeEntry, TrustedDescriptor
from zipnet.protocol.identity import Identity
from zipnet.protocol.ids import (
    DescriptorVersion,
    Digest,
    GroupId,
    ServerIndex,
    derive,
)
from zipnet.protocol.kem import KEM_CIPHERTEXT_BYTES
from zipnet.protocol.pads import PadEngine
from zipnet.protocol.params import RoundParams
from zipnet.protocol.ratchet import initial_chain_key
from zipnet.protocol.secret import Secret

if TYPE_CHECKING:
    from sim.model.scenario import Scenario

__all__ = ["ROOT", "STAND_IN", "Group", "identity_of", "registration_bytes"]

ROOT = "root"
STAND_IN = RoundParams(num_slots=1, slot_bytes=64, max_skip_rounds=10_000)
"""Round parameters of a group whose vectors are cost-only."""

_BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
_END = datetime(2100, 1, 1, tzinfo=UTC)
_REGISTRATION_FIXED = 1 + 32 + 1984 + 8 + 32 + 1 + 3373
_CIPHERTEXT_ITEM = 9 + KEM_CIPHERTEXT_BYTES


def identity_of(seed: int, name: str) -> Identity:
    """Return the identity that belongs to a seed and a name."""
    return Identity.from_secret(Secret(derive("sim-identity", _number(seed), name.encode())))


def registration_bytes(servers: int) -> int:
    """Return the length of a registration for a committee."""
    return _REGISTRATION_FIXED + servers * _CIPHERTEXT_ITEM


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


class Group:
    """One simulated instance.

    Attributes:
        params: Round parameters of the group.
        servers: Server identities by index.
        aggregators: Aggregator identities by name; ``root`` and the leaves.
        descriptor: The descriptor all parties run under.
        engine: The pad engine of everybody.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.seed = seed
        self.params = STAND_IN if scenario.vectors == "cost" else scenario.params
        self.servers = [identity_of(seed, f"server-{i}") for i in range(scenario.servers)]
        self.leaves = [f"leaf-{i}" for i in range(scenario.tree.leaves)]
        self.aggregators = {n: identity_of(seed, n) for n in (ROOT, *self.leaves)}
        self.engine = PadEngine()
        self.descriptor = self._descriptor(scenario)

    @property
    def group(self) -> GroupId:
        """The group id."""
        return self.descriptor.group

    def draw(self, name: str) -> Callable[[int], bytes]:
        """Return a source of bytes of somebody's own."""
        counter = itertools.count()
        key = derive("sim-draw", _number(self.seed), name.encode())

        def draw(size: int) -> bytes:
            blocks = (
                derive("sim-block", key, _number(next(counter))) for _ in range(-(-size // 32))
            )
            return b"".join(blocks)[:size]

        return draw

    def chain(self, name: str, serial: int, server: ServerIndex, epoch: int) -> bytearray:
        """Return the first chain key of a client and a server, for either side."""
        with Secret(self.shared(name, serial, server)) as shared:
            return initial_chain_key(self.group, epoch, shared)

    def shared(self, name: str, serial: int, server: ServerIndex) -> bytes:
        """Return what X-Wing would have agreed on for a registration."""
        parts = (_number(self.seed), name.encode(), _number(serial), bytes([server]))
        return derive("sim-shared", *parts)

    def registration(self, name: str, serial: int) -> Digest:
        """Return the digest that stands for a registration's blob."""
        return derive("sim-registration", _number(self.seed), name.encode(), _number(serial))

    def _descriptor(self, scenario: Scenario) -> TrustedDescriptor:
        ports = itertools.count(1)

        def node(name: str, identity: Identity) -> NodeEntry:
            return NodeEntry(name, "sim", next(ports), identity.public, b"")

        operator = identity_of(self.seed, "operator")
        descriptor = Descriptor(
            version=DescriptorVersion(1),
            name="sim.local",
            universe="sim",
            not_before=_BEGIN,
            not_after=_END,
            max_absent=scenario.max_absent,
            committee_fingerprint=derive("sim-committee", _number(self.seed)),
            params=self.params,
            cadence=scenario.cadence,
            attestation=ATTESTATION_OFF,
            servers=tuple(node(f"server-{i}", one) for i, one in enumerate(self.servers)),
            aggregators=tuple(
                AggregatorEntry(node(name, one), None if name == ROOT else ROOT)
                for name, one in self.aggregators.items()
            ),
            operator=operator.public,
            signed_bytes=b"",
            signature=None,
        )
        committee = tuple(identity.public for identity in self.servers)
        return TrustedDescriptor(descriptor, descriptor.group, committee)

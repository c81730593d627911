"""What the parts of an aggregator share; built once by ``zipnet.node.aggregator``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from zipnet.machines.aggregator import AggregatorMachine
    from zipnet.node.aggregator_links import AggregatorLinks
    from zipnet.node.breakers import Breakers
    from zipnet.node.capabilities import OwnCapability
    from zipnet.node.live_descriptor import LiveDescriptor
    from zipnet.node.record_tail import RecordTail
    from zipnet.node.revocations import NodeRevocations
    from zipnet.node.round_traces import RoundTraces
    from zipnet.node.upstream import Upstream
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.settings.types import AggregatorSettings

__all__ = ["AggregatorParts", "StartBeside"]


class StartBeside(Protocol):
    """Runs something beside, owned by the node's task group."""

    def __call__(self, work: Coroutine[None, None, object]) -> asyncio.Task[None] | None:
        """Begin ``work`` and return its task; None, and nothing begun, where the node ends."""
        ...


@dataclass(frozen=True, slots=True)
class AggregatorParts:
    """Everything a running aggregator works with.

    Attributes:
        settings: Its settings, checked.
        live: The descriptor in force.
        tail: The records verified here.
        upstream: The server that is followed, and the links to all of them.
        links: Those links, and the one to the parent.
        revocations: What was revoked, and the cutting off.
        own_capability: What this node shows where it dials.
        breakers: What is left alone while it keeps failing.
        rounds: The rounds' traces.
        start: Runs something beside.
    """

    settings: AggregatorSettings
    machine: AggregatorMachine
    live: LiveDescriptor
    metrics: NodeMetrics
    tail: RecordTail
    upstream: Upstream
    links: AggregatorLinks
    revocations: NodeRevocations
    own_capability: OwnCapability
    breakers: Breakers
    rounds: RoundTraces
    start: StartBeside

    @property
    def descriptor(self) -> TrustedDescriptor:
        """The version of the descriptor in force at this node."""
        return self.live.current

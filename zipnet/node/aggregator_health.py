"""What an aggregator depends on: what ``/readyz`` says of it, and whom it takes meanwhile.

Rules:

1. The aggregator sees by itself whether a server is followed (``source``) and whether there is a
   way up (``uplink``); what has to be tried is tried by probes (``zipnet.node.probes``).
2. With no way up for two seconds it lets its clients go and takes none: what they send here would
   be lost, and another aggregator may have a way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from zipnet.errors import AdmissionError
from zipnet.node.probe_capability import CapabilityProbe
from zipnet.node.probe_descriptor import DescriptorProbe
from zipnet.node.probe_entropy import EntropyProbe
from zipnet.node.probe_keys import KeyAgeProbe
from zipnet.node.probes import BreakerProbe, watch_dependencies
from zipnet.observe.log import get_logger
from zipnet.wire.frames import CloseCode
from zipnet.wire.handshake import Role

if TYPE_CHECKING:
    from zipnet.errors import ZipnetError
    from zipnet.node.aggregator_parts import AggregatorParts
    from zipnet.node.listen import NodeListener
    from zipnet.node.probes import Probe
    from zipnet.observe.health import Health
    from zipnet.transport.session import HelloFacts

__all__ = ["AGGREGATOR_CONDITIONS", "AggregatorHealth"]

AGGREGATOR_CONDITIONS: Final = ("source", "uplink")
"""What an aggregator sees by itself, from its first moment on."""

_LOOK_S: Final = 0.25
_NO_WAY_S: Final = 2.0
_RETRY_S: Final = 1.0
_log = get_logger(__name__)


class AggregatorHealth:
    """Looks after one aggregator's dependencies; made where its event loop runs.

    Args:
        parts: The aggregator's parts.
        health: Where what is found goes.
    """

    def __init__(self, parts: AggregatorParts, health: Health) -> None:
        self._parts = parts
        self._health = health
        self._way_seen_at = asyncio.get_running_loop().time()

    async def run(self, listener: NodeListener) -> None:
        """Look until cancelled.

        Args:
            listener: Who is here, and may have to leave.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(watch_dependencies(self._probes(), self._health))
            while True:
                await self._look(listener)
                await asyncio.sleep(_LOOK_S)

    def refusal(self, facts: HelloFacts) -> ZipnetError | None:
        """Refuse clients while there is no way up (rule 2)."""
        now = asyncio.get_running_loop().time()
        if facts.role is not Role.CLIENT or now < self._way_seen_at + _NO_WAY_S:
            return None
        return AdmissionError(
            "this aggregator has no way up at the moment", code="not_ready", retry_after=_RETRY_S
        )

    def _probes(self) -> list[Probe]:
        parts = self._parts
        return [
            EntropyProbe(),
            DescriptorProbe(lambda: parts.descriptor.descriptor, parts.metrics),
            KeyAgeProbe(lambda: parts.descriptor, parts.settings.identity.peer_id, parts.metrics),
            BreakerProbe(parts.breakers.open_targets),
            CapabilityProbe(lambda: parts.own_capability.expires_s),
        ]

    async def _look(self, listener: NodeListener) -> None:
        parts = self._parts
        up = any(link.session is not None for link in parts.links.up)
        self._health.set("uplink", ok=up, reason="no_uplink")
        self._health.set("source", ok=parts.upstream.source is not None, reason="no_server")
        await self._look_at_way(listener, up=up)
        parts.metrics.bonds.set(parts.links.look() + len(listener.sessions(Role.AGGREGATOR)))

    async def _look_at_way(self, listener: NodeListener, *, up: bool) -> None:
        """Rule 2: whoever cannot deliver does not hold clients."""
        now = asyncio.get_running_loop().time()
        if up:
            self._way_seen_at = now
        elif now >= self._way_seen_at + _NO_WAY_S:
            clients = listener.sessions(Role.CLIENT)
            if clients:
                _log.warning("clients_let_go", reason="no_uplink", count=len(clients))
            leaving = (c.close(code=CloseCode.OVERLOADED, reason="no_uplink") for c in clients)
            await asyncio.gather(*leaving)

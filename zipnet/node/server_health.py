"""What a committee server depends on, all together: what ``/readyz`` says of it (rows M7, A16).

Rules:

1. What the server sees by itself — consensus, keys, who is missing — is looked at all the time;
   what has to be tried is tried by probes (``zipnet.node.probes``).
2. Each dependency has its own name; a node is ready when none failed.
3. No client is admitted while there is no randomness to answer it with, no room to remember it, or
   no sound record to show it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from zipnet.errors import AdmissionError
from zipnet.node.build import build_version
from zipnet.node.probe_descriptor import DescriptorProbe
from zipnet.node.probe_disk import DiskProbe
from zipnet.node.probe_entropy import EntropyProbe
from zipnet.node.probe_keys import KeyAgeProbe
from zipnet.node.probe_ledger import LedgerProbe
from zipnet.node.probe_version import VersionProbe
from zipnet.node.probes import BreakerProbe, PeerProbe, watch_dependencies
from zipnet.observe.health import STARTING
from zipnet.observe.log import get_logger
from zipnet.wire.handshake import Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zipnet.errors import ZipnetError
    from zipnet.node.breakers import Breakers
    from zipnet.node.probes import Probe
    from zipnet.node.server_parts import ServerParts
    from zipnet.observe.health import Health
    from zipnet.protocol.ids import ServerIndex
    from zipnet.transport.session import HelloFacts

__all__ = ["SERVER_CONDITIONS", "ServerHealth"]

SERVER_CONDITIONS: Final = ("consensus", "committee_keys", "storage")
"""What a server sees by itself, from its first moment on."""

_FOR_CLIENTS: Final = frozenset({"disk", "entropy", "ledger"})
_RETRY_S: Final = 2.0
_READY_PAUSE_S: Final = 0.25
_WAITING_PAUSE_S: Final = 0.02


class ServerHealth:
    """Looks after one server's dependencies.

    Args:
        parts: The server's parts.
        health: Where what is found goes.
        state: The state folder; None where nothing is kept.
        monotonic: Seconds that only go forward.
        is_revoked: Whether this very server was revoked.
        breakers: What this server leaves alone while it keeps failing.
    """

    def __init__(
        self,
        parts: ServerParts,
        health: Health,
        *,
        state: Path | None,
        monotonic: Callable[[], float],
        is_revoked: Callable[[], bool],
        breakers: Breakers,
    ) -> None:
        self._parts = parts
        self._health = health
        self._monotonic = monotonic
        self._is_revoked = is_revoked
        self._breakers = breakers
        self._waiting_for: frozenset[ServerIndex] = frozenset()
        self._disk = None if state is None else DiskProbe(state, parts.metrics)
        self._log = get_logger()

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(watch_dependencies(self._probes(), self._health))
                while True:
                    self.look()
                    # Whoever waits for a server to come back should not wait for this loop.
                    ready = self._health.ready()
                    await asyncio.sleep(_READY_PAUSE_S if ready else _WAITING_PAUSE_S)
        finally:
            if self._disk is not None:
                self._disk.close()

    def look(self) -> None:
        """Look at what needs no trying."""
        parts = self._parts
        announced = len(parts.machine.state.kem) == len(parts.descriptor.committee)
        self._health.set("committee_keys", ok=announced, reason="keys_not_announced")
        leader = parts.consensus.leader()
        self._health.set(
            "consensus",
            ok=leader is not None and parts.consensus.caught_up(),
            reason="no_leader" if leader is None else "catching_up",
        )
        if self._is_revoked():
            self._health.set("standing", ok=False, reason="revoked")
        self._look_for_absent()

    def refusal(self, facts: HelloFacts) -> ZipnetError | None:
        """Refuse clients while this server could not do for them what it should (row A16)."""
        if facts.role is not Role.CLIENT:
            return None
        failed = {item.condition for item in self._health.failed() if item.reason != STARTING}
        if failed.isdisjoint(_FOR_CLIENTS):
            return None
        return AdmissionError(
            "this server is not ready: another one may be", code="not_ready", retry_after=_RETRY_S
        )

    def _probes(self) -> list[Probe]:
        parts, metrics = self._parts, self._parts.metrics
        probes: list[Probe] = [
            PeerProbe(parts.mesh),
            BreakerProbe(self._breakers.open_targets),
            EntropyProbe(),
            LedgerProbe(
                parts.keeper,
                lambda: parts.descriptor,
                lambda: parts.machine.state.next_sequence,
                metrics,
            ),
            VersionProbe(parts.mesh, build_version, metrics),
            DescriptorProbe(lambda: parts.descriptor.descriptor, metrics),
            KeyAgeProbe(lambda: parts.descriptor, parts.identity.peer_id, metrics),
        ]
        return probes if self._disk is None else [*probes, self._disk]

    def _look_for_absent(self) -> None:
        """Say for whom the rounds wait, where they do (protocol.md §6.1, §6.6)."""
        waiting = frozenset(self._parts.machine.waiting_for(self._monotonic()))
        if waiting == self._waiting_for:
            return
        for server in sorted(waiting | self._waiting_for):
            reason = f"waiting_for_server_{server}"
            self._health.set(f"server_{server}", ok=server not in waiting, reason=reason)
        self._waiting_for = waiting
        if waiting:
            self._log.warning("rounds_stalled", absent=sorted(waiting))
        else:
            self._log.info("rounds_resumed")

"""Runs the aggregator's machine: what it asks for is done here, what happens is told to it.

Rules:

1. Effects are performed in order; what takes time runs beside, and its outcome is the next event.
2. A registry page that is malformed costs the source its place; one that cannot be fetched does
   not, since the machine asks again.

The decisions are ``zipnet.machines.aggregator``'s; delivery is ``zipnet.node.uplink``'s.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from zipnet.errors import RemoteProtocolError, ZipnetError
from zipnet.machines.aggregator_effects import (
    Accept,
    ArmTimer,
    Distrust,
    FetchRegistry,
    Refuse,
    RegistryReceived,
    RelayHeader,
    SendAggregate,
    TimerFired,
)
from zipnet.node.uplink import deliver_aggregate
from zipnet.observe.log import get_logger
from zipnet.protocol.registration import RegistryChange
from zipnet.transport.dial import refusal_code
from zipnet.wire.messages import GetRegistry, Kind, RegistryPage, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.machines.aggregator_effects import Effect, Event
    from zipnet.node.aggregator_parts import AggregatorParts
    from zipnet.protocol.header import SignedHeader

__all__ = ["AggregatorDriver"]

_log = get_logger(__name__)


class AggregatorDriver:
    """Steps one aggregator's machine.

    Args:
        parts: The aggregator's parts.
        on_opened: Told of each header the machine found good.
    """

    def __init__(self, parts: AggregatorParts, on_opened: Callable[[SignedHeader], None]) -> None:
        self._parts = parts
        self._on_opened = on_opened
        self._timers: set[asyncio.TimerHandle] = set()

    def step(self, event: Event) -> Accept | Refuse | None:
        """Feed the machine, perform its effects in order, and return its answer if it gave one."""
        answer: Accept | Refuse | None = None
        for effect in self._parts.machine.step(event, asyncio.get_running_loop().time()):
            if isinstance(effect, Accept | Refuse):
                answer = effect
            else:
                self._perform(effect)
        return answer

    def close(self) -> None:
        """Let no timer fire any more. Idempotent."""
        for timer in self._timers:
            timer.cancel()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case FetchRegistry():
                self._parts.start(self._fetch_registry(effect.from_version))
            case Distrust():
                self._parts.upstream.distrust(effect.reason)
            case RelayHeader():
                self._on_opened(effect.signed)
            case ArmTimer():
                self._arm(effect.at)
            case SendAggregate():
                self._parts.start(self._send(effect))
            case Accept() | Refuse():
                raise AssertionError("answers are returned, not performed")

    def _arm(self, at: float) -> None:
        def fire() -> None:
            self._timers.discard(handle)
            self.step(TimerFired())

        handle = asyncio.get_running_loop().call_at(at, fire)
        self._timers.add(handle)

    async def _fetch_registry(self, from_version: int) -> None:
        parts = self._parts
        try:
            payload = encode(GetRegistry(from_version=from_version))
            answer = await parts.upstream.request(Kind.GET_REGISTRY, payload)
            page = decode(answer.payload, RegistryPage)
            changes = tuple(RegistryChange.decode(change) for change in page.changes)
        except RemoteProtocolError:
            parts.upstream.distrust("registry_malformed")
        except ZipnetError as error:
            _log.info("registry_not_fetched", reason=refusal_code(error))
        else:
            self.step(RegistryReceived(from_version, changes))
            parts.metrics.client_registry_size.set(parts.machine.registry.active_count)

    async def _send(self, effect: SendAggregate) -> None:
        parts, rounds = self._parts, self._parts.rounds
        parts.metrics.envelopes_accepted.inc(effect.own)
        rounds.phase("deliver")
        taken = await deliver_aggregate(
            effect.blob,
            parts.links.up,
            round_number=int(effect.round),
            deadline_s=parts.settings.cadence.round_deadline_ms / 1000,
            metrics=parts.metrics,
            breakers=parts.breakers,
        )
        rounds.closed(int(effect.round), "sent", participants=effect.count)
        _log.info("aggregate_sent", round=int(effect.round), participants=effect.count, count=taken)

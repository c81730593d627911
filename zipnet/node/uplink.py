"""Aggregates on their way up: to the parent, or from the root to every committee server.

Rules:

1. Each far node gets the same bytes; one that is slow or gone holds up no other.
2. Delivery is tried until it is accepted, refused for good, or out of date. A far node that keeps
   failing is left alone for longer and longer in between (``zipnet.node.breakers``).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from zipnet.errors import AdmissionError, TransportError, ZipnetError
from zipnet.node.breakers import Breakers
from zipnet.observe.log import get_logger
from zipnet.transport.dial import refusal_code
from zipnet.wire.messages import Kind, SubmitAggregate, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.observe.metrics import NodeMetrics
    from zipnet.transport.dial import PersistentLink

__all__ = ["deliver_aggregate"]

_TRANSIENT = frozenset(
    {
        "capability_missing",
        "identity_busy",
        "not_ready",
        "overloaded",
        "rate_limited",
        "round_not_open",
        "shed",
        "timeout",
    }
)
_PAUSE_S = 0.05
_log = get_logger(__name__)


async def deliver_aggregate(
    blob: bytes,
    links: Sequence[PersistentLink],
    *,
    round_number: int,
    deadline_s: float,
    metrics: NodeMetrics,
    breakers: Breakers | None = None,
) -> int:
    """Send an aggregate over all links at once and return how many far nodes accepted it.

    Args:
        blob: The encoded aggregate.
        links: Where to.
        round_number: Its round, for the log.
        deadline_s: Time after which it is out of date.
        metrics: Where refusals are counted.
        breakers: Who is left alone for a while.
    """
    breakers = breakers or Breakers(metrics)
    payload = encode(SubmitAggregate(aggregate=blob))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_deliver(payload, link, deadline_s, breakers, _target(links, number)))
            for number, link in enumerate(links)
        ]
    refused = [reason for task in tasks if (reason := task.result()) is not None]
    for reason in refused:
        metrics.rejected.inc(reason)
        _log.warning("aggregate_not_taken", round=round_number, reason=reason)
    return len(tasks) - len(refused)


def _target(links: Sequence[PersistentLink], number: int) -> str:
    return "parent" if len(links) == 1 else f"server_{number}"


async def _deliver(
    payload: bytes, link: PersistentLink, deadline_s: float, breakers: Breakers, target: str
) -> str | None:
    """Why a far node did not take the aggregate, None when it did."""
    reason = "transport"
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                await link.wait_up()
                if not breakers.allows(target):
                    reason = "breaker_open"
                    await asyncio.sleep(max(_PAUSE_S, breakers.retry_after_s(target)))
                    continue
                try:
                    await link.request(Kind.SUBMIT_AGGREGATE, payload)
                except TransportError:
                    breakers.failed(target)
                except AdmissionError as error:
                    breakers.succeeded(target)  # a refusal is an answer
                    reason = error.code
                    if reason not in _TRANSIENT:
                        return reason
                except ZipnetError as error:
                    return refusal_code(error)
                else:
                    breakers.succeeded(target)
                    return None
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        return reason

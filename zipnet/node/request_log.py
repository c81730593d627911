"""What a node notes of a request: a line for the log, a span for the trace (rows M6, A3).

Rules:

1. Only what nodes, this machine and its operators ask is noted. When a client or a reader asks for
   something is theirs alone; a push is not a request.
2. Lines are of level debug: counters say how many, these say which.
3. An address is shown where the descriptor shows it too: that of a server or an aggregator.
4. While a request is handled, every line of the log carries its ``corr_id`` and ``route``.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from structlog.contextvars import bound_contextvars

from zipnet.access.principal import PrincipalKind
from zipnet.errors import AdmissionError
from zipnet.observe.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from zipnet.observe.tracing import Tracer

__all__ = ["NOTED_KINDS", "SILENT", "RequestLog"]

NOTED_KINDS: Final = frozenset(
    {PrincipalKind.SERVER, PrincipalKind.AGGREGATOR, PrincipalKind.WEB, PrincipalKind.OPERATOR}
)
"""Callers whose requests are noted (rule 1)."""

_log = get_logger(__name__)


class RequestLog:
    """Notes requests of one node.

    Args:
        tracer: Where spans go; None notes nothing at all.
    """

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    @contextmanager
    def noting(
        self, kind: PrincipalKind, service: str, route: str, facts: Mapping[str, str]
    ) -> Iterator[None]:
        """Note what happens inside the block.

        Args:
            kind: What the caller is.
            service: What it called.
            route: What for, one of a bounded set.
            facts: Further fields: ``peer_addr`` and ``capability_id`` of a node.
        """
        if self._tracer is None or kind not in NOTED_KINDS:
            yield
            return
        span = self._tracer.begin("request", service=service, route=route)
        began, outcome = time.perf_counter(), "failed"
        fields = {"corr_id": os.urandom(8).hex(), "route": f"{service}/{route}", **facts}
        if span.trace_id is not None:
            fields["trace_id"] = span.trace_id
        with bound_contextvars(**fields):
            try:
                yield
                outcome = "served"
            except AdmissionError as error:
                outcome = error.code
                raise
            finally:
                span.end(outcome)
                took_ms = round((time.perf_counter() - began) * 1000, 3)
                _log.debug("request_handled", reason=outcome, latency_ms=took_ms)


SILENT: Final = RequestLog(None)
"""Notes nothing."""

"""The traces of one node: of its rounds, and of the requests it handles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.node.request_log import RequestLog
from zipnet.node.round_traces import RoundTraces
from zipnet.observe.tracing import open_tracer

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.settings.types import NodeSettings

__all__ = ["NodeTraces"]


class NodeTraces:
    """What one node traces.

    Args:
        settings: The node's settings.
        role: What it is.
        keep_all: Whether every trace that begins now is kept: in safe mode, or while a breaker is
            open.

    Attributes:
        requests: Notes requests.
        rounds: Follows rounds.

    Raises:
        ConfigError: When the library is missing or the file cannot be written.
    """

    def __init__(self, settings: NodeSettings, role: str, keep_all: Callable[[], bool]) -> None:
        named = settings.trace_collector
        collector = None if named is None else (named.host, named.port)
        self._tracer = open_tracer(
            settings.trace_file,
            collector,
            instance=settings.instance,
            role=role,
            node=settings.node.name,
            keep_all=keep_all,
        )
        self.requests = RequestLog(self._tracer)
        self.rounds = RoundTraces(self._tracer)

    def close(self) -> None:
        """Write what waits. Idempotent."""
        self._tracer.close()

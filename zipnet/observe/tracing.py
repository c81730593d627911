"""Traces: how long the steps of a round, and requests among nodes, took (row L8).

A tracer is a port: :data:`NO_TRACES` does nothing, :func:`open_tracer` gives OpenTelemetry spans to
a file or to a collector on this machine (``zipnet.observe.spans``; needs the extra ``tracing``).

Rules:

1. A span carries :data:`ALLOWED_ATTRIBUTES` and nothing else, with plain values: no client, no
   address, no body, no words of an error.
2. Spans of one round have one trace id at every node, drawn from the header's hash, which the
   record shows anyway. So nothing about traces travels, and all nodes keep the same rounds.
3. Nothing that a client, a reader or a browser asks is traced: when somebody asked is theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from zipnet.errors import ConfigError
from zipnet.protocol.ids import derive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = [
    "ALLOWED_ATTRIBUTES",
    "NO_TRACES",
    "SAMPLED_SHARE",
    "Span",
    "Tracer",
    "open_tracer",
    "round_trace_id",
]

SAMPLED_SHARE: Final = 0.01
"""Share of traces that is kept while all is well."""

ALLOWED_ATTRIBUTES: Final = frozenset(
    {"round", "sequence", "participants", "server", "route", "service", "outcome", "reason"}
)
"""What a span may carry. Adding one is a privacy decision, as with log fields."""


class Span(Protocol):
    """Something that takes time."""

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits where the trace is kept, else None."""

    def end(self, outcome: str = "ok", **attributes: str | int) -> None:
        """Say that it is over and how it went; a second time does nothing."""


class Tracer(Protocol):
    """Begins spans."""

    def begin(
        self,
        name: str,
        *,
        trace_id: bytes | None = None,
        parent: Span | None = None,
        **attributes: str | int,
    ) -> Span:
        """Begin a span.

        Args:
            name: What takes time, one of few words.
            trace_id: 16 bytes of a trace of its own; drawn when None and there is no parent.
            parent: The span it is a part of.
            attributes: :data:`ALLOWED_ATTRIBUTES`; others are left out.
        """

    def close(self) -> None:
        """Write what waits and end. Idempotent."""


class _NoSpan:
    @property
    def trace_id(self) -> str | None:
        return None

    def end(
        self,
        outcome: str = "ok",  # noqa: ARG002
        **attributes: str | int,  # noqa: ARG002
    ) -> None:
        return None


class _NoTraces:
    def begin(
        self,
        name: str,  # noqa: ARG002 - the port's
        *,
        trace_id: bytes | None = None,  # noqa: ARG002
        parent: Span | None = None,  # noqa: ARG002
        **attributes: str | int,  # noqa: ARG002
    ) -> Span:
        return _NO_SPAN

    def close(self) -> None:
        return None


_NO_SPAN: Final = _NoSpan()
NO_TRACES: Final[Tracer] = _NoTraces()
"""Traces nothing."""


def round_trace_id(header_hash: bytes) -> bytes:
    """Return the 16 bytes that name a round's trace at every node (rule 2)."""
    return derive("round-trace", header_hash)[:16]


def open_tracer(
    file: Path | None,
    collector: tuple[str, int] | None = None,
    *,
    instance: str,
    role: str,
    node: str,
    keep_all: Callable[[], bool],
) -> Tracer:
    """Return a tracer, or :data:`NO_TRACES` where nothing is named that spans could go to.

    Args:
        file: Where spans go, one OTLP request as JSON for each line.
        collector: Host and port on loopback where the same requests are posted.
        instance: Name of the instance, for every span.
        role: What the node is.
        node: Its name in the descriptor.
        keep_all: Whether every trace that begins now is kept, not only one in a hundred.

    Raises:
        ConfigError: When the library is missing or the file cannot be written.
    """
    if file is None and collector is None:
        return NO_TRACES
    try:
        # Imported here: it takes a fifth of a second, and most nodes write no traces.
        from zipnet.observe.spans import SpanTracer  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "setting TRACE_FILE or TRACE_COLLECTOR: opentelemetry-sdk is not installed",
            hint="install zipnet[tracing], or unset it",
        ) from error
    resource = {"service.name": f"zipnet-{role}", "zipnet.instance": instance, "zipnet.node": node}
    try:
        return SpanTracer(resource, keep_all, file=file, collector=collector)
    except OSError as error:
        raise ConfigError(
            f"setting TRACE_FILE: {file}: {error.strerror}", hint="name a file this user may write"
        ) from error

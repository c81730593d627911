"""OpenTelemetry spans as OTLP requests in JSON: lines of a file, or posts to a collector.

The lines are what a collector's ``otlpjsonfile`` receiver reads. A collector that is posted to is
on this machine: whom else a node may connect to is a short list, and traces are not on it.

Rules:

1. The library's environment variables and detectors are not asked: they would decide where spans
   go and add the process's arguments to them.
2. One trace in a hundred is kept, decided by its id alone, so that all nodes keep the same rounds;
   all of them while ``keep_all`` says so. A span goes with its parent.
3. The file is the node's alone (0600) and bounded: when it is full it becomes ``FILE.1``.
4. A collector that does not answer loses what it was sent: traces are worth no memory and no wait.
"""

from __future__ import annotations

import json
import os
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from zipnet.observe.tracing import ALLOWED_ATTRIBUTES, SAMPLED_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes

    from zipnet.observe.tracing import Span

__all__ = ["SpanFile", "SpanPost", "SpanTracer"]

_MAX_BYTES: Final = 32 << 20
_MAX_QUEUED: Final = 4096
_EXPORT_EVERY_MS: Final = 500
_POST_S: Final = 2.0
_LOW_BITS: Final = (1 << 64) - 1


class _Ids(IdGenerator):
    """Random ids, or the trace id that was asked for."""

    def __init__(self) -> None:
        self.next_trace: int | None = None

    def generate_span_id(self) -> int:
        return int.from_bytes(os.urandom(8), "big") or 1

    def generate_trace_id(self) -> int:
        asked, self.next_trace = self.next_trace, None
        return asked or int.from_bytes(os.urandom(16), "big") or 1


class _Share(Sampler):
    """Rule 2."""

    def __init__(self, keep_all: Callable[[], bool]) -> None:
        self._keep_all = keep_all

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,  # noqa: ARG002
        kind: SpanKind | None = None,  # noqa: ARG002
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,  # noqa: ARG002
        trace_state: TraceState | None = None,  # noqa: ARG002
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        if parent.is_valid:
            kept = parent.trace_flags.sampled
        else:
            kept = (trace_id & _LOW_BITS) < SAMPLED_SHARE * _LOW_BITS or self._keep_all()
        decision = Decision.RECORD_AND_SAMPLE if kept else Decision.DROP
        return SamplingResult(decision, attributes if kept else None)

    def get_description(self) -> str:
        return "one in a hundred, or all"


class SpanFile(SpanExporter):
    """Appends spans to a file (rule 3).

    Args:
        path: The file.
        resource: What every span says of the node.
        max_bytes: Size at which it is put aside.

    Raises:
        OSError: When it cannot be opened.
    """

    def __init__(
        self, path: Path, resource: Mapping[str, str], *, max_bytes: int = _MAX_BYTES
    ) -> None:
        self._path = path
        self._resource = dict(resource)
        self._max_bytes = max_bytes
        self._descriptor = self._open()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write spans as one line."""
        line = _request(self._resource, spans) + b"\n"
        try:
            if os.fstat(self._descriptor).st_size + len(line) > self._max_bytes:
                self._put_aside()
            os.write(self._descriptor, line)
        except OSError:
            return SpanExportResult.FAILURE  # traces are worth no node
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the library's
        """Nothing waits here."""
        return True

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)

    def _put_aside(self) -> None:
        self._path.replace(self._path.with_name(self._path.name + ".1"))
        os.close(self._descriptor)
        self._descriptor = self._open()


class SpanPost(SpanExporter):
    """Posts spans to a collector on this machine (rule 4).

    Args:
        host: Where it listens.
        port: Its port for OTLP over HTTP.
        resource: What every span says of the node.
    """

    def __init__(self, host: str, port: int, resource: Mapping[str, str]) -> None:
        self._where = host, port
        self._resource = dict(resource)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans as one request."""
        link = HTTPConnection(*self._where, timeout=_POST_S)
        try:
            body, kind = _request(self._resource, spans), {"Content-Type": "application/json"}
            link.request("POST", "/v1/traces", body=body, headers=kind)
            taken = link.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            taken = False
        finally:
            link.close()
        return SpanExportResult.SUCCESS if taken else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Nothing is open between two requests."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - the library's
        """Nothing waits here."""
        return True


class _Begun:
    """A span of the library behind the port's face."""

    def __init__(self, span: trace.Span) -> None:
        self.span = span
        self._over = False

    @property
    def trace_id(self) -> str | None:
        context = self.span.get_span_context()
        return f"{context.trace_id:032x}" if context.trace_flags.sampled else None

    def end(self, outcome: str = "ok", **attributes: str | int) -> None:
        if self._over:
            return
        self._over = True
        self.span.set_attributes(_allowed({**attributes, "outcome": outcome}))
        self.span.end()


class SpanTracer:
    """Implements :class:`zipnet.observe.tracing.Tracer` with OpenTelemetry.

    Args:
        resource: What every span says of the node.
        keep_all: Whether every trace that begins now is kept.
        file: File they go to, if any.
        collector: Host and port of the collector they go to, if any.

    Raises:
        OSError: When the file cannot be opened.
    """

    def __init__(
        self,
        resource: Mapping[str, str],
        keep_all: Callable[[], bool],
        *,
        file: Path | None = None,
        collector: tuple[str, int] | None = None,
    ) -> None:
        self._ids = _Ids()
        self._provider = TracerProvider(
            sampler=_Share(keep_all),
            resource=Resource(dict(resource)),
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=SpanLimits(max_events=0, max_links=0),
        )
        exporters: list[SpanExporter] = []
        if file is not None:
            exporters.append(SpanFile(file, resource))
        if collector is not None:
            exporters.append(SpanPost(*collector, resource))
        for exporter in exporters:
            self._provider.add_span_processor(
                BatchSpanProcessor(
                    exporter,
                    max_queue_size=_MAX_QUEUED,
                    schedule_delay_millis=_EXPORT_EVERY_MS,
                )
            )
        self._tracer = self._provider.get_tracer("zipnet")

    def begin(
        self,
        name: str,
        *,
        trace_id: bytes | None = None,
        parent: Span | None = None,
        **attributes: str | int,
    ) -> Span:
        """Begin a span; see the port."""
        context = trace.set_span_in_context(trace.INVALID_SPAN)
        if isinstance(parent, _Begun):
            context = trace.set_span_in_context(parent.span)
        elif trace_id is not None:
            self._ids.next_trace = int.from_bytes(trace_id, "big")
        span = self._tracer.start_span(
            name,
            context,
            attributes=_allowed(attributes),
            record_exception=False,
            set_status_on_exception=False,
        )
        return _Begun(span)

    def close(self) -> None:
        """Write what waits, end the threads, close the file."""
        self._provider.shutdown()


def _allowed(attributes: Mapping[str, str | int]) -> dict[str, str | int]:
    return {
        name: value
        for name, value in attributes.items()
        if name in ALLOWED_ATTRIBUTES and isinstance(value, str | int)
    }


def _request(resource: Mapping[str, str], spans: Sequence[ReadableSpan]) -> bytes:
    scope = {"scope": {"name": "zipnet"}, "spans": [_shown(span) for span in spans]}
    about = {"attributes": _listed(resource)}
    request = {"resourceSpans": [{"resource": about, "scopeSpans": [scope]}]}
    return json.dumps(request, separators=(",", ":")).encode()


def _shown(span: ReadableSpan) -> dict[str, object]:
    context, parent = span.get_span_context(), span.parent
    if context is None:  # only a span that was never begun has none
        return {}
    shown: dict[str, object] = {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "name": span.name,
        "kind": 1,
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _listed(span.attributes or {}),
    }
    if parent is not None and parent.is_valid:
        shown["parentSpanId"] = f"{parent.span_id:016x}"
    return shown


def _listed(attributes: Mapping[str, object]) -> list[dict[str, object]]:
    return [{"key": name, "value": _value(value)} for name, value in attributes.items()]


def _value(value: object) -> dict[str, object]:
    # OTLP's JSON writes 64-bit numbers as text.
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}

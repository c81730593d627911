"""Promises of traces: known attributes, one in a hundred or all, nothing that travels, one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from zipnet.errors import ConfigError
from zipnet.observe.spans import SpanFile, SpanTracer
from zipnet.observe.tracing import NO_TRACES, open_tracer, round_trace_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CANARY = "c0ffee" * 11
RESOURCE = {"service.name": "zipnet-server", "zipnet.instance": "acme.test"}


def _tracer(path: Path, keep_all: Callable[[], bool] = lambda: True) -> SpanTracer:
    return SpanTracer(RESOURCE, keep_all, file=path)


class _Collector(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP, once it is told to."""

    taken: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    status: ClassVar[int] = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append((self.path, json.loads(body)))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return None


def _spans(path: Path) -> list[dict[str, Any]]:
    requests = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        span
        for request in requests
        for resource in request["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def _attributes(span: dict[str, Any]) -> dict[str, str]:
    return {item["key"]: next(iter(item["value"].values())) for item in span["attributes"]}


def test_spans_of_a_round_share_a_trace_that_its_header_names(tmp_path: Path) -> None:
    tracer = _tracer(tmp_path / "traces")
    name = round_trace_id(bytes(32))
    whole = tracer.begin("round", trace_id=name, round=7)
    part = tracer.begin("fold", parent=whole, round=7)
    part.end()
    whole.end("final", participants=12)
    whole.end("again")
    tracer.close()
    fold, round_ = _spans(tmp_path / "traces")
    assert {fold["traceId"], round_["traceId"]} == {name.hex()}
    assert whole.trace_id == name.hex()
    assert fold["parentSpanId"] == round_["spanId"]
    assert "parentSpanId" not in round_
    assert _attributes(round_) == {"round": "7", "outcome": "final", "participants": "12"}
    assert int(fold["startTimeUnixNano"]) <= int(fold["endTimeUnixNano"])


@pytest.mark.requirement("L8")
def test_one_trace_in_a_hundred_is_kept_or_all_and_a_part_goes_with_its_whole(
    tmp_path: Path,
) -> None:
    keep_all = False
    tracer = _tracer(tmp_path / "traces", lambda: keep_all)
    kept = 0
    for number in range(5000):
        whole = tracer.begin("round", trace_id=round_trace_id(number.to_bytes(32)))
        part = tracer.begin("fold", parent=whole)
        assert part.trace_id == whole.trace_id
        kept += whole.trace_id is not None
        part.end()
        whole.end()
    assert 20 <= kept <= 90  # 50 expected; the ids are fixed, so this never changes
    keep_all = True
    assert all(tracer.begin("request").trace_id for _ in range(100))
    tracer.close()
    assert len(_spans(tmp_path / "traces")) == 2 * kept


def test_what_a_span_may_not_carry_is_left_out(tmp_path: Path) -> None:
    tracer = _tracer(tmp_path / "traces")
    span = tracer.begin("request", route="get_clock", client=CANARY, body=CANARY)
    span.end("served", peer=CANARY)
    tracer.close()
    text = (tmp_path / "traces").read_text()
    assert CANARY not in text
    (shown,) = _spans(tmp_path / "traces")
    assert _attributes(shown) == {"route": "get_clock", "outcome": "served"}


def test_the_file_is_the_nodes_alone_and_put_aside_when_full(tmp_path: Path) -> None:
    path = tmp_path / "traces"
    tracer = _tracer(path)
    tracer.begin("request").end()
    tracer.close()
    assert path.stat().st_mode & 0o777 == 0o600
    size = path.stat().st_size
    file = SpanFile(path, RESOURCE, max_bytes=size + 10)
    file.export([])
    file.shutdown()
    file.shutdown()
    assert (tmp_path / "traces.1").stat().st_size == size
    assert 0 < path.stat().st_size < size


def test_spans_are_posted_to_a_collector_and_lost_where_none_listens() -> None:
    _Collector.taken.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.server_address[1]
        tracer = SpanTracer(RESOURCE, lambda: True, collector=("127.0.0.1", port))
        tracer.begin("request", route="get_clock").end("served")
        tracer.close()
        server.shutdown()
        thread.join()
    ((path, request),) = _Collector.taken
    assert path == "/v1/traces"
    (resource,) = request["resourceSpans"]
    assert resource["resource"]["attributes"][0]["key"] == "service.name"
    assert [span["name"] for span in resource["scopeSpans"][0]["spans"]] == ["request"]
    gone = SpanTracer(RESOURCE, lambda: True, collector=("127.0.0.1", port))
    gone.begin("request").end()
    gone.close()  # neither an error nor a wait
    assert len(_Collector.taken) == 1


def test_the_librarys_environment_and_detectors_have_no_say(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom zipnet.observe.tracing import open_tracer\n"
        f"t = open_tracer(Path({str(tmp_path / 'traces')!r}), instance='a', role='server',"
        " node='s0', keep_all=lambda: True)\n"
        "t.begin('request').end()\nt.close()\n"
    )
    environment = {
        **os.environ,
        "OTEL_RESOURCE_ATTRIBUTES": f"leak={CANARY}",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process,os,host",
        "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_SERVICE_NAME": CANARY,
    }
    subprocess.run([sys.executable, "-c", program, CANARY], env=environment, check=True)
    text = (tmp_path / "traces").read_text()
    assert len(_spans(tmp_path / "traces")) == 1
    assert CANARY not in text
    assert "process" not in text


def test_without_a_file_nothing_is_traced_or_imported(tmp_path: Path) -> None:
    none = open_tracer(None, instance="a", role="server", node="s0", keep_all=lambda: True)
    assert none is NO_TRACES
    span = none.begin("round", trace_id=bytes(16), round=1)
    assert span.trace_id is None
    span.end()
    none.close()
    program = (
        "import sys, zipnet.node.traces; "
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(ConfigError, match="TRACE_FILE"):
        open_tracer(
            tmp_path / "no" / "folder", instance="a", role="x", node="n", keep_all=lambda: True
        )

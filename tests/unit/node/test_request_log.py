"""Promises of the request log: nodes and operators by every field, clients and readers by none."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest

from zipnet.access.principal import PrincipalKind
from zipnet.access.refusal import refusal
from zipnet.errors import AdmissionError
from zipnet.node.request_log import NOTED_KINDS, SILENT, RequestLog
from zipnet.observe.log import configure_logging, get_logger
from zipnet.observe.tracing import NO_TRACES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zipnet.observe.tracing import Span

FACTS = {"peer_addr": "192.0.2.7:4433", "capability_id": "0011223344556677"}


class Kept:
    """A tracer that keeps everything in a list."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, dict[str, str | int]]] = []
        self.ended: list[str] = []

    def begin(
        self,
        name: str,
        *,
        trace_id: bytes | None = None,
        parent: Span | None = None,
        **attributes: str | int,
    ) -> Kept:
        assert trace_id is None
        assert parent is None
        self.begun.append((name, attributes))
        return self

    @property
    def trace_id(self) -> str | None:
        return "ab" * 16

    def end(self, outcome: str = "ok", **_: str | int) -> None:
        self.ended.append(outcome)

    def close(self) -> None:
        return None


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, ours = logging.getLogger(), logging.getLogger("zipnet")
    before = root.level, ours.level
    out = io.StringIO()
    configure_logging(
        service="zipnet-server", instance="a.test", role="server", stream=out, level="debug"
    )
    yield out
    for handler in [known for known in root.handlers if known.get_name() == "zipnet"]:
        root.removeHandler(handler)
    root.setLevel(before[0])
    ours.setLevel(before[1])


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.requirement("A3")
@pytest.mark.requirement("M6")
def test_a_nodes_request_is_a_line_with_every_field(stream: io.StringIO) -> None:
    tracer = Kept()
    with RequestLog(tracer).noting(PrincipalKind.SERVER, "server", "get_clock", FACTS):
        get_logger("zipnet.node").info("thing_happened")
    inside, after = _lines(stream)
    assert inside["corr_id"] == after["corr_id"]
    assert len(str(after["corr_id"])) == 16
    assert (after["event"], after["reason"]) == ("request_handled", "served")
    assert (after["service"], after["zipnet_instance"]) == ("zipnet-server", "a.test")
    assert (after["route"], after["trace_id"]) == ("server/get_clock", "ab" * 16)
    assert after["peer_addr"] == FACTS["peer_addr"]
    assert after["capability_id"] == FACTS["capability_id"]
    assert isinstance(after["latency_ms"], float)
    assert "dropped_fields" not in after
    assert tracer.begun == [("request", {"service": "server", "route": "get_clock"})]
    assert tracer.ended == ["served"]
    get_logger("zipnet.node").info("thing_over")
    assert "corr_id" not in _lines(stream)[-1]


def test_a_refusal_is_named_and_goes_on(stream: io.StringIO) -> None:
    tracer = Kept()
    requests = RequestLog(tracer)
    with (
        pytest.raises(AdmissionError),
        requests.noting(PrincipalKind.OPERATOR, "admin", "status", {}),
    ):
        raise refusal("rate_limited", retry_after=1.0)
    with pytest.raises(ValueError, match="x"), requests.noting(PrincipalKind.WEB, "http", "r", {}):
        raise ValueError("x")
    assert [line["reason"] for line in _lines(stream)] == ["rate_limited", "failed"]
    assert tracer.ended == ["rate_limited", "failed"]


@pytest.mark.parametrize("kind", sorted(set(PrincipalKind) - NOTED_KINDS))
def test_nothing_is_noted_of_clients_and_readers(stream: io.StringIO, kind: PrincipalKind) -> None:
    tracer = Kept()
    with RequestLog(tracer).noting(kind, "server", "register", FACTS):
        get_logger("zipnet.node").info("thing_happened")
    assert [line["event"] for line in _lines(stream)] == ["thing_happened"]
    assert "corr_id" not in _lines(stream)[0]
    assert tracer.begun == []
    assert {kind.value for kind in set(PrincipalKind) - NOTED_KINDS} == {"client", "reader"}


def test_the_silent_one_notes_nobody_and_the_one_without_traces_writes_lines(
    stream: io.StringIO,
) -> None:
    with SILENT.noting(PrincipalKind.SERVER, "server", "get_clock", {}):
        pass
    assert _lines(stream) == []
    with RequestLog(NO_TRACES).noting(PrincipalKind.SERVER, "server", "get_clock", {}):
        pass
    assert "trace_id" not in _lines(stream)[0]

"""Promises of the logs: one format, known fields, nothing of a secret."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import pytest

from zipnet.errors import StorageError
from zipnet.observe.log import ALLOWED_FIELDS, configure_logging, dropped_fields, get_logger
from zipnet.protocol.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
CANARY = "c0ffee" * 11


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Logging to a buffer, as a node configures it; undone afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("zipnet")
    before = root.level, ours.level
    out = io.StringIO()
    configure_logging(service="zipnet-server", instance="acme.test", role="server", stream=out)
    yield out
    for handler in [known for known in root.handlers if known.get_name() == "zipnet"]:
        root.removeHandler(handler)
    root.setLevel(before[0])
    ours.setLevel(before[1])


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_says_when_who_and_what(stream: io.StringIO) -> None:
    get_logger("zipnet.node").info("round_finalized", round=7, participants=12)
    (line,) = _lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(line.pop("timestamp")))
    assert line == {
        "event": "round_finalized",
        "level": "info",
        "service": "zipnet-server",
        "zipnet_instance": "acme.test",
        "role": "server",
        "round": 7,
        "participants": 12,
    }


def test_unknown_fields_are_dropped_and_counted(stream: io.StringIO) -> None:
    before = dropped_fields()
    get_logger("zipnet.node").info("envelope_refused", client=CANARY, body=CANARY, reason="quota")
    (line,) = _lines(stream)
    assert CANARY not in stream.getvalue()
    assert line["dropped_fields"] == 2
    assert line["reason"] == "quota"
    assert dropped_fields() == before + 2


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(CANARY.encode(), id="bytes"),
        pytest.param(bytearray(CANARY.encode()), id="bytearray"),
        pytest.param([{"a": CANARY.encode()}], id="nested"),
        pytest.param(type("Thing", (), {"__repr__": lambda _: CANARY})(), id="an object's repr"),
        pytest.param({CANARY.encode(): 1}, id="bytes as a key"),
        pytest.param([[[[CANARY]]]], id="too deep"),
        pytest.param(Secret(CANARY.encode()), id="a Secret"),
    ],
)
def test_no_repr_of_a_value_gets_out(stream: io.StringIO, value: object) -> None:
    get_logger("zipnet.node").info("thing_happened", reason=value)
    assert CANARY not in stream.getvalue()
    assert _lines(stream)[0]["event"] == "thing_happened"


def test_exceptions_show_frames_but_no_locals_and_no_foreign_text(stream: io.StringIO) -> None:
    def fail(secret: str) -> None:
        raise ValueError(secret)

    try:
        fail(CANARY)
    except ValueError:
        get_logger("zipnet.node").exception("thing_failed")
    (line,) = _lines(stream)
    assert CANARY not in stream.getvalue()
    assert line["error_type"] == "ValueError"
    assert "in fail" in str(line["traceback"])


async def test_what_ended_a_group_of_tasks_is_named_with_where(stream: io.StringIO) -> None:
    async def fail(secret: str) -> None:
        raise KeyError(secret)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(CANARY))
    except ExceptionGroup:
        get_logger("zipnet.node").exception("thing_failed")
    (line,) = _lines(stream)
    assert CANARY not in stream.getvalue()
    assert line["error_type"] == "ExceptionGroup: KeyError"
    assert "in fail" in str(line["traceback"])


def test_our_own_errors_keep_their_words_and_reason(stream: io.StringIO) -> None:
    try:
        raise StorageError("journal is full")
    except StorageError:
        get_logger("zipnet.node").exception("write_failed")
    (line,) = _lines(stream)
    assert (line["error"], line["reason"]) == ("journal is full", "storage")


def test_other_libraries_come_out_in_the_same_format_without_addresses(stream: io.StringIO) -> None:
    log = logging.getLogger("quic")
    log.warning("datagram from %s and %s, token %s", "203.0.113.9:4433", "2001:db8::7", CANARY)
    log.info("chatter")
    (line,) = _lines(stream)
    assert (line["event"], line["logger"], line["service"]) == (
        "library_logged",
        "quic",
        "zipnet-server",
    )
    for leaked in ("203.0.113.9", "2001:db8", CANARY):
        assert leaked not in stream.getvalue()


def test_configuring_again_replaces_the_handler(stream: io.StringIO) -> None:
    second = io.StringIO()
    configure_logging(
        service="zipnet-server", instance="acme.test", role="server", stream=second, level="error"
    )
    get_logger("zipnet.node").error("thing_failed")
    get_logger("zipnet.node").info("thing_happened")
    assert stream.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_text_for_people_when_asked(stream: io.StringIO) -> None:
    out = io.StringIO()
    configure_logging(service="s", instance="acme.test", role="server", stream=out, json=False)
    get_logger("zipnet.node").info("round_finalized", round=7)
    assert "round_finalized" in out.getvalue()
    assert "round=7" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_the_library_is_silent_and_configures_nothing_until_asked() -> None:
    program = (
        "import logging; from zipnet.observe import get_logger; "
        "get_logger('zipnet.sdk').warning('thing_happened', reason='x'); "
        "assert logging.getLogger().handlers == []"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""


def test_a_module_that_only_logs_needs_no_metrics_library() -> None:
    program = "import sys, zipnet.observe; assert 'prometheus_client' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_every_call_site_uses_known_fields_and_a_snake_case_event() -> None:
    seen = 0
    wrong: list[str] = []
    for path in sorted((ROOT / "zipnet").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not _is_log_call(call):
                continue
            seen += 1
            where = f"{path.relative_to(ROOT)}:{call.lineno}"
            event = call.args[0] if call.args else None
            if isinstance(event, ast.Constant) and not re.fullmatch(
                r"[a-z]+(_[a-z0-9]+)+", str(event.value)
            ):
                wrong.append(f"{where} event {event.value!r}")
            fields = {str(keyword.arg) for keyword in call.keywords if keyword.arg is not None}
            unknown = fields - ALLOWED_FIELDS - {"exc_info"}
            wrong += [f"{where} field {name}" for name in sorted(unknown)]
    print("log call sites checked:", seen)
    assert wrong == []


def _is_log_call(node: ast.AST) -> TypeGuard[ast.Call]:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and isinstance(node.func.value, ast.Name | ast.Attribute)
        and (node.func.value.id if isinstance(node.func.value, ast.Name) else node.func.value.attr)
        in {"log", "_log", "logger", "_logger"}
    )

"""Logs: one line for each event, made of known fields only (protocol.md §8.5).

Nodes write JSON lines; a person at a terminal sees the same events in colour. Standard-library
loggers (aioquic, asyncio, uvicorn) come out through the same handler.

Rules:

1. The event is a snake_case past-tense verb phrase, everything else is a field:
   ``log.info("round_finalized", round=7, participants=12)``.
2. Fields come from :data:`ALLOWED_FIELDS`. The last processor drops and counts any other; the line
   says how many it lost as ``dropped_fields``.
3. Values are plain (text, numbers, booleans, None, lists and mappings of these). Anything else is
   replaced by the name of its type: a key or a body must not get out through a ``repr``.
4. Nothing about a client is a field: no id, address, digest or arrival time. ``peer`` and
   ``peer_addr`` are the short peer id and the address of a *node*, which its descriptor shows too.
5. Tracebacks are file, line and function. The text of a foreign exception is not kept, for it may
   quote its input; local variables are never shown.
6. Addresses, long hexadecimal and long base64 words in other libraries' free text are blanked.

The SDK only calls :func:`get_logger`; nothing is written until a program calls
:func:`configure_logging` or sets up the standard library's logging.

Example:
    >>> configure_logging(service="zipnet-server", instance="acme.test", role="server")
    >>> get_logger(__name__).info("node_ready", port=4433)
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter

from zipnet.errors import ZipnetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["ALLOWED_FIELDS", "configure_logging", "dropped_fields", "get_logger"]

ALLOWED_FIELDS = frozenset(
    {
        # Every line.
        "timestamp", "level", "event", "service", "zipnet_instance", "role", "corr_id",
        "dropped_fields", "logger", "text",
        # Errors.
        "reason", "code", "error", "hint", "error_type", "traceback", "retry_after_s", "attempt",
        # The node: where it listens, how it was set up.
        "version", "commit", "python", "profile", "posture", "transport", "host", "port",
        "metrics_port",
        "setting", "path", "state", "signal", "exit_code", "elapsed_s", "deadline_s", "mode",
        "engine", "us_per_client", "warning", "condition", "ready",
        # Requests of nodes and operators (never of clients or readers).
        "route", "latency_ms", "trace_id", "capability_id", "peer_addr",
        # Other nodes of the descriptor (never clients).
        "peer", "server", "aggregator", "node", "parent", "height", "up",
        # Consensus and storage.
        "leader", "term", "index", "entries", "bytes", "rebuilt", "caught_up",
        # Rounds, as the public record tells them.
        "round", "sequence", "participants", "slots_filled", "slots_void", "record_hash",
        "header_hash", "roster", "absent", "missing", "children", "registry_version",
        "registry_size", "descriptor_version", "kem_epoch", "group", "from_round", "to_round",
        "expected", "got", "count", "rounds", "connections", "subscribers",
    }
)  # fmt: skip
"""Fields a log line may carry. Adding one is a privacy decision: see ``docs/reference``."""

_MAX_TEXT = 500
_MAX_ITEMS = 64
_MAX_DEPTH = 3
_MAX_FRAMES = 12
_HANDLER_NAME = "zipnet"
_SENSITIVE = re.compile(
    r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?"  # IPv4
    r"|(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])"  # IPv6
    r"|[A-Za-z0-9_-]*[0-9a-fA-F]{16,}"  # ids, keys, digests
    r"|[A-Za-z0-9+/_-]{32,}={0,2}"  # base64
    r"|b(['\"]).*?\1"  # bytes literals
)
# Chatty at INFO, and about peers.
_QUIET_LIBRARIES = ("aioquic", "quic", "asyncio", "uvicorn", "pysyncobj", "urllib3")


class _Dropped:
    """Counts fields the allow-list kept out, for all loggers of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def add(self, count: int) -> None:
        with self._lock:
            self.count += count


_DROPPED = _Dropped()


def dropped_fields() -> int:
    """Return how many fields the allow-list has kept out of the logs of this process."""
    return _DROPPED.count


def get_logger(name: str = "zipnet", **initial: object) -> BoundLogger:
    """Return a logger whose lines always pass the redaction of this module.

    Args:
        name: Name of the standard-library logger behind it, by habit ``__name__``.
        initial: Fields every line of this logger carries.
    """
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=_chain(),
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=False,
    )
    # wrap_logger is typed as Any: it returns a lazy proxy of the wrapper class given above.
    return cast("BoundLogger", logger.bind(**initial))


def configure_logging(
    *,
    service: str,
    instance: str,
    role: str,
    stream: TextIO | None = None,
    json: bool | None = None,
    level: str = "info",
) -> None:
    """Send this process's logs to one stream, in one format; calling again replaces the first call.

    Args:
        service: Program name, such as ``zipnet-server``.
        instance: Name of the instance, the field ``zipnet_instance``.
        role: ``server``, ``aggregator``, ``client`` or ``reader``.
        stream: Where lines go; standard output when None.
        json: JSON lines or text for people; None asks whether the stream is a terminal.
        level: Least level written, ``debug`` … ``critical``. Other libraries: warnings at least.
    """
    out = sys.stdout if stream is None else stream
    is_terminal = out.isatty()
    as_json = not is_terminal if json is None else json
    constants = {"service": service, "zipnet_instance": instance, "role": role}
    handler = logging.StreamHandler(out)
    handler.set_name(_HANDLER_NAME)
    handler.setFormatter(
        _formatter(
            constants, as_json=as_json, colours=is_terminal and not os.environ.get("NO_COLOR")
        )
    )
    root = logging.getLogger()
    for old in [known for known in root.handlers if known.get_name() == _HANDLER_NAME]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("zipnet").setLevel(level.upper())
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)


def _formatter(constants: Mapping[str, str], *, as_json: bool, colours: bool) -> ProcessorFormatter:
    def add_constants(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        for name, value in constants.items():
            event.setdefault(name, value)
        return event

    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=24)
    )
    return ProcessorFormatter(
        foreign_pre_chain=[_foreign_event, *_common()],
        processors=[ProcessorFormatter.remove_processors_meta, add_constants, _allow, renderer],
    )


def _chain() -> list[Processor]:
    """Processors of our own loggers; the allow-list runs here too, for other people's handlers."""
    return [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        *_common(),
        _allow,
        ProcessorFormatter.wrap_for_formatter,
    ]


def _common() -> list[Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _describe_exception,
    ]


def _foreign_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Turn free text of another library into the event ``library_logged``."""
    record = event.get("_record")
    name = record.name if isinstance(record, logging.LogRecord) else "unknown"
    event["text"] = _SENSITIVE.sub("…", str(event.get("event", "")))
    event["event"] = "library_logged"
    event["logger"] = name
    return event


def _describe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace ``exc_info`` by type, our own message, and frames without locals (rule 5)."""
    info = event.pop("exc_info", None)
    error = info[1] if isinstance(info, tuple) else info
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["error_type"] = type(error).__name__
        frames = _frames(error)
        while isinstance(error, BaseExceptionGroup):  # a task's: what counts is what ended it
            error = error.exceptions[0]
            event["error_type"] += f": {type(error).__name__}"
            frames += _frames(error)
        if isinstance(error, ZipnetError):
            event.setdefault("error", str(error))
            event.setdefault("reason", error.reason)
        event["traceback"] = frames[-_MAX_FRAMES:]
    event.pop("stack_info", None)
    return event


def _frames(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]


def _allow(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep known fields with plain values; count what was dropped (rules 2 and 3)."""
    kept: dict[str, Any] = {}
    dropped = 0
    for name, value in event.items():
        # structlog's own bookkeeping is needed by ProcessorFormatter, which removes it.
        if name in ("_record", "_from_structlog"):
            kept[name] = value
        elif name in ALLOWED_FIELDS:
            kept[name] = _plain(value, _MAX_DEPTH)
        else:
            dropped += 1
    if dropped:
        _DROPPED.add(dropped)
        kept["dropped_fields"] = dropped
    return kept


def _plain(value: object, depth: int) -> object:
    """Return a bounded copy of plain values and the type's name for everything else."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value) if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "…"
    if depth > 0 and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth - 1) for item in list(value)[:_MAX_ITEMS]]
    if depth > 0 and isinstance(value, dict | MappingProxyType):
        pairs = list(value.items())[:_MAX_ITEMS]
        return {str(name): _plain(item, depth - 1) for name, item in pairs if isinstance(name, str)}
    return f"<{type(value).__name__}>"


# The convention for libraries: silent until a program asks for output.
logging.getLogger("zipnet").addHandler(logging.NullHandler())

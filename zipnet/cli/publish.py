"""``zipnet publish``: send messages and cover; one receipt per message on standard output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.cli.lines import Notes, stdin_lines
from zipnet.errors import ConfigError, LocalProtocolError, PublishError, Refused, ZipnetError
from zipnet.protocol.identity import Identity
from zipnet.protocol.slots import max_message_bytes
from zipnet.settings import load_client
from zipnet.settings.values import parse_duration_ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zipnet.machines.outgoing import Receipt
    from zipnet.sdk import Outbox, Publisher
    from zipnet.settings import ClientSettings

app = new_app("Publish messages anonymously, and send cover.")

_AT_ONCE = 16
_CLOSE_S = 5.0
_Text: TypeAlias = tuple[int | None, bytes]
"""A message, and the number of the line it stands in where it is one of several."""


@app.command()
def publish(
    descriptor: Annotated[
        Path | None, typer.Option("--descriptor", "-d", help="The instance's descriptor file.")
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Publish this text.")
    ] = None,
    messages: Annotated[
        Path | None, typer.Option("--messages", help="Publish each non-empty line of this file.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Publish each non-empty line of standard input.")
    ] = False,
    cover: Annotated[
        bool, typer.Option("--cover", help="Stay and send cover until stopped by a signal.")
    ] = False,
    timeout: Annotated[
        str, typer.Option("--timeout", help="Time for each message, such as 60s or 5m.")
    ] = "60s",
    transport: Annotated[str | None, typer.Option("--transport", help="quic or tls.")] = None,
    proxy: Annotated[
        str | None, typer.Option("--proxy", help="socks5://HOST:PORT for all links; with tls.")
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option("--secret-file", help="Secret of a lasting identity; fresh when left out."),
    ] = None,
    cadence: Annotated[
        str | None, typer.Option("--cadence", help="`always`, or N for every N-th round.")
    ] = None,
    settle: Annotated[
        int, typer.Option("--settle", help="Rounds of cover before the first message.", min=0)
    ] = 1,
    linger: Annotated[
        int, typer.Option("--linger", help="Rounds of cover after the last message.", min=0)
    ] = 0,
    state: Annotated[
        Path | None,
        typer.Option("--state", help="Folder of messages under way, for the run after a crash."),
    ] = None,
    operator: Annotated[
        str | None, typer.Option("--operator", help="Peer id the descriptor must be signed by.")
    ] = None,
    instance: Annotated[
        str | None, typer.Option("--instance", help="Name the descriptor must have.")
    ] = None,
    tdx_source: Annotated[
        str | None, typer.Option("--tdx-source", help="configfs, device or emulator.")
    ] = None,
    tdx_collateral: Annotated[
        Path | None, typer.Option("--tdx-collateral", help="Collateral of this machine's quotes.")
    ] = None,
    token: Annotated[
        Path | None, typer.Option("--token", help="Capability, where the nodes ask for one.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="development or production.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print receipts as JSON objects, one per line.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on the way.")] = False,
) -> None:
    """Broadcast messages so that nobody can tell who sent them.

    Without --message, --messages, --lines or --cover all of standard input is one message, less one
    line end. Exit code 0: every message stands in a verified record. 1: some message is not
    confirmed. 2: a setting or a message cannot be used. Ctrl-C ends it with what is known of each.

    With --state, and the --secret-file it is encrypted for, what a run could not bring to an end
    because it was killed is published by the next one, once.
    """
    flags: dict[str, object] = {
        "descriptor": descriptor,
        "transport": transport,
        "secret_file": secret_file,
        "cadence": cadence,
        "state": state,
        "operator": operator,
        "instance": instance,
        "tdx_source": tdx_source,
        "tdx_collateral": tdx_collateral,
        "token": token,
        "profile": profile,
    }
    settings = load_client(flags, os.environ, config)
    for warning in settings.warnings:
        output.note(f"warning: {warning}")
    limit = max_message_bytes(settings.descriptor.params)
    notes = Notes(quiet=quiet)
    work = _Work(
        _timeout_s(timeout),
        limit,
        as_json=as_json,
        notes=notes,
        proxy=proxy,
        settle_rounds=settle,
        linger_rounds=linger,
    )
    outbox = _outbox(settings)
    given = _given(message, messages, whole_input=not (lines or cover))
    for line, text in given:
        work.require_sendable(text, line)
    with outbox or contextlib.nullcontext():
        code = asyncio.run(_publish(settings, work, given, outbox, lines=lines, cover=cover))
    raise typer.Exit(code)


def _outbox(settings: ClientSettings) -> Outbox | None:
    """Open the messages under way of runs before, where the user keeps them."""
    if settings.state is None:
        return None
    from zipnet.sdk import Outbox

    if settings.secret is None:
        raise ConfigError(
            "setting STATE keeps messages under way, and no SECRET is given to encrypt them with",
            hint="write one with `zipnet keygen node` and give it as --secret-file",
        )
    try:
        settings.state.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"setting STATE: {settings.state} cannot be made: {error.strerror}",
            hint="write a folder only you can enter",
        ) from error
    return Outbox(settings.state / "outbox", settings.secret)


def _timeout_s(text: str) -> float:
    try:
        return parse_duration_ms(text) / 1000
    except ValueError as error:
        raise ConfigError(
            f"--timeout is {error}", hint="write a duration such as 60s, 500ms or 5m"
        ) from error


def _given(message: str | None, messages: Path | None, *, whole_input: bool) -> list[_Text]:
    """The messages that are known before anything is sent."""
    if message is not None and messages is not None:
        raise ConfigError("--message and --messages exclude each other")
    if message is not None:
        return [(None, message.encode())]
    if messages is not None:
        try:
            content = messages.read_bytes()
        except OSError as error:
            raise ConfigError(f"--messages: cannot read {messages}: {error.strerror}") from error
        return [(n, text) for n, text in enumerate(content.splitlines(), 1) if text.strip()]
    if not whole_input:
        return []
    return [(None, sys.stdin.buffer.read().removesuffix(b"\n").removesuffix(b"\r"))]


@dataclass(slots=True)
class _Work:
    """Messages being sent, and what became of them."""

    timeout_s: float
    limit: int
    as_json: bool
    notes: Notes
    proxy: str | None = None
    settle_rounds: int = 1
    linger_rounds: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    code: int = 0
    errors: list[ZipnetError] = field(default_factory=list)

    def require_sendable(self, text: bytes, line: int | None) -> None:
        where = "message" if line is None else f"line {line}"
        if not text:
            raise ConfigError(f"{where} is empty", hint="there is nothing to publish")
        if len(text) > self.limit:
            raise ConfigError(
                f"{where} is too long: {len(text)} bytes or more, {self.limit} can be sent",
                hint="nothing was sent; shorten it or split it",
            )

    def receipt(self, receipt: Receipt) -> None:
        """Print one receipt."""
        slots = [int(slot) for slot in receipt.slots]
        if not self.as_json:
            numbers = ",".join(str(slot) for slot in slots)
            identifier = receipt.message_id.hex()
            output.data(f"published round={receipt.round} slot={numbers} message_id={identifier}")
            return
        output.json_line(
            {
                "round": receipt.round,
                "slot": slots[0],
                "slots": slots,
                "message_id": receipt.message_id.hex(),
                "participants": receipt.participants,
                "sequence": receipt.sequence,
            }
        )


async def _publish(
    settings: ClientSettings,
    work: _Work,
    given: list[_Text],
    outbox: Outbox | None,
    *,
    lines: bool,
    cover: bool,
) -> int:
    from zipnet.sdk import Publisher, every

    loop = asyncio.get_running_loop()

    def stop() -> None:
        work.stop.set()
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C does not wait

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    publisher = Publisher(
        settings.descriptor,
        identity=Identity.from_secret(settings.secret) if settings.secret else None,
        transport=settings.transport,
        proxy=work.proxy,
        cover=every(settings.cover_every),
        settle_rounds=work.settle_rounds,
        linger_rounds=work.linger_rounds,
        outbox=outbox,
        platform=settings.platform,
        capability=settings.capability,
        servers_at=[(endpoint.host, endpoint.port) for endpoint in settings.server_endpoints],
        on_trouble=work.notes.trouble,
        on_warning=work.notes.warning,
    )
    leaving = asyncio.create_task(_leave(publisher, work))
    try:
        async with publisher:
            if outbox is not None:
                await _recover(publisher, work)
            sending = asyncio.create_task(
                _send_all(publisher, work, given, lines=lines, cover=cover)
            )
            announcing = asyncio.create_task(_announce(publisher, work))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait({sending}, timeout=_CLOSE_S)
            finally:
                sending.cancel()
                announcing.cancel()
                await asyncio.wait({announcing})
                with contextlib.suppress(asyncio.CancelledError):
                    await sending
    finally:
        leaving.cancel()
    return _conclude(work, single=len(given) == 1 or not (given or lines))


async def _leave(publisher: Publisher, work: _Work) -> None:
    """Once a signal has come: what is under way ends with what is known about it."""
    await work.stop.wait()
    await publisher.close()


async def _recover(publisher: Publisher, work: _Work) -> None:
    """Bring to an end what a run before this one left behind."""
    for outcome in await publisher.recover(timeout=work.timeout_s):
        if isinstance(outcome, PublishError):
            output.note(f"error: of an earlier run: {outcome.message_line}")
            work.code = max(work.code, outcome.exit_code)
        else:
            work.receipt(outcome)


async def _announce(publisher: Publisher, work: _Work) -> None:
    with contextlib.suppress(ZipnetError):  # told where it is waited for
        await publisher.when.registered()
        work.notes.tell("registered; taking part in rounds")


async def _send_all(
    publisher: Publisher, work: _Work, given: list[_Text], *, lines: bool, cover: bool
) -> None:
    """Send what is given, then what comes in, then stay for cover if asked to."""
    places = asyncio.Semaphore(_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        async for line, text in _texts(given, work, lines=lines):
            try:
                work.require_sendable(text, line)
            except ConfigError as error:
                output.note(f"error: {error.message_line}")
                work.code = max(work.code, error.exit_code)
                continue
            await places.acquire()
            group.create_task(_send(publisher, work, text, places))
        if cover:
            try:
                await publisher.when.closed()
            except ZipnetError as error:
                work.errors.append(error)


async def _texts(given: list[_Text], work: _Work, *, lines: bool) -> AsyncIterator[_Text]:
    for item in given:
        yield item
    if not lines:
        return
    number = 0
    async for text in stdin_lines(work.limit, until=work.stop):
        number += 1
        if text.strip():
            yield number, text


async def _send(publisher: Publisher, work: _Work, text: bytes, places: asyncio.Semaphore) -> None:
    try:
        work.receipt(await publisher.publish(text, timeout=work.timeout_s))
    except ZipnetError as error:
        work.errors.append(error)
    finally:
        places.release()


def _conclude(work: _Work, *, single: bool) -> int:
    """Return the exit code; a single message's failure is raised and becomes the error line."""
    errors = [_cause(error) for error in work.errors]
    if errors and single:
        raise errors[0]
    for error in errors:
        output.note(f"error: {error.message_line}")
    return max([work.code, *(error.exit_code for error in errors)])


def _cause(error: ZipnetError) -> ZipnetError:
    """The mismatch of settings behind a refusal, where there is one: it decides the exit code."""
    cause = error.__cause__
    if isinstance(error, Refused) and isinstance(cause, ConfigError):
        return cause
    if isinstance(error, LocalProtocolError):
        return ConfigError(str(error), hint=error.hint)
    return error

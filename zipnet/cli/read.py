"""``zipnet read``: what was broadcast, verified, on standard output."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.cli.lines import Notes, printable, stranger_json, time_of
from zipnet.errors import ConfigError
from zipnet.machines.reader import Advanced, Message, MessageLost
from zipnet.settings import load_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zipnet.machines.reader import ReaderEffect
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.settings import ClientSettings
    from zipnet.storage.records import RecordLog

app = new_app("Read what was broadcast, and verify it.")


@app.command()
def read(
    descriptor: Annotated[
        Path | None, typer.Option("--descriptor", "-d", help="The instance's descriptor file.")
    ] = None,
    from_sequence: Annotated[
        int, typer.Option("--from", min=0, help="Sequence number of the first record to read.")
    ] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for what is broadcast later.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Stop after this many.")
    ] = None,
    records: Annotated[
        bool, typer.Option("--records", help="Print records instead of messages.")
    ] = False,
    records_dir: Annotated[
        Path | None,
        typer.Option("--records-dir", help="Read and verify a server's record folder, offline."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", help="Judge the descriptor's validity at this time; --records-dir."),
    ] = None,
    transport: Annotated[str | None, typer.Option("--transport", help="quic or tls.")] = None,
    proxy: Annotated[
        str | None, typer.Option("--proxy", help="socks5://HOST:PORT for all links; with tls.")
    ] = None,
    operator: Annotated[
        str | None, typer.Option("--operator", help="Peer id the descriptor must be signed by.")
    ] = None,
    instance: Annotated[
        str | None, typer.Option("--instance", help="Name the descriptor must have.")
    ] = None,
    token: Annotated[
        Path | None, typer.Option("--token", help="Capability, where the servers ask for one.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON objects, one per line.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on the way.")] = False,
) -> None:
    """Print messages that were broadcast, each only after its records were verified.

    Everything is checked with the descriptor alone: signatures, rosters, slots and the chain of
    records from the first one read on. Exit code 1: something does not verify, or nobody answers.
    """
    flags: dict[str, object] = {
        "descriptor": descriptor,
        "transport": transport,
        "operator": operator,
        "instance": instance,
        "token": token,
    }
    if at is not None and records_dir is None:
        raise ConfigError("--at is for --records-dir", hint="a network is judged by the time it is")
    settings = load_client(flags, os.environ, config, now=time_of(at))
    for warning in settings.warnings:
        output.note(f"warning: {warning}")
    printer = _Printer(records=records, as_json=as_json, limit=limit, notes=Notes(quiet=quiet))
    if records_dir is not None:
        if follow:
            raise ConfigError("--follow and --records-dir exclude each other")
        _read_folder(settings, records_dir, printer, from_sequence)
    else:
        asyncio.run(_read(settings, printer, from_sequence, follow=follow, proxy=proxy))


class _Printer:
    """Prints what a reader tells, until the limit is reached."""

    def __init__(self, *, records: bool, as_json: bool, limit: int | None, notes: Notes) -> None:
        self._records = records
        self._as_json = as_json
        self._left = limit
        self.notes = notes

    def take(self, effect: ReaderEffect) -> bool:
        """Print one effect if it is asked for; tells whether to go on."""
        if isinstance(effect, MessageLost):
            self.notes.tell(
                f"note: gave up a message: {effect.received} of {effect.count} fragments came"
            )
        if isinstance(effect, Advanced if self._records else Message):
            self._print(effect)
            if self._left is not None:
                self._left -= 1
        return self._left != 0

    def _print(self, effect: ReaderEffect) -> None:
        if isinstance(effect, Message):
            self._print_message(effect)
        elif isinstance(effect, Advanced):
            self._print_record(effect.record)

    def _print_message(self, message: Message) -> None:
        slots = [int(slot) for slot in message.slots]
        try:
            text: str | None = message.payload.decode()
        except UnicodeDecodeError:
            text = None
        if not self._as_json:
            shown = f"(hex) {message.payload.hex()}" if text is None else printable(text)
            output.data(f"round {message.round} slot {','.join(map(str, slots))}: {shown}")
            return
        what = {"message_hex": message.payload.hex()} if text is None else {"message": text}
        stranger_json(
            {
                "round": message.round,
                "slot": slots[0],
                **what,
                "verified": True,
                "sequence": message.sequence,
                "slots": slots,
                "message_id": message.message_id.hex(),
            }
        )

    def _print_record(self, record: VerifiedRecord) -> None:
        content = record.record.content
        states = Counter(state.name.lower() for state in content.states)
        if self._as_json:
            output.json_line(
                {
                    "sequence": record.sequence,
                    "round": record.round,
                    "hash": record.hash.hex(),
                    "participants": content.participants,
                    "roster": [int(server) for server in content.header.roster],
                    "valid": states["valid"],
                    "void": states["void"],
                    "empty": states["empty"],
                    "verified": True,
                }
            )
            return
        output.data(
            f"record {record.sequence} round {record.round} participants {content.participants} "
            f"valid {states['valid']} void {states['void']} hash {record.hash.hex()}"
        )


async def _read(
    settings: ClientSettings,
    printer: _Printer,
    from_sequence: int,
    *,
    follow: bool,
    proxy: str | None,
) -> None:
    from zipnet.sdk import Reader

    async with Reader(
        settings.descriptor,
        transport=settings.transport,
        proxy=proxy,
        from_sequence=from_sequence,
        follow=follow,
        servers_at=[(endpoint.host, endpoint.port) for endpoint in settings.server_endpoints],
        capability=settings.capability,
        on_trouble=printer.notes.trouble,
    ) as reader:
        async for effect in reader.events():
            if not printer.take(effect):
                return


def _read_folder(
    settings: ClientSettings, folder: Path, printer: _Printer, from_sequence: int
) -> None:
    from zipnet.sdk import read_records
    from zipnet.storage.records import RecordLog

    if not folder.is_dir():
        raise ConfigError(f"--records-dir: {folder} is not a folder")
    if not any(folder.glob("records-*.log")) and any(folder.iterdir()):
        raise ConfigError(
            f"--records-dir: {folder} holds no records", hint="name STATE/records, or an archive"
        )
    trusted = settings.descriptor
    verified = 0
    with closing(RecordLog.open_readonly(folder, group=trusted.group)) as log:
        for effect in read_records(
            _stored(log, from_sequence), trusted, from_sequence=from_sequence
        ):
            verified += isinstance(effect, Advanced)
            if not printer.take(effect):
                break
    printer.notes.tell(f"note: {verified} records verified")


def _stored(log: RecordLog, from_sequence: int) -> Iterator[bytes]:
    for sequence in range(from_sequence, log.next_sequence):
        yield from log.read(sequence, 1)

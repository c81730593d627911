"""``zipnet archive``: keep an instance's records for good, and prove them to others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.cli.lines import Notes, time_of
from zipnet.errors import ConfigError, VerificationError, ZipnetError
from zipnet.ledger.ranges import MAX_LINE_BYTES
from zipnet.settings import load_client
from zipnet.settings.values import parse_duration_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zipnet.machines.bookmark import Bookmark
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.sdk import Reader
    from zipnet.sdk.archive import Archive
    from zipnet.settings import ClientSettings

app = new_app("Keep an instance's records for good, and prove them to others.")

_ALL = 1_000_000_000
_SERVED = 0o755
_SIZE_AND_ROOT = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")
_Folder = Annotated[Path, typer.Argument(help="Folder of the archive.")]
_Descriptor = Annotated[
    Path | None, typer.Option("--descriptor", "-d", help="The instance's descriptor file.")
]
_Operator = Annotated[
    str | None, typer.Option("--operator", help="Peer id the descriptor must be signed by.")
]
_Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
_At = Annotated[
    str | None,
    typer.Option("--at", help="Judge the descriptor's validity at this time; now without."),
]


def _settings(
    descriptor: Path | None,
    operator: str | None,
    config: Path | None,
    at: str | None = None,
    **more: object,
) -> ClientSettings:
    flags = {"descriptor": descriptor, "operator": operator, **more}
    settings = load_client(flags, os.environ, config, now=time_of(at))
    for warning in settings.warnings:
        output.note(f"warning: {warning}")
    return settings


@app.command()
def pull(
    folder: _Folder,
    descriptor: _Descriptor = None,
    every: Annotated[
        str | None, typer.Option("--every", help="Pull again and again, such as 10m; else once.")
    ] = None,
    transport: Annotated[str | None, typer.Option("--transport", help="quic or tls.")] = None,
    proxy: Annotated[
        str | None, typer.Option("--proxy", help="socks5://HOST:PORT for all links; with tls.")
    ] = None,
    operator: _Operator = None,
    token: Annotated[
        Path | None, typer.Option("--token", help="Capability, where the servers ask for one.")
    ] = None,
    config: _Config = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on the way.")] = False,
) -> None:
    """Verify and store every record that is not in the folder yet.

    Goes on where the last pull ended, also after a crash. With --every it runs until SIGTERM or
    Ctrl-C, and goes on when no server answers.
    """
    from zipnet.sdk.archive import Archive

    settings = _settings(descriptor, operator, config, transport=transport, token=token)
    pause_s = None if every is None else _duration_s(every)
    notes = Notes(quiet=quiet)
    known = asyncio.run(_with_earlier(settings, notes, proxy))
    with Archive(folder, known) as archive:
        asyncio.run(_pull(archive, settings, notes, proxy, pause_s))


def _duration_s(text: str) -> float:
    try:
        return parse_duration_ms(text) / 1000
    except ValueError:
        raise ConfigError("--every is no duration", hint="write one such as 30s or 10m") from None


async def _with_earlier(
    settings: ClientSettings, notes: Notes, proxy: str | None
) -> TrustedDescriptor:
    """Return the descriptor with the versions before it, which old records may be of."""
    async with _reader(settings, settings.descriptor, notes, proxy) as reader:
        return await reader.with_earlier()


def _reader(
    settings: ClientSettings,
    known: TrustedDescriptor,
    notes: Notes,
    proxy: str | None,
    resume: Bookmark | None = None,
) -> Reader:
    """Return a reader of the servers as the newest version that is known has them."""
    from zipnet.node.live_descriptor import moved_endpoints
    from zipnet.sdk import Reader

    endpoints = moved_endpoints(settings.server_endpoints, settings.descriptor, known)
    return Reader(
        known,
        transport=settings.transport,
        proxy=proxy,
        resume=resume,
        follow=False,
        servers_at=[(endpoint.host, endpoint.port) for endpoint in endpoints],
        capability=settings.capability,
        on_trouble=notes.trouble,
    )


async def _pull(
    archive: Archive,
    settings: ClientSettings,
    notes: Notes,
    proxy: str | None,
    pause_s: float | None,
) -> None:
    stop = asyncio.Event()
    if pause_s is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    while not stop.is_set():
        pulling = asyncio.create_task(_pull_once(archive, settings, notes, proxy))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({pulling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not pulling.done():  # what is stored stays; the rest is for the next pull
            pulling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pulling
            return
        _told(pulling, archive, notes, again=pause_s is not None)
        if pause_s is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await stop.wait()


async def _pull_once(
    archive: Archive, settings: ClientSettings, notes: Notes, proxy: str | None
) -> int:
    async with _reader(settings, archive.descriptor, notes, proxy, archive.bookmark) as reader:
        # Asked first: what they are of is in the log that is pulled then.
        found = await reader.checkpoints()
        count = await archive.pull(reader)
        for checkpoint in found.values():
            archive.hold_against(checkpoint)
        return count


def _told(pulling: asyncio.Task[int], archive: Archive, notes: Notes, *, again: bool) -> None:
    try:
        count = pulling.result()
    except VerificationError:
        raise  # the servers tell another story than before: nothing to wait for
    except ZipnetError as error:
        if not again or error.exit_code != 1:
            raise
        notes.tell(f"note: {error.message_line}")
    else:
        output.data(f"archived {count} records, {len(archive)} in all, head {archive.head.hex()}")


@app.command()
def verify(
    source: Annotated[Path, typer.Argument(help="Folder of the archive, or an exported range.")],
    descriptor: _Descriptor = None,
    extends: Annotated[
        str | None,
        typer.Option("--extends", help="SIZE:ROOT an earlier verification printed."),
    ] = None,
    operator: _Operator = None,
    at: _At = None,
    config: _Config = None,
) -> None:
    """Verify every signature and the chain of records, with the descriptor and nothing else.

    Prints the root of the tree over all records of an archive: two people who see the same root
    have the same log, and --extends proves that it grew out of one seen before. Where the
    descriptor has expired, --at a time of its validity says what was signed until then.
    """
    from zipnet.sdk.archive import Archive, verify_range

    settings = _settings(descriptor, operator, config, at)
    if source.is_dir():
        with Archive(source, settings.descriptor, readonly=True) as archive:
            tree = archive.verify()
            if extends is not None:
                size, root = _seen(extends)
                if tree.root(size) != root:
                    raise VerificationError(f"the first {size} records are not those seen before")
            kept = archive.checkpoint
            signed = "no checkpoint"
            if kept is not None:
                if tree.root(kept.checkpoint.size) != kept.checkpoint.root:
                    raise VerificationError("the checkpoint is not of the records in the archive")
                servers = ",".join(map(str, sorted(kept.servers)))
                signed = f"checkpoint at {kept.checkpoint.size} signed by {servers}"
            output.data(
                f"archive ok: {tree.size}:{tree.root().hex()} head {archive.head.hex()} {signed}"
            )
        return
    if extends is not None:
        raise ConfigError("--extends is for archives; a range names its root itself")
    sequences = [record.sequence for record in verify_range(_lines(source), settings.descriptor)]
    output.data(f"range ok: records {sequences[0]} to {sequences[-1]}")


@app.command()
def tiles(
    folder: _Folder,
    descriptor: _Descriptor = None,
    out: Annotated[Path | None, typer.Option("--out", help="New folder of the files.")] = None,
    operator: _Operator = None,
    at: _At = None,
    config: _Config = None,
) -> None:
    """Write the archive as a static transparency log (c2sp.org/tlog-tiles), for any web server.

    Prints the committee's keys as other tools take them.
    """
    from zipnet.ledger.checkpoint import checkpoint_key
    from zipnet.protocol.ids import ServerIndex
    from zipnet.sdk.archive import Archive

    if out is None or out.exists():
        raise ConfigError("--out names no new folder", hint="name one that does not exist yet")
    settings = _settings(descriptor, operator, config, at)
    with Archive(folder, settings.descriptor, readonly=True) as archive:
        try:
            _write_folder(out, archive.tiles())
        except OSError as error:
            raise ConfigError(f"cannot write {out}: {error.strerror}") from error
        newest = archive.descriptor
    for index in range(len(newest.committee)):
        output.data(checkpoint_key(newest, ServerIndex(index)).verifier_key)


def _write_folder(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write all of a new folder, or none of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in files:
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        beside.chmod(_SERVED)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _seen(text: str) -> tuple[int, bytes]:
    found = _SIZE_AND_ROOT.fullmatch(text)
    if found is None:
        raise ConfigError(
            "--extends is not SIZE:ROOT", hint="give it as `zipnet archive verify` printed it"
        )
    return int(found[1]), bytes.fromhex(found[2])


@app.command()
def export(
    folder: _Folder,
    descriptor: _Descriptor = None,
    out: Annotated[Path | None, typer.Option("--out", help="New file of the range.")] = None,
    first: Annotated[int, typer.Option("--from", min=0, help="First record.")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many.")] = 1
    << 40,
    operator: _Operator = None,
    at: _At = None,
    config: _Config = None,
) -> None:
    """Write a range of records that proves itself to whoever has the descriptor."""
    from zipnet.sdk.archive import Archive

    if out is None:
        raise ConfigError("--out is missing", hint="name the file to write")
    settings = _settings(descriptor, operator, config, at)
    with Archive(folder, settings.descriptor, readonly=True) as archive:
        output.write_whole(out, archive.export(first, limit))
    output.data(f"exported to {out}")


@app.command()
def restore(
    folder: _Folder,
    ranges: Annotated[list[Path], typer.Argument(help="Exported ranges, in their order.")],
    descriptor: _Descriptor = None,
    operator: _Operator = None,
    at: _At = None,
    config: _Config = None,
) -> None:
    """Verify exported ranges and store what extends the archive."""
    from zipnet.sdk.archive import Archive

    settings = _settings(descriptor, operator, config, at)
    with Archive(folder, settings.descriptor) as archive:
        count = sum(archive.restore(_lines(path)) for path in ranges)
        output.data(f"restored {count} records, {len(archive)} in all, head {archive.head.hex()}")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                yield line
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error

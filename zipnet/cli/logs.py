"""``zipnet logs``: put logs away sealed, for thirty days, and read them again."""

from __future__ import annotations

import base64
import binascii
import os
import re
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zipnet.cli import output
from zipnet.cli.app import new_app
from zipnet.errors import ConfigError
from zipnet.protocol.kem import KEM_PUBLIC_BYTES, KemKeyPair
from zipnet.settings.bounded import read_bounded
from zipnet.settings.keyfiles import create_secret_file, public_path, write_new
from zipnet.settings.secretfiles import read_secret_file
from zipnet.storage.sealedlog import CHUNK_BYTES, open_sealed, seal

if TYPE_CHECKING:
    from collections.abc import Iterator

app = new_app("Put logs away sealed, and read them again.")

_PREFIX = "zipnet-log-key-1 "
_MAX_KEY_BYTES = 4096
_SUFFIX = ".znlog"
_NAME = re.compile(r"(\d{4}-\d{2}-\d{2})(-\d+)?\.(znlog|part)")  # a part: it was killed
_SECRET = Annotated[Path, typer.Option("--key", help="The secret: keep it off the hosts.")]


@app.command()
def keygen(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File the secret goes to; must not exist.")
    ],
) -> None:
    """Make a key for sealed logs: FILE opens them, FILE.pub seals."""
    create_secret_file(out, os.urandom)
    keys = _key_pair(out)
    encoded = base64.b64encode(keys.public).decode()
    keys.close()
    try:
        write_new(public_path(out), f"{_PREFIX}{encoded}\n", mode=0o644)
    except ConfigError:
        out.unlink()
        raise
    output.note(f"wrote {out} (0600) and {public_path(out)}: hosts need the second only")


@app.command(name="seal")
def seal_(
    key: Annotated[Path, typer.Option("--key", help="Public file of the key.")],
    folder: Annotated[Path, typer.Option("--dir", help="Folder of sealed logs.")],
    day: Annotated[
        str | None, typer.Option("--day", help="Day of the logs, as 2026-01-31; else yesterday.")
    ] = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Days sealed logs are kept.")] = 30,
) -> None:
    """Seal standard input as one file of a day, then delete files older than --keep days.

    The file appears under its name only when all of it is on disk.
    """
    public = _public(key)
    today = datetime.fromtimestamp(time.time(), UTC).date()
    of = today - timedelta(days=1) if day is None else _day(day)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", hint="make it, with mode 0700")
    path = _free(folder, of)
    partial = path.with_suffix(".part")
    try:
        with partial.open("xb") as file:
            try:
                file.writelines(seal(_stdin(), public, os.urandom))
                file.flush()
                os.fsync(file.fileno())
                partial.rename(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    dropped = _prune(folder, today - timedelta(days=keep))
    output.data(f"sealed {path.name}, deleted {dropped} older than {keep} days")


@app.command(name="open")
def open_(
    file: Annotated[Path, typer.Argument(help="A sealed log.")],
    key: _SECRET,
) -> None:
    """Write a sealed log to standard output; exit code 1 where it was altered or cut off."""
    keys = _key_pair(key)
    try:
        with file.open("rb") as sealed:
            for piece in open_sealed(sealed.read, keys):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # whoever read our output went away; the log is as it was
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    finally:
        keys.close()


def _stdin() -> Iterator[bytes]:
    while piece := sys.stdin.buffer.read(CHUNK_BYTES):
        yield piece


def _key_pair(path: Path) -> KemKeyPair:
    secret, _ = read_secret_file(path, what="log key")
    with secret:
        return KemKeyPair.from_seed(secret)


def _public(path: Path) -> bytes:
    text = read_bounded(path, _MAX_KEY_BYTES, what="log key").decode("utf-8", "replace").strip()
    try:
        public = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        public = b""
    if not text.startswith(_PREFIX) or len(public) != KEM_PUBLIC_BYTES:
        raise ConfigError(
            f"{path} is no public key for logs", hint="make one with `zipnet logs keygen`"
        )
    return public


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError("--day is no day", hint="write it as 2026-01-31") from None


def _free(folder: Path, of: date) -> Path:
    """Return the first name of a day that is free: what was sealed is never written over."""
    path, number = folder / f"{of}{_SUFFIX}", 1
    while path.exists() or path.with_suffix(".part").exists():
        number += 1
        path = folder / f"{of}-{number}{_SUFFIX}"
    return path


def _prune(folder: Path, before: date) -> int:
    dropped = 0
    for path in sorted(folder.iterdir()):
        found = _NAME.fullmatch(path.name)
        if found and _day(found[1]) < before:
            path.unlink()
            dropped += 1
    return dropped

"""Keeping an instance's records for good, without trusting whoever serves them (rows Z24, L12).

An archive is a folder with the record log of one group, in the format a server keeps it in. What
comes into it was verified like everything a reader shows, and extends what is there already: a
pull goes on where the last one ended, also after a crash.

The servers' checkpoints of the log are held against it, and the newest is kept beside the records
as a signed note that any tool of transparency logs reads, like the tiles made of an archive.

Ranges of it are files that prove themselves (``zipnet.ledger.ranges``); an archive can be restored
from them.
"""

from __future__ import annotations

from contextlib import ExitStack, aclosing
from typing import TYPE_CHECKING, Final, Self

from zipnet.errors import ConfigError, StorageError, VerificationError
from zipnet.ledger.checkpoint import checkpoint_keys, open_checkpoint
from zipnet.ledger.note import MAX_NOTE_BYTES
from zipnet.ledger.ranges import RangeHead, RangeItem, RangeTree, read_range, write_range
from zipnet.ledger.tiles import tiles_of
from zipnet.machines.bookmark import Bookmark
from zipnet.machines.reader import Advanced
from zipnet.protocol.descriptor import MAX_DESCRIPTOR_BYTES, parse_descriptor
from zipnet.protocol.record import (
    ZERO_RECORD_HASH,
    decode_record,
    require_extends,
    verify_record,
)
from zipnet.protocol.succession import link_earlier, succeed
from zipnet.sdk.offline import read_records
from zipnet.settings.bounded import read_bounded
from zipnet.settings.keyfiles import write_over
from zipnet.storage.files import OsFiles
from zipnet.storage.records import RecordLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from zipnet.ledger.checkpoint import VerifiedCheckpoint
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.ids import Digest
    from zipnet.protocol.record import VerifiedRecord
    from zipnet.sdk.reader import Reader
    from zipnet.storage.files import File

__all__ = ["Archive", "verify_range"]

_CHECKPOINT: Final = "checkpoint"


class Archive:
    """The records of one group in a folder.

    Args:
        folder: Folder of the archive; made where it is missing.
        descriptor: The instance, verified.
        readonly: Only to verify and export, also while another process pulls.

    Raises:
        ConfigError: When the folder holds another instance's records, or cannot be written.
        StorageError: When what is stored is damaged, or another process pulls into it.
        VerificationError: When the newest record stored does not verify.
    """

    def __init__(
        self, folder: Path, descriptor: TrustedDescriptor, *, readonly: bool = False
    ) -> None:
        if readonly and not folder.is_dir():
            raise ConfigError(f"{folder} is no archive", hint="make one with `zipnet archive pull`")
        self._folder = folder
        self._descriptor = _with_kept_versions(descriptor, folder)
        self._last: VerifiedRecord | None = None
        with ExitStack() as opening:
            if not readonly:
                opening.callback(_lock(folder).close)
            self._log = RecordLog(folder, group=descriptor.group, readonly=readonly)
            opening.callback(self._log.close)
            if len(self):
                (data,) = self._log.read(len(self) - 1, 1)
                self._last = _verified(data, self._descriptor, len(self) - 1)
            if not readonly:
                self._write_versions(self._descriptor)
            self._opened = opening.pop_all()
        self._hashes: list[bytes] = []

    def __enter__(self) -> Self:
        """Return the archive."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self._opened.close()

    def __len__(self) -> int:
        """How many records there are."""
        return self._log.next_sequence

    @property
    def head(self) -> Digest:
        """Hash of the newest record; zeros while there is none."""
        return ZERO_RECORD_HASH if self._last is None else self._last.hash

    @property
    def bookmark(self) -> Bookmark | None:
        """Where a reader has to go on; None from the beginning."""
        if self._last is None:
            return None
        version = self._last.record.content.header.descriptor_version
        return Bookmark(len(self), self._last.hash, len(self), int(version))

    @property
    def checkpoint(self) -> VerifiedCheckpoint | None:
        """The newest checkpoint that was held against the archive, None where there is none.

        Raises:
            RemoteProtocolError: When the file holds no checkpoint.
            VerificationError: When no server of this instance signed it.
        """
        file = self._folder / _CHECKPOINT
        if not file.is_file():
            return None
        return open_checkpoint(
            read_bounded(file, MAX_NOTE_BYTES, what="checkpoint"), self._descriptor
        )

    def hold_against(self, found: VerifiedCheckpoint) -> bool:
        """Hold a server's checkpoint against what is stored, and keep it where it is the newest.

        Checkpoints of several servers at one size are kept as one note with all their signatures,
        and with nobody else's: a server could add lines until no note can hold them.
        Returns False where the archive is not as long yet.

        Raises:
            VerificationError: When a server signed another log than the one that is stored, whose
                records the whole committee signed. The note is kept as a file, as a proof.
        """
        size, root = found.checkpoint.size, found.checkpoint.root
        if size > len(self):
            return False
        if self._tree().root(size) != root:
            servers = "-".join(map(str, sorted(found.servers)))
            proof = self._folder / f"contradiction-{servers}-{size}.note"
            write_over(proof, found.note.encode().decode())
            raise VerificationError(
                f"server {servers} signed a checkpoint of another log at {size} records",
                hint=f"{proof} proves it against the records here: show both to the operators",
            )
        kept, note = self.checkpoint, found.note
        if kept is not None and kept.checkpoint.size > size:
            return True
        if kept is not None and kept.checkpoint == found.checkpoint:
            note = kept.note.merged(note.signatures)
        note = note.only(checkpoint_keys(self._descriptor))
        write_over(self._folder / _CHECKPOINT, note.encode().decode())
        return True

    def tiles(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of the files that make the archive a static transparency log.

        The log they are of ends with the newest checkpoint, which comes last.

        Raises:
            ConfigError: When there is no checkpoint yet.
            VerificationError: When the archive or the checkpoint does not verify.
        """
        kept = self.checkpoint
        if kept is None:
            raise ConfigError("the archive has no checkpoint", hint="pull while servers answer")
        tree = self.verify()
        if tree.root(kept.checkpoint.size) != kept.checkpoint.root:
            raise VerificationError("the checkpoint is not of the records in the archive")
        yield from tiles_of(self._hashes[: kept.checkpoint.size])
        yield _CHECKPOINT, kept.note.encode()

    def _tree(self) -> RangeTree:
        """Return the tree over what is stored; every record was verified when it was stored."""
        for data in self._stored(len(self._hashes), len(self)):
            self._hashes.append(decode_record(data, self._descriptor.params).content.hash)
        return RangeTree(self._hashes)

    async def pull(self, reader: Reader, *, on_record: Callable[[int], None] | None = None) -> int:
        """Store what a reader tells that begins at :attr:`bookmark`; returns how many records.

        Args:
            reader: Not read yet; where it follows, this goes on until it is cancelled.
            on_record: Told the number of records after each one that is durable.

        Raises:
            VerificationError: When the servers' log does not extend what is stored.
            SafeMode: When the disk fails.
            ZipnetError: When no server could serve.
        """
        before = len(self)
        async with aclosing(reader.events()) as events:
            async for event in events:
                if isinstance(event, Advanced):
                    self._keep_versions(reader.descriptor)
                    self._append(event.record)
                    if on_record is not None:
                        on_record(len(self))
        return len(self) - before

    @property
    def descriptor(self) -> TrustedDescriptor:
        """The newest version of the descriptor known here, with those before it."""
        return self._descriptor

    def _keep_versions(self, known: TrustedDescriptor) -> None:
        """Keep the versions a reader has learned of: records are verified with theirs for ever."""
        if (known.version, len(known.earlier)) <= (
            self._descriptor.version,
            len(self._descriptor.earlier),
        ):
            return
        self._write_versions(known)
        self._descriptor = known

    def _write_versions(self, known: TrustedDescriptor) -> None:
        """Keep the first one too: whoever opens the archive later may have a later one only."""
        for version in (*known.earlier, known):
            path = self._folder / f"descriptor-{version.version:06}.toml"
            if not path.exists():
                write_over(path, version.descriptor.file.decode())

    def _append(self, record: VerifiedRecord) -> None:
        require_extends(record, self._last)  # a reader that resumes has not seen the last one
        self._log.append(record.sequence, record.record.encode())
        self._last = record

    def verify(self) -> RangeTree:
        """Verify every record and the whole chain; returns the tree over their hashes.

        Raises:
            StorageError: When one is damaged.
            RemoteProtocolError: When one is no record.
            VerificationError: When one does not verify or does not extend the one before it.
        """
        told = read_records(self._stored(0, len(self)), self._descriptor)
        self._hashes = [event.record.hash for event in told if isinstance(event, Advanced)]
        return RangeTree(self._hashes)

    def export(self, first: int, count: int) -> Iterator[bytes]:
        """Verify the archive, then yield a range of it as lines.

        Args:
            first: Sequence of the first record.
            count: How many, cut at the newest one.

        Raises:
            VerificationError: When the archive does not verify.
            ConfigError: When there is no such record.
        """
        tree = self.verify()
        end = min(first + count, tree.size)
        if not 0 <= first < end:
            raise ConfigError(f"there is no record {first} in the archive: it has {tree.size}")
        versions = [item.descriptor.file for item in (*self._descriptor.earlier, self._descriptor)]
        head = RangeHead(
            self._descriptor.group, first, end - first, tree.size, tree.root(), tuple(versions)
        )
        items = (
            RangeItem(first + offset, data, tree.path(first + offset))
            for offset, data in enumerate(self._stored(first, end))
        )
        return write_range(head, items)

    def restore(self, lines: Iterable[bytes]) -> int:
        """Take the records of a range that extend the archive; returns how many.

        Raises:
            RemoteProtocolError: When it is no range.
            VerificationError: When it does not verify, or leaves a gap behind the archive.
        """
        before, (head, items) = len(self), read_range(lines)
        self._keep_versions(_linked(self._descriptor, head.versions))
        for record in _verified_items(head, items, self._descriptor):
            if record.sequence > len(self):
                raise VerificationError(
                    f"the range begins with record {record.sequence}, {len(self)} is due",
                    hint="restore the ranges in their order",
                )
            if record.sequence == len(self):
                self._append(record)
        return len(self) - before

    def _stored(self, first: int, end: int) -> Iterator[bytes]:
        for sequence in range(first, end):
            yield from self._log.read(sequence, 1)


def verify_range(lines: Iterable[bytes], descriptor: TrustedDescriptor) -> Iterator[VerifiedRecord]:
    """Yield the records of a range as they are verified, with the descriptor and nothing else.

    Raises:
        RemoteProtocolError: When it is no range of records.
        VerificationError: When it is another instance's, a record does not verify, does not extend
            the one before it, or is not where the tree has it.
    """
    head, items = read_range(lines)
    yield from _verified_items(head, items, _linked(descriptor, head.versions))


def _verified_items(
    head: RangeHead, items: Iterable[RangeItem], descriptor: TrustedDescriptor
) -> Iterator[VerifiedRecord]:
    if head.group != descriptor.group:
        raise VerificationError("the range is of another instance")
    previous: Digest | None = ZERO_RECORD_HASH if head.first == 0 else None
    for item in items:
        record = _verified(item.record, descriptor, item.sequence)
        item.require_in(head, record.hash)
        if previous not in (None, record.record.content.header.previous_record):
            raise VerificationError(f"record {item.sequence} does not extend the one before it")
        previous = record.hash
        yield record


def _verified(data: bytes, descriptor: TrustedDescriptor, sequence: int) -> VerifiedRecord:
    record = verify_record(decode_record(data, descriptor.params), descriptor)
    if record.sequence != sequence:
        raise VerificationError(f"record {record.sequence} stands where {sequence} is due")
    return record


def _with_kept_versions(descriptor: TrustedDescriptor, folder: Path) -> TrustedDescriptor:
    """Return what is trusted, with the versions before and after it that the archive keeps.

    Raises:
        VerificationError: When what is kept does not lead to or from the version that is trusted.
    """
    files = [
        read_bounded(path, MAX_DESCRIPTOR_BYTES, what="descriptor")
        for path in folder.glob("descriptor-*.toml")
    ]
    try:
        return _linked(descriptor, files)
    except VerificationError as error:
        raise VerificationError(
            f"the versions of the descriptor that {folder} keeps do not lead to this one: {error}",
            hint="if it is the operator's, `zipnet archive pull` asks for those between",
        ) from error


def _linked(descriptor: TrustedDescriptor, files: Sequence[bytes]) -> TrustedDescriptor:
    """Return what is trusted with the versions before and after it.

    Args:
        descriptor: The version that is trusted, maybe with those before it.
        files: Versions from anybody.

    Raises:
        VerificationError: When they do not lead to or from the version that is trusted.
    """
    versions = sorted((_version_of(file), file) for file in files)
    known = {item.version: item.descriptor.file for item in descriptor.earlier}
    known.update((of, file) for of, file in versions if of < descriptor.version)
    line = link_earlier(descriptor, [known[of] for of in sorted(known)])
    for of, file in versions:
        if of > descriptor.version:
            line = succeed(line, file)
    return line


def _version_of(file: bytes) -> int:
    try:
        return int(parse_descriptor(file).version)
    except ConfigError as error:
        raise VerificationError(f"a version of the descriptor is none: {error}") from error


def _lock(folder: Path) -> File:
    """Make the folder where there is none, and take it for this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = OsFiles().open(str(folder / "lock"))
    except OSError as error:
        raise ConfigError(
            f"the archive {folder} cannot be written: {error.strerror}",
            hint="name a folder that this user may write to",
        ) from error
    try:
        file.lock()
    except BlockingIOError:
        file.close()
        raise StorageError(
            f"another process writes into the archive {folder}", hint="let one pull at a time"
        ) from None
    return file

"""A range of the record log as one file that proves itself (rows L12, Z24).

Lines of JSON::

    {"format": "zipnet-records-1", "group": hex, "first": n, "count": k, "size": s, "root": hex,
     "versions": v}
    {"descriptor": base64}                                     one for each of the v versions
    {"sequence": n, "record": base64, "path": [hex, ...]}      one for each of the k records

The tree is that of RFC 6962 §2.1 over the 32-byte record hashes of the first ``size`` records;
``path`` leads from a record to ``root``. Whoever trusts none of the nodes has two things to hold
on to: each record carries the signatures of its whole roster and the hash of the one before it,
and two ranges whose roots are consistent come from one log. Nobody signs a root: it is a short name
for a log that was verified, by which later logs can be compared with it.

Versions of the descriptor, oldest first, are there for records of rounds held under another one
than the verifier has; whether they lead to or from his is for ``protocol.succession`` to say.

Left to others: files, the signatures of records (``protocol.record``) and their chain.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from zipnet.errors import RemoteProtocolError, VerificationError
from zipnet.ledger.merkle import EMPTY_ROOT, leaf_hash, node_hash, split_of, verify_inclusion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from zipnet.protocol.ids import Digest

__all__ = ["MAX_LINE_BYTES", "RangeHead", "RangeItem", "RangeTree", "read_range", "write_range"]

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
_FORMAT: Final = "zipnet-records-1"
_MAX_PATH: Final = 64
_MAX_VERSIONS: Final = 256
_HASH_BYTES: Final = 32
_T = TypeVar("_T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class RangeHead:
    """What a range is of.

    Attributes:
        group: Group id, 32 bytes.
        first: Sequence of its first record.
        count: How many records it has.
        size: Records of the log the range was taken from.
        root: Root of the tree over their hashes, 32 bytes.
        versions: Files of the descriptor's versions, oldest first.
    """

    group: bytes
    first: int
    count: int
    size: int
    root: bytes
    versions: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class RangeItem:
    """One record of a range.

    Attributes:
        sequence: Its place in the log.
        record: The record, encoded.
        path: What leads from its hash to the root.
    """

    sequence: int
    record: bytes
    path: tuple[bytes, ...]

    def require_in(self, head: RangeHead, record_hash: Digest) -> None:
        """Check that a record of that hash is where this item says.

        Raises:
            VerificationError: When the path does not lead to the range's root.
        """
        verify_inclusion(record_hash, self.sequence, head.size, self.path, head.root)


class RangeTree:
    """Roots and paths over many entries, each subtree hashed once.

    Args:
        entries: Record hashes from sequence 0 on.
    """

    def __init__(self, entries: Sequence[bytes]) -> None:
        self._leaves = [leaf_hash(entry) for entry in entries]
        self._known: dict[tuple[int, int], bytes] = {}

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self._leaves)

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first ``size`` entries, or over all.

        Raises:
            VerificationError: When there are fewer.
        """
        wanted = self.size if size is None else size
        if not 0 <= wanted <= self.size:
            raise VerificationError(f"the log has {self.size} records, not {wanted}")
        return self._over(0, wanted) if wanted else EMPTY_ROOT

    def path(self, index: int) -> tuple[bytes, ...]:
        """Return what leads from entry ``index`` to the root over all."""
        start, end, found = 0, self.size, list[bytes]()
        while end - start > 1:
            middle = start + split_of(end - start)
            if index < middle:
                found.append(self._over(middle, end))
                end = middle
            else:
                found.append(self._over(start, middle))
                start = middle
        return tuple(reversed(found))

    def _over(self, start: int, end: int) -> bytes:
        if end - start == 1:
            return self._leaves[start]
        known = self._known.get((start, end))
        if known is None:
            middle = start + split_of(end - start)
            known = node_hash(self._over(start, middle), self._over(middle, end))
            self._known[start, end] = known
        return known


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    group: str
    first: int
    count: int
    size: int
    root: str
    versions: int


class _Version(msgspec.Struct, forbid_unknown_fields=True):
    descriptor: str


class _Item(msgspec.Struct, forbid_unknown_fields=True):
    sequence: int
    record: str
    path: list[str]


def write_range(head: RangeHead, items: Iterable[RangeItem]) -> Iterator[bytes]:
    """Yield the lines of a range, each with its line feed."""
    first = _Head(
        _FORMAT,
        head.group.hex(),
        head.first,
        head.count,
        head.size,
        head.root.hex(),
        len(head.versions),
    )
    yield msgspec.json.encode(first) + b"\n"
    for file in head.versions:
        yield msgspec.json.encode(_Version(base64.b64encode(file).decode())) + b"\n"
    for item in items:
        record = base64.b64encode(item.record).decode()
        line = _Item(item.sequence, record, [step.hex() for step in item.path])
        yield msgspec.json.encode(line) + b"\n"


def read_range(lines: Iterable[bytes]) -> tuple[RangeHead, Iterator[RangeItem]]:
    """Parse a range strictly; its items are parsed as they are asked for.

    Args:
        lines: With or without line feeds, each at most :data:`MAX_LINE_BYTES`.

    Raises:
        RemoteProtocolError: When it is none; also while items are taken.
    """
    rest = iter(lines)
    raw = _decode(next(rest, b""), _Head)
    sound = raw.first >= 0 and raw.count > 0 and raw.first + raw.count <= raw.size < 1 << 63
    if raw.format != _FORMAT or not sound or not 0 <= raw.versions <= _MAX_VERSIONS:
        raise RemoteProtocolError("this is no range of records of this version")
    versions = [_decode(next(rest, b""), _Version) for _ in range(raw.versions)]
    head = RangeHead(
        _hash(raw.group, "group"),
        raw.first,
        raw.count,
        raw.size,
        _hash(raw.root, "root"),
        tuple(_unbase64(version.descriptor, "descriptor") for version in versions),
    )
    return head, _items(head, rest)


def _items(head: RangeHead, lines: Iterator[bytes]) -> Iterator[RangeItem]:
    for sequence in range(head.first, head.first + head.count):
        raw = _decode(next(lines, b""), _Item)
        if raw.sequence != sequence or len(raw.path) > _MAX_PATH:
            raise RemoteProtocolError(f"record {sequence} is due in the range")
        record = _unbase64(raw.record, f"record {sequence}")
        yield RangeItem(sequence, record, tuple(_hash(step, "path") for step in raw.path))
    if next(lines, b"").strip():
        raise RemoteProtocolError("the range goes on behind its last record")


def _decode(line: bytes, kind: type[_T]) -> _T:
    if not line or len(line) > MAX_LINE_BYTES:
        raise RemoteProtocolError("the range ends early, or has a line that is too long")
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RemoteProtocolError("a line of the range is not what it should be") from error


def _unbase64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RemoteProtocolError(f"{what} of the range is no base64") from error


def _hash(text: str, what: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != _HASH_BYTES:
        raise RemoteProtocolError(f"the {what} in the range is no hash")
    return value

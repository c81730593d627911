"""The record log as static files that any transparency-log client reads (c2sp.org/tlog-tiles).

``tile/<level>/<index>`` holds up to 256 hashes of the tree, ``tile/entries/<index>`` up to 256
entries behind their lengths, and a last tile that is not full carries ``.p/<width>``. Entries are
record hashes; the records themselves are what an archive or a server hands out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zipnet.ledger.merkle import leaf_hash, node_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["tile_path", "tiles_of"]

_WIDTH: Final = 256
_ENTRIES: Final = "entries"


def tile_path(level: int | None, index: int, width: int = _WIDTH) -> str:
    """Return where a tile stands; entries where ``level`` is None."""
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03}")
    partial = "" if width == _WIDTH else f".p/{width}"
    return f"tile/{_ENTRIES if level is None else level}/{'/'.join(reversed(groups))}{partial}"


def tiles_of(entries: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every tile of a log of these entries."""
    bundles = (len(entry).to_bytes(2, "big") + entry for entry in entries)
    yield from _tiles(None, list(bundles))
    level, hashes = 0, [leaf_hash(entry) for entry in entries]
    while hashes:
        yield from _tiles(level, hashes)
        full = len(hashes) // _WIDTH * _WIDTH
        hashes = [_perfect(hashes[at : at + _WIDTH]) for at in range(0, full, _WIDTH)]
        level += 1


def _tiles(level: int | None, items: list[bytes]) -> Iterator[tuple[str, bytes]]:
    for index in range(-(-len(items) // _WIDTH)):
        part = items[index * _WIDTH : (index + 1) * _WIDTH]
        yield tile_path(level, index, len(part)), b"".join(part)


def _perfect(hashes: list[bytes]) -> bytes:
    """Return the root over a full tile."""
    while len(hashes) > 1:
        hashes = [node_hash(*hashes[at : at + 2]) for at in range(0, len(hashes), 2)]
    return hashes[0]

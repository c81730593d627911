"""The format of the vector files: one case per file, ``key: value`` lines, strict both ways.

The first line is ``kind: <derivation>``, the second ``expect: <success or failure class>``. A key
may repeat; its values keep their order. A check takes the keys it knows and the case fails if one
is left over, so a misspelt or forgotten key cannot pass unnoticed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent
EXPECTATIONS = frozenset(
    {
        "success",
        "config-error",
        "local-protocol-error",
        "remote-protocol-error",
        "verification-error",
    }
)


@dataclass
class Case:
    """One vector file, read; ``title`` is the file's name without its ending."""

    title: str
    kind: str
    expect: str
    values: dict[str, list[str]]
    unread: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.unread = set(self.values)

    def texts(self, key: str) -> list[str]:
        """Return all values of a key, none if it is absent."""
        self.unread.discard(key)
        return self.values.get(key, [])

    def text(self, key: str) -> str:
        """Return the one value of a key."""
        values = self.texts(key)
        assert len(values) == 1, f"{self.title}: {len(values)} values of {key!r}"
        return values[0]

    def data(self, key: str) -> bytes:
        return bytes.fromhex(self.text(key))

    def datas(self, key: str) -> list[bytes]:
        return [bytes.fromhex(value) for value in self.texts(key)]

    def number(self, key: str) -> int:
        return int(self.text(key))

    def finish(self) -> None:
        """Fail if the file has a key that nobody asked for."""
        assert not self.unread, f"{self.title}: unknown keys {sorted(self.unread)}"


def draw(label: str, size: int) -> bytes:
    """Draw the bytes of a label: the same in every run and on every machine."""
    return hashlib.shake_128(label.encode()).digest(size)


def parse_case(title: str, text: str) -> Case:
    values: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        key, separator, value = line.partition(":")
        assert separator, f"{title}: line {number} is not `key: value`"
        values.setdefault(key, []).append(value.removeprefix(" "))
    (kind,) = values.pop("kind")
    (expect,) = values.pop("expect")
    assert expect in EXPECTATIONS, f"{title}: unknown expectation {expect!r}"
    return Case(title, kind, expect, values)


def format_case(kind: str, expect: str, lines: list[tuple[str, str]]) -> str:
    assert expect in EXPECTATIONS, expect
    header = [("kind", kind), ("expect", expect)]
    return "".join(f"{key}: {value}".rstrip() + "\n" for key, value in header + lines)


def load_cases() -> list[Case]:
    return [parse_case(path.stem, path.read_text()) for path in sorted(FOLDER.glob("*.txt"))]

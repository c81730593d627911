"""`zipnet admin export` copies a trail that grows by each call it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zipnet.cli import admin, run
from zipnet.wire.admin import MAX_EXPORT_BYTES, AdminReply, AdminRequest

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = b"one more call"


class Node:
    """A node's desk, as far as exports go: every call is an entry of the trail."""

    def __init__(self, size: int) -> None:
        self.trail = b"t" * size
        self.calls = 0
        self.refuses = False

    def call(self, _folder: Path, request: AdminRequest) -> AdminReply:
        self.calls += 1
        data = self.trail[request.offset : request.offset + MAX_EXPORT_BYTES]
        self.trail += ENTRY
        if self.refuses:
            return AdminReply(ok=False, code="capability_missing", text="not you")
        return AdminReply(ok=True, code="done", data=data)


@pytest.mark.parametrize(
    ("size", "calls"),
    [(0, 1), (100, 1), (MAX_EXPORT_BYTES, 2), (2 * MAX_EXPORT_BYTES + 1, 3)],
)
def test_an_export_does_not_chase_the_entries_it_makes_itself(
    size: int, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(size)
    monkeypatch.setattr(admin, "call_admin", node.call)
    out = tmp_path / "copy"
    assert run(["admin", "export", "--socket", str(tmp_path), "--out", str(out)]) == 0
    assert node.calls == calls
    assert len(out.read_bytes()) >= size
    assert node.trail.startswith(out.read_bytes())


def test_a_refused_export_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = Node(100)
    monkeypatch.setattr(admin, "call_admin", node.call)
    node.refuses = True
    out = tmp_path / "copy"
    words = ["admin", "export", "--socket", str(tmp_path), "--out", str(out)]
    assert run(words) == 1
    assert not out.exists()
    assert "not you" in capsys.readouterr().err
    node.refuses = False
    assert run(words) == 0
    assert run(words) == 2, "what is there stays"

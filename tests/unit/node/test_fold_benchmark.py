"""The benchmark of folding runs and says what it is asked to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.fold import main

if TYPE_CHECKING:
    import pytest


def test_it_prints_both_sizes_with_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick"]) == 0
    out = capsys.readouterr().out
    for word in ("17408 bytes", "180224 bytes", "check and fold", "signature", "xor"):
        assert word in out

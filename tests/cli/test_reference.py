"""The reference pages say what the code says: `python -m zipnet.cli.reference` changes nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness.command import ROOT
from zipnet.cli.reference import pages
from zipnet.settings.model import ServerInput, fix_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", pages())
def test_a_page_is_up_to_date(name: str) -> None:
    written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert written == pages()[name], "run: python -m zipnet.cli.reference"


def test_the_module_writes_what_it_says(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zipnet.cli.reference", str(tmp_path / "new")]
    subprocess.run(command, cwd=ROOT, check=True)
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == pages()


def test_every_setting_is_described_with_what_to_write() -> None:
    page = pages()["settings.md"]
    for name, field in ServerInput.model_fields.items():
        assert f"`ZIPNET_{name.upper()}`" in page
        assert field.description
        assert field.description in page
        assert fix_of(field)
        assert fix_of(field) in page

"""The shape of the project: the top level, and the libraries the design asked for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE_LINES = 600
"""Non-blank lines that no module may exceed: beyond them it has two responsibilities."""
EXPLAINED_LINES = 400
"""Beyond these its docstring has a sentence that says why: ``Long because …`` or the like."""


@pytest.mark.requirement("D1")
def test_the_top_level_is_the_design_cards() -> None:
    for name in ("zipnet", "tdx", "images", "tests", "sim", "ops"):
        files = [p for p in (ROOT / name).rglob("*") if p.is_file() and p.stat().st_size]
        assert files, f"{name}/ is empty"
    assert (ROOT / "pyproject.toml").is_file()


def imported_by(*rooms: str) -> set[str]:
    found: set[str] = set()
    for room in rooms:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.split(".")[0])
    return found


@pytest.mark.requirement("D5")
def test_the_design_cards_libraries_are_the_ones_in_use() -> None:
    used = imported_by("zipnet")
    assert {"nacl", "cryptography", "aioquic", "numpy", "prometheus_client", "pysyncobj"} <= used
    assert "raftos" not in used
    assert "pytest" in imported_by("tests")


def test_nothing_shipped_imports_tests_simulator_or_the_quote_emulator() -> None:
    used = imported_by("zipnet")
    assert not {"tests", "sim", "examples", "benchmarks", "pytest"} & used


def too_long(room: Path) -> dict[str, int]:
    """The modules of a room with more non-blank lines than a module may have, and how many."""
    sizes = {
        str(path.relative_to(room)): sum(
            1 for line in path.read_text().splitlines() if line.strip()
        )
        for path in room.rglob("*.py")
    }
    assert sizes, f"no module in {room}"
    return {name: size for name, size in sizes.items() if size > MODULE_LINES}


@pytest.mark.parametrize("room", ["zipnet", "tdx", "sim"])
def test_no_module_is_longer_than_a_module_may_be(room: str) -> None:
    assert too_long(ROOT / room) == {}


def unexplained(room: Path) -> list[str]:
    """Modules that are long and do not say why."""
    found = []
    for path in sorted(room.rglob("*.py")):
        text = path.read_text("utf-8")
        if sum(1 for line in text.splitlines() if line.strip()) > EXPLAINED_LINES:
            told = ast.get_docstring(ast.parse(text)) or ""
            if not re.search(
                r"\b(one long|long(er)?) (because|module|than most)", told, re.IGNORECASE
            ):
                found.append(str(path.relative_to(room)))
    return found


@pytest.mark.parametrize("room", ["zipnet", "tdx", "sim"])
def test_a_long_module_says_why(room: str) -> None:
    assert unexplained(ROOT / room) == []


def test_a_long_module_that_does_not_say_why_is_found(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text('"""A thing."""\n' + "x = 1\n" * EXPLAINED_LINES)
    told = '"""A thing.\n\nLong because it is one table.\n"""\n'
    (tmp_path / "told.py").write_text(told + "x = 1\n" * EXPLAINED_LINES)
    assert unexplained(tmp_path) == ["plain.py"]


def test_a_module_that_is_too_long_is_found_and_blank_lines_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "fits.py").write_text("x = 1\n\n  \n" * MODULE_LINES)
    (tmp_path / "inner" / "long.py").write_text("x = 1\n" * (MODULE_LINES + 1))
    assert too_long(tmp_path) == {"inner/long.py": MODULE_LINES + 1}

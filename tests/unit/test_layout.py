"""The shape of the project: the top level, and the libraries the design asked for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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

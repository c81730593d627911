"""The page of requirements names tests that exist, and no test carries a row the page does not."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "requirements.md"
ROWS = [
    *(f"Z{i}" for i in range(1, 28)),
    *(f"H{i}" for i in range(1, 7)),
    *(f"M{i}" for i in range(1, 16)),
    *(f"A{i}" for i in range(1, 17)),
    *(f"L{i}" for i in range(1, 18)),
    *(f"D{i}" for i in range(1, 6)),
]


@dataclass(frozen=True)
class Row:
    """One row of the page."""

    name: str
    state: str
    tests: tuple[str, ...]


def read_page() -> list[Row]:
    found: list[Row] = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and re.fullmatch(r"[ZHMALD]\d+", cells[0]):
            found.append(Row(cells[0], cells[1], tuple(re.findall(r"`([^`]+::[^`]+)`", cells[3]))))
    return found


def marked_tests() -> dict[str, set[str]]:
    """Every test function as ``path::name``, with the requirement rows it is marked with."""
    found: dict[str, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("test"):
                marks = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
                rows = set(re.findall(r"mark\.requirement\(['\"](\w+)['\"]", marks))
                found[f"{path.relative_to(TESTS)}::{node.name}"] = rows
    return found


def test_every_row_is_on_the_page_once() -> None:
    assert [row.name for row in read_page()] == ROWS


def test_rows_that_are_there_name_tests_that_exist() -> None:
    known = marked_tests()
    missing = [test for row in read_page() for test in row.tests if test not in known]
    assert missing == []
    for row in read_page():
        assert row.state in {"done", "partly", "later"}, row.name
        assert bool(row.tests) == (row.state != "later"), row.name


def test_no_test_carries_a_row_the_page_says_is_not_there() -> None:
    there = {row.name for row in read_page() if row.state != "later"}
    orphans = {test: rows - there for test, rows in marked_tests().items() if not rows <= there}
    assert orphans == {}

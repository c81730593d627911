"""Every derivation has a use of its own, and the document names those of the core."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[3]
CORE = ("ids", "identity", "ratchet", "reservation", "slots")


def uses_by_place() -> dict[str, list[str]]:
    """Literal first arguments of ``derive`` and ``keyed`` calls, with where they stand."""
    found: dict[str, list[str]] = defaultdict(list)
    for source in sorted((ROOT / "zipnet").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            first = node.args[0]
            if name in {"derive", "keyed"} and isinstance(first, ast.Constant):
                found[str(first.value)].append(f"{source.stem}:{node.lineno}")
    return found


def test_no_two_modules_share_a_use() -> None:
    found = uses_by_place()
    assert len(found) >= 12
    shared = {use: {place.split(":")[0] for place in places} for use, places in found.items()}
    assert {use: modules for use, modules in shared.items() if len(modules) > 1} == {}


def test_document_names_every_use_of_the_core() -> None:
    document = (ROOT / "docs" / "protocol.md").read_text()
    for use, places in uses_by_place().items():
        if places[0].split(":")[0] in CORE:
            assert f"| `{use}`" in document or f"`{use}` |" in document, use

"""The vector files are what the naive reference makes, and X-Wing's are the draft's own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.vectors.generate import all_vectors
from tests.vectors.testkit import FOLDER, format_case, load_cases

# Shared secrets and beginnings of the public keys of draft-connolly-cfrg-xwing-kem-10, Appendix C.
PUBLISHED = {
    "kem.published-1": (
        "e2236b35a8c24b39b10aa1323a96a919a2ced884",
        "d2df0522128f09dd8e2c92b1e905c793d8f57a54c3da25861f10bf4ca613e384",
    ),
    "kem.published-2": (
        "0333285fa253661508c9fb444852caa4061636cb",
        "f2e86241c64d60f6649fbc6c5b7d17180b780a3f34355e64a85749949c45f150",
    ),
    "kem.published-3": (
        "36244278824f77c621c660892c1c3886a9560caa",
        "953f7f4e8c5b5049bdc771d1dffada0dd961477d1a2ae0988baa7ea6898d893f",
    ),
}


def test_files_are_exactly_what_the_generator_writes() -> None:
    expected = {
        f"{kind}.{title}.txt": format_case(kind, expect, lines)
        for kind, title, expect, lines in all_vectors()
    }
    assert {path.name: path.read_text() for path in FOLDER.glob("*.txt")} == expected


@pytest.mark.parametrize("title", PUBLISHED)
def test_kem_vectors_are_the_published_ones(title: str) -> None:
    case = {case.title: case for case in load_cases()}[title]
    public, shared = PUBLISHED[title]
    assert case.text("public").startswith(public)
    assert case.text("shared") == shared


def test_reference_imports_nothing_of_the_product() -> None:
    folder = Path(__file__).parents[1]
    makers = [folder / "vectors" / f"{name}.py" for name in ("generate", "layout_cases", "testkit")]
    sources = [*(folder / "reference").glob("*.py"), *makers]
    assert len(sources) >= 9
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not [name for name in names if name.split(".")[0] in {"zipnet", "tdx", "sim"}]

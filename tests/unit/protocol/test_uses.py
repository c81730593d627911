"""Every derivation and every signature has a use of its own, and the document names each."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text()


def calls() -> list[tuple[str, ast.Call, str]]:
    """Every call in the product: name of what is called, the call, and where it stands."""
    found: list[tuple[str, ast.Call, str]] = []
    for source in sorted((ROOT / "zipnet").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                name = node.func.id if isinstance(node.func, ast.Name) else name
                found.append((name, node, f"{source.stem}:{node.lineno}"))
    return found


def uses_by_place() -> dict[str, list[str]]:
    """Literal first arguments of ``derive`` and ``keyed`` calls, with where they stand."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, call, place in calls():
        if name in {"derive", "keyed"} and call.args and isinstance(call.args[0], ast.Constant):
            found[str(call.args[0].value)].append(place)
    return found


def other_uses() -> set[str]:
    """Uses named by constants: of signatures and MACs, by the value of ``…_USE``."""
    found: set[str] = set()
    for source in sorted((ROOT / "zipnet").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            target = node.target if isinstance(node, ast.AnnAssign) else target
            is_use = isinstance(target, ast.Name) and target.id.endswith("_USE")
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if is_use and value is not None:
                texts = [n.value for n in ast.walk(value) if isinstance(n, ast.Constant)]
                found |= {text for text in texts if isinstance(text, str)}
    return found


def contexts() -> set[str]:
    """Every literal that begins with the context prefix, wherever in the product it stands."""
    found: set[str] = set()
    for source in sorted((ROOT / "zipnet").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            value = node.value if isinstance(node, ast.Constant) else None
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            if isinstance(text, str) and re.fullmatch(r"zipnet/v1/[a-z0-9/-]*", text):
                found.add(text.removeprefix("zipnet/v1/"))
    return found


def test_no_two_modules_share_a_use() -> None:
    found = uses_by_place()
    assert len(found) >= 22
    shared = {use: {place.split(":")[0] for place in places} for use, places in found.items()}
    assert {use: modules for use, modules in shared.items() if len(modules) > 1} == {}


def test_every_use_is_a_literal_or_a_named_constant() -> None:
    """A use made up at run time would escape the tables; only the wrappers pass one on."""
    for name, call, place in calls():
        if name in {"derive", "keyed", "sign", "sign_ed25519", "verify_ed25519"} and call.args:
            first = call.args[1] if name == "verify_ed25519" else call.args[0]
            wrappers = ("certificate", "identity", "tokencustody")
            if name.startswith("sign") and place.startswith(wrappers):
                continue  # X.509's own signing, the wrapper itself, and the key inside it
            plain = isinstance(first, ast.Constant) or (
                isinstance(first, ast.Name | ast.Subscript) and "_USE" in ast.unparse(first)
            )
            assert plain, f"{place}: {ast.unparse(call)}"


def test_the_document_names_every_derivation_of_the_product() -> None:
    table = DOCUMENT[DOCUMENT.index("### 9.1") : DOCUMENT.index("### 9.2")]
    named = set(re.findall(r"`([a-z0-9-]+)`", table))
    macs = {"committee-initiator", "committee-acceptor"}
    assert set(uses_by_place()) | macs <= named


def test_the_document_names_every_signature_of_the_product() -> None:
    table = DOCUMENT[DOCUMENT.index("### 9.4") : DOCUMENT.index("### 9.5")]
    literal = {
        call.args[0].value
        for name, call, _ in calls()
        if name in {"sign", "sign_ed25519"} and call.args and isinstance(call.args[0], ast.Constant)
    }
    macs = {"committee-initiator", "committee-acceptor"}
    signatures = {str(use) for use in literal} | (other_uses() - macs)
    assert len(signatures) >= 9
    assert {use for use in signatures if f"`{use}`" not in table} == set()


def test_the_document_names_every_other_context() -> None:
    made = set(uses_by_place())
    for context in contexts() - {""}:
        whole = f"zipnet/v1/{context}"
        assert context in made or f"`{context}`" in DOCUMENT or whole in DOCUMENT, context


def test_the_salt_of_the_commitment_is_made_as_the_vectors_make_it() -> None:
    (made,) = [
        c for name, c, _ in calls() if name == "keyed" and "participants-salt" in ast.unparse(c)
    ]
    assert ast.unparse(made) == "keyed('participants-salt', secret, header.hash)"

"""What the product's modules may not do to each other (row A14), read from their syntax trees.

The import contract (``make lint``) says who may know whom. Here is what it cannot see: state that
belongs to a module instead of an object, queues nothing bounds, and locks held while others run.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ROOMS: Final = ("zipnet", "tdx", "sim")
MUTABLE: Final = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MAKERS: Final = {"list", "dict", "set", "deque", "defaultdict", "Counter", "OrderedDict"}
CHANGES: Final = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem",
    "popleft", "remove", "setdefault", "sort", "update",
}  # fmt: skip

DEQUES: Final = {
    "zipnet/consensus/embedded.py": "_INBOX_MESSAGES; batches wait for their one reader, and a "
    "leader proposes no more than the log's own bound",
    "zipnet/consensus/etcd.py": "what one page of etcd holds; the next is asked for afterwards",
    "zipnet/consensus/peers.py": "QUEUE_LENGTH",
    "zipnet/gateway/history.py": "keep, and _MAX_BYTES",
    "zipnet/node/feed.py": "max_queued, max_queued_bytes",
    "zipnet/node/mesh.py": "_MAX_QUEUED",
    "zipnet/node/record_tail.py": "_KEPT, _KEPT_BYTES",
    "zipnet/sdk/sending.py": "one for each caller that waits; callers are back-pressure's point",
    "zipnet/storage/memory.py": "max_bytes",
    "zipnet/transport/link.py": "frames of one chunk",
    "zipnet/transport/rpc.py": "max_queued_frames, max_queued_bytes, _MAX_WAITING_PINGS",
}
"""What bounds each double-ended queue that was made without a bound."""

LOCKS: Final = {
    ("zipnet/node/admin.py", "_turn"): "one admin verb at a time is what it is for",
    ("zipnet/sdk/publisher.py", "_outbox_turn"): "one change of the outbox's file at a time",
    (
        "zipnet/transport/link.py",
        "_send_lock",
    ): "chunks of two frames must not mix; with a deadline",
    ("zipnet/transport/quic_stream.py", "_shutting_down"): "who closes second waits for the first",
}
"""Locks that are held while something is awaited, and why there is no other way."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8"))


def callee(node: ast.AST | None) -> str:
    """The last name of what is called, such as ``Queue`` of ``asyncio.Queue()``."""
    func = node.func if isinstance(node, ast.Call) else None
    if isinstance(func, ast.Subscript):
        func = func.value
    if isinstance(func, ast.Attribute):
        return func.attr
    return func.id if isinstance(func, ast.Name) else ""


def changed_globals(tree: ast.Module) -> list[str]:
    """Names a module binds to something mutable and changes, or binds anew from a function."""
    names = set()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        value = getattr(node, "value", None)
        if isinstance(value, MUTABLE) or callee(value) in MAKERS:
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    inside = [
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    ]
    found = [name for node in inside if isinstance(node, ast.Global) for name in node.names]
    for part in inside:
        on: ast.AST | None = None
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            on = part.func.value if part.func.attr in CHANGES else None
        elif isinstance(part, ast.Subscript) and isinstance(part.ctx, ast.Store | ast.Del):
            on = part.value
        if isinstance(on, ast.Name) and on.id in names:
            found.append(on.id)
    return sorted(set(found))


def unbounded(tree: ast.Module, kind: str) -> list[int]:
    """Lines that make a queue without saying how much it takes."""
    bound = {"Queue": 0, "LifoQueue": 0, "PriorityQueue": 0, "SimpleQueue": 9, "deque": 1}[kind]
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and callee(node) == kind
        and len(node.args) <= bound
        and not any(word.arg in {"maxsize", "maxlen"} for word in node.keywords)
        and not (isinstance(node.func, ast.Attribute) and "field" in ast.dump(node.func))
    ]


def held_locks(tree: ast.Module) -> list[str]:
    """Names of locks in whose ``with`` something is awaited."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.With | ast.AsyncWith):
            continue
        awaits = any(
            isinstance(inner, ast.Await | ast.AsyncFor | ast.AsyncWith)
            for statement in node.body
            for inner in ast.walk(statement)
        )
        for item in node.items:
            name = getattr(item.context_expr, "attr", getattr(item.context_expr, "id", ""))
            if awaits and any(word in name for word in ("lock", "turn", "mutex", "shutting")):
                found.append(name)
    return found


@pytest.mark.requirement("A14")
def test_no_module_has_state_that_changes() -> None:
    found = {path: names for path, tree in modules() if (names := changed_globals(tree))}
    assert found == {}


@pytest.mark.requirement("A14")
def test_every_queue_says_what_it_takes() -> None:
    kinds = ("Queue", "LifoQueue", "PriorityQueue", "SimpleQueue")
    found = {
        f"{path}:{line}": kind
        for path, tree in modules()
        for kind in kinds
        for line in unbounded(tree, kind)
    }
    assert found == {}
    plain = {path for path, tree in modules() if unbounded(tree, "deque")}
    assert plain == set(DEQUES), "say what bounds it, or strike it off"


@pytest.mark.requirement("A14")
def test_no_lock_is_held_across_an_await_but_those_that_must_be() -> None:
    found = {(path, name) for path, tree in modules() for name in held_locks(tree)}
    assert found == set(LOCKS), "say why it must be, or strike it off"


def test_what_is_forbidden_would_be_found() -> None:
    state = "KEPT = {}\ndef note(a):\n    KEPT[a] = 1\n"
    assert changed_globals(ast.parse(state)) == ["KEPT"]
    assert changed_globals(ast.parse("SEEN = set()\ndef see(a):\n    SEEN.add(a)\n")) == ["SEEN"]
    assert changed_globals(ast.parse("n = 0\ndef count():\n    global n\n    n += 1\n")) == ["n"]
    assert changed_globals(ast.parse("TABLE = {1: 2}\ndef look(a):\n    return TABLE[a]\n")) == []
    assert unbounded(ast.parse("q = asyncio.Queue()"), "Queue") == [1]
    assert unbounded(ast.parse("q = asyncio.Queue(5)"), "Queue") == []
    assert unbounded(ast.parse("q = deque([], 5); r = deque()"), "deque") == [1]
    lock = "async def work(self):\n    with self._lock:\n        await self.other()\n"
    assert held_locks(ast.parse(lock)) == ["_lock"]
    assert held_locks(ast.parse(lock.replace("await ", ""))) == []

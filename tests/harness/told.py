"""Run ``zipnet`` and write down its secrets: ``python -m tests.harness.told FILE LEAK …``.

Whatever becomes a :class:`~zipnet.protocol.secret.Secret`, a chain key or a pad key is written to
FILE, one line of hexadecimal each, so that a test can look for it in all that the process says.
Where it writes traces, it keeps every one of them.
LEAK is ``none``, or where a secret is given away on purpose: ``log``, ``metric`` or ``error``.
"""

from __future__ import annotations

import sys
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["tell"]

_P = ParamSpec("_P")
_R = TypeVar("_R", bound=bytes | bytearray)


class _Book:
    """Writes secrets down as they come, each once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="ascii", buffering=1)
        self._known: set[bytes] = set()
        self.first = b""

    def note(self, data: bytes) -> None:
        if len(data) < 16 or data in self._known or len(set(data)) < 8:
            return
        self._known.add(data)
        self.first = self.first or data
        self._file.write(data.hex() + "\n")


def tell(path: Path) -> _Book:
    """Have this process write its secrets to a file; before anything of zipnet is imported."""
    from zipnet.observe import tracing
    from zipnet.protocol import ratchet
    from zipnet.protocol.secret import Secret

    tracing.SAMPLED_SHARE = 1.0  # type: ignore[misc]
    book = _Book(path)
    hold = Secret.__init__

    @wraps(hold)
    def held(self: Secret, data: bytes | bytearray | memoryview) -> None:
        hold(self, data)
        book.note(bytes(data))

    def noting(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def noted(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            result = function(*args, **kwargs)
            book.note(bytes(result))
            return result

        return noted

    Secret.__init__ = held  # type: ignore[method-assign]
    ratchet.initial_chain_key = noting(ratchet.initial_chain_key)
    ratchet.pad_key = noting(ratchet.pad_key)
    step = ratchet.step

    @wraps(step)
    def stepped(chain_key: bytearray) -> None:
        step(chain_key)
        book.note(bytes(chain_key))

    ratchet.step = stepped
    return book


def leak(how: str, book: _Book) -> None:
    """Give the first secret away once the node is ready."""
    from zipnet.node.notify import ServiceNotifier
    from zipnet.observe.log import get_logger
    from zipnet.observe.metrics import NodeMetrics

    made: list[NodeMetrics] = []
    ready, init = ServiceNotifier.ready, NodeMetrics.__init__

    def noted(self: NodeMetrics, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)  # type: ignore[arg-type]
        made.append(self)

    def leaking(self: ServiceNotifier, status: str = "") -> None:
        if how == "log":
            get_logger().info("canary_leaked", text=book.first.hex())
        elif how == "metric":
            made[0].rejected.inc("x" + book.first.hex()[:40])
        elif how == "error":
            print(book.first, file=sys.stderr, flush=True)
        ready(self, status)

    NodeMetrics.__init__ = noted  # type: ignore[method-assign]
    ServiceNotifier.ready = leaking  # type: ignore[method-assign]


if __name__ == "__main__":
    told, way = tell(Path(sys.argv.pop(1))), sys.argv.pop(1)
    if way != "none":
        leak(way, told)
    from zipnet.cli import main

    sys.exit(main())

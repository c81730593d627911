"""An asyncio event loop whose time is virtual: it jumps to the next timer instead of waiting.

Code under it runs unchanged; ``asyncio.sleep``, ``asyncio.timeout`` and ``loop.time`` all follow
the virtual clock. Two runs with the same seeds execute the same callbacks in the same order.

Rules:

1. Sockets and threads have no place here: nothing from outside can wake the loop.
2. A loop with nothing left to do raises :class:`Stuck` instead of waiting for ever.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

__all__ = ["Stuck", "VirtualLoop", "run_virtual"]

T = TypeVar("T")


class Stuck(Exception):  # noqa: N818 - a state of the simulation
    """Every task waits for something that cannot happen."""


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, advance: Callable[[float], None]) -> None:
        super().__init__()
        self._advance = advance

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("no timer is armed and no callback is ready")
        if timeout > 0:
            self._advance(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that starts at time zero and never sleeps."""

    def __init__(self) -> None:
        self._virtual_now = 0.0
        super().__init__(_JumpingSelector(self._jump))
        # Rounding must not make a due timer look an instant away.
        self._clock_resolution = 1e-9
        self.broken: list[str] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual_now

    def _jump(self, seconds: float) -> None:
        self._virtual_now += seconds

    def _note(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        self.broken.append(f"{context.get('message')}: {context.get('exception')!r}")


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end in virtual time and return its result.

    Raises:
        Stuck: It waits for something that cannot happen.
        AssertionError: A callback or an unobserved task ended in an exception.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(main)
        loop = runner.get_loop()
        broken = list(loop.broken) if isinstance(loop, VirtualLoop) else []
    if broken:
        raise AssertionError("; ".join(broken))
    return result

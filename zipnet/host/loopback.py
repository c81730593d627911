"""Ports for networks that are laid out on one machine before any of their nodes has started.

A descriptor names ports, so they are chosen first and bound later, by other processes. Those the
kernel hands out for ``bind(0)`` come from the range it also draws the near ends of connections
from, and with many nodes about one of them is gone by then; these lie below that range.
"""

from __future__ import annotations

import contextlib
import secrets
import socket

__all__ = ["free_ports"]

_FIRST, _END = 10_240, 32_768
_TRIES = 10_000


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free for TCP and UDP right now, each another one.

    Raises:
        OSError: When there are hardly any.
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for _ in range(_TRIES):
            if len(found) == count:
                return found
            port = _FIRST + secrets.randbelow(_END - _FIRST)
            tcp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            udp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with contextlib.suppress(OSError):
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
                found.append(port)
    raise OSError(f"no {count} free ports on 127.0.0.1 between {_FIRST} and {_END - 1}")

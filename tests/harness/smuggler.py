"""Run ``zipnet`` with somebody inside who wants to reach the outside; every way is tried once.

``python -m tests.harness.smuggler server …`` prints one JSON line for each way, with ``allowed`` or
the name of the error. No way leads beyond documentation addresses, and none of them is used where
the list is not in force.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Callable

from zipnet.errors import ZipnetError
from zipnet.node.notify import ServiceNotifier
from zipnet.transport.egress import egress_in_force
from zipnet.transport.quic import QuicTransport
from zipnet.transport.tls import TlsTransport

AWAY = "192.0.2.1"
_KEY = bytes(32)


def _connect(family: int, kind: int, address: tuple[str, int]) -> Callable[[], None]:
    def attempt() -> None:
        with socket.socket(family, kind) as link:
            link.settimeout(0.2)
            link.connect(address)

    return attempt


def _look_up() -> None:
    socket.getaddrinfo("exfiltrate.example", 443)


def _stream() -> None:
    asyncio.run(asyncio.wait_for(_open_stream(), 1))


async def _open_stream() -> None:
    await asyncio.open_connection(AWAY, 443)


def _transport(made: Callable[[], TlsTransport | QuicTransport]) -> Callable[[], None]:
    def attempt() -> None:
        asyncio.run(made().connect(AWAY, 443, expected_key=_KEY, timeout_s=0.2))

    return attempt


def _listener() -> None:
    """Connect to a socket of this machine, as to a database beside the node."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        socket.create_connection(listening.getsockname(), timeout=5).close()


WAYS: dict[str, Callable[[], None]] = {
    "tcp": _connect(socket.AF_INET, socket.SOCK_STREAM, (AWAY, 443)),
    "udp": _connect(socket.AF_INET, socket.SOCK_DGRAM, (AWAY, 53)),
    "tcp over ipv6": _connect(socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", 443)),
    "look-up": _look_up,
    "stream": _stream,
    "tls transport": _transport(lambda: TlsTransport(None, registered={})),
    "quic transport": _transport(lambda: QuicTransport(None, registered={})),
    "loopback": _listener,
}


def _try_all() -> None:
    for name, way in WAYS.items():
        try:
            way()
        except ZipnetError as error:
            outcome = error.reason
        except (OSError, TimeoutError) as error:
            outcome = type(error).__name__
        else:
            outcome = "allowed"
        sys.stdout.write(json.dumps({"event": "tried", "what": name, "outcome": outcome}) + "\n")
        sys.stdout.flush()


def _break_in() -> None:
    ready = ServiceNotifier.ready

    def new_ready(self: ServiceNotifier, status: str = "") -> None:
        ready(self, status)
        if egress_in_force() == "restricted":
            threading.Thread(target=_try_all).start()

    ServiceNotifier.ready = new_ready  # type: ignore[method-assign]


if __name__ == "__main__":
    _break_in()
    from zipnet.cli import main

    sys.exit(main())

"""Where this process may connect to: an allow-list, kept by the interpreter itself (row L5).

Once :func:`restrict_egress` was called, every ``connect`` and every look-up of a name in this
process is judged before it happens, whoever makes it: ours, a library's, or somebody's who got in
and stays in Python. What is not on the list ends in :class:`~zipnet.errors.EgressError`.

Rules:

1. Allowed are loopback, Unix sockets, the host of this very guest (``AF_VSOCK``), and what the list
   names by host and port. Names are looked up only if they stand on the list.
2. A name's addresses are whatever the look-up gives: a dial says which entry it is for
   (:func:`dialling`), and only inside of it are other addresses than loopback connected to.
3. It is for good: the list can be added to, and never be taken away.

What it is not: a wall in the kernel. Native code that was smuggled in gets around it, datagrams
sent without ``connect``, as a QUIC listener answers, pass, and so does the look-up that a socket
makes by itself when it is told to connect to a name. docs/operator.md has the firewall rules that
hold in any case.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from zipnet.errors import EgressError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["allow_egress", "dialling", "egress_in_force", "restrict_egress"]

_HOST_CID: Final = 2
_HINT: Final = "only nodes of the descriptor and what the settings name are connected to"
_inside: ContextVar[bool] = ContextVar("zipnet_dialling", default=False)


class _Gate:
    """The list of this process; one, like the process."""

    def __init__(self) -> None:
        self.endpoints: set[tuple[str, int]] = set()
        self.hosts: set[str] = set()
        self.closed = False

    def add(self, endpoints: Iterable[tuple[str, int]]) -> None:
        for host, port in endpoints:
            self.endpoints.add((host, port))
            self.hosts.add(host)


_gate = _Gate()


def restrict_egress(endpoints: Iterable[tuple[str, int]]) -> None:
    """Let this process connect to these and to loopback from now on, for good.

    Args:
        endpoints: Host and port, as they will be dialled; those of earlier calls stay.
    """
    _gate.add(endpoints)
    if not _gate.closed:
        _gate.closed = True
        sys.addaudithook(_judge)


def allow_egress(endpoints: Iterable[tuple[str, int]]) -> None:
    """Put more on the list, such as the nodes of a newer descriptor; without a list, do nothing."""
    if _gate.closed:
        _gate.add(endpoints)


def egress_in_force() -> str:
    """Return what ``/version`` says: ``restricted`` or ``open``."""
    return "restricted" if _gate.closed else "open"


@contextmanager
def dialling(host: str, port: int) -> Iterator[None]:
    """Say what is dialled inside the block; every dial of a transport is inside one.

    Raises:
        EgressError: When it is not on this process's list.
    """
    if _gate.closed and not _is_local(host) and (host, port) not in _gate.endpoints:
        raise EgressError(f"{host}:{port} is not on this process's list", hint=_HINT)
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def _judge(event: str, arguments: tuple[object, ...]) -> None:
    judge = _JUDGES.get(event)
    if judge is not None:
        judge(arguments)


def _judge_connect(arguments: tuple[object, ...]) -> None:
    link, address = arguments
    family = getattr(link, "family", None)
    if family == socket.AF_UNIX or _inside.get():
        return
    if isinstance(address, tuple) and address:
        if family == socket.AF_VSOCK and address[0] == _HOST_CID:
            return
        if family in {socket.AF_INET, socket.AF_INET6} and _is_local(str(address[0])):
            return
    raise EgressError("a connection to an address that nobody dials was refused", hint=_HINT)


def _judge_name(arguments: tuple[object, ...]) -> None:
    host = arguments[0]
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("latin-1")
    if not isinstance(host, str) or not host or host in _gate.hosts or _is_local(host):
        return
    if not _is_address(host):
        raise EgressError("a look-up of a name that is not on the list was refused", hint=_HINT)


_JUDGES: Final[dict[str, Callable[[tuple[object, ...]], None]]] = {
    "socket.connect": _judge_connect,
    "socket.getaddrinfo": _judge_name,
    "socket.gethostbyname": _judge_name,
    "socket.gethostbyaddr": _judge_name,
}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False

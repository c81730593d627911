"""A UDP socket that takes bursts in one turn of the loop and is gone the moment it is closed.

asyncio's own datagram transport reads one datagram per turn, which makes the loop's overhead the
greater part of a QUIC link's, and it frees its socket in a later turn, which may never come.

Rules:

1. At most :data:`BURST` datagrams are read per turn, so that a busy socket starves nobody.
2. Nothing is queued: a datagram the kernel has no room for is lost, as it might be on the way, and
   QUIC sends its contents again.
3. ``close`` and ``abort`` are the same and free the socket before they return.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioquic.quic.connection import NetworkAddress

__all__ = ["BURST", "UdpSocket", "bind_udp", "connect_udp", "grow_buffers"]

BURST = 16
"""Most datagrams read in one turn of the loop."""

_BUFFER_BYTES = 4 * 1024 * 1024
_MAX_DATAGRAM_BYTES = 65536


class UdpSocket(asyncio.DatagramTransport):
    """The transport of one datagram protocol; owns a bound or connected, non-blocking socket.

    Args:
        bound: The socket.
        connected: Whether it has one peer only.
        protocol: Told of datagrams and errors; its ``connection_made`` is called at once.
    """

    def __init__(
        self, bound: socket.socket, protocol: asyncio.DatagramProtocol, *, connected: bool
    ) -> None:
        super().__init__({"socket": bound, "sockname": bound.getsockname()})
        self._socket = bound
        self._connected = connected
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._loop.add_reader(bound.fileno(), self._read_burst)
        protocol.connection_made(self)

    def is_closing(self) -> bool:
        """Whether the socket is gone."""
        return self._closed

    def sendto(
        self, data: bytes | bytearray | memoryview, addr: NetworkAddress | None = None
    ) -> None:
        """Send one datagram, to the one peer or to ``addr``; lost when there is no room."""
        if self._closed:
            return
        try:
            if self._connected or addr is None:
                self._socket.send(data)
            else:
                self._socket.sendto(data, addr)
        except (BlockingIOError, InterruptedError):
            pass  # rule 2
        except OSError as error:
            self._protocol.error_received(error)

    def _read_burst(self) -> None:
        for _ in range(BURST):
            if self._closed:  # by what the protocol made of the last datagram
                return
            try:
                data, peer = self._socket.recvfrom(_MAX_DATAGRAM_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._protocol.error_received(error)
                return
            self._protocol.datagram_received(data, peer)

    def close(self) -> None:
        """Free the socket; idempotent."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def abort(self) -> None:
        """Free the socket; idempotent."""
        self.close()


async def bind_udp(
    host: str, port: int, protocol: Callable[[], asyncio.DatagramProtocol]
) -> UdpSocket:
    """Return a socket bound to a local address; port 0 picks one.

    Raises:
        OSError: When the address cannot be had.
    """
    family, address = await _resolve(host, port, socket.AI_PASSIVE)
    return _made(family, lambda fresh: fresh.bind(address), protocol, connected=False)


async def connect_udp(
    host: str, port: int, protocol: Callable[[], asyncio.DatagramProtocol]
) -> tuple[UdpSocket, NetworkAddress]:
    """Return a socket that hears one peer only, and that peer's address.

    Raises:
        OSError: When the name does not resolve or there is no route.
    """
    family, address = await _resolve(host, port, 0)
    made = _made(family, lambda fresh: fresh.connect(address), protocol, connected=True)
    return made, address


def _made(
    family: int,
    attach: Callable[[socket.socket], None],
    protocol: Callable[[], asyncio.DatagramProtocol],
    *,
    connected: bool,
) -> UdpSocket:
    fresh = socket.socket(family, socket.SOCK_DGRAM)
    try:
        fresh.setblocking(False)  # noqa: FBT003 - positional only
        grow_buffers(fresh)
        attach(fresh)
        return UdpSocket(fresh, protocol(), connected=connected)
    except BaseException:
        fresh.close()
        raise


def grow_buffers(fresh: socket.socket) -> None:
    """Ask for socket buffers that survive a burst; the kernel grants what it allows."""
    fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    fresh.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)


async def _resolve(host: str, port: int, flags: int) -> tuple[int, NetworkAddress]:
    """The first address of a name."""
    try:  # what is an address already needs no thread to look it up
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=flags | socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=flags
        )
    family, _, _, _, address = found[0]
    return family, address

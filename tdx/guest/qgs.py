"""Quotes through a quote generation service (QGS): a TDREPORT goes in, a quote comes out.

On hardware the TDREPORT comes from ``/dev/tdx_guest`` and the service listens on vsock, host 2,
port 4050. ``tdx emulate serve`` speaks the same messages on a Unix socket.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

from tdx.errors import GuestError, QuoteError
from tdx.guest.source import check_quoted, check_report_data
from tdx.quote import TDREPORT_BYTES, parse_tdreport
from tdx.quote.qgs import MAX_MESSAGE_BYTES, decode_message, decode_response, encode_request

__all__ = ["QgsSource", "connect_unix", "connect_vsock", "device_report", "emulated_report"]

TDX_DEVICE = Path("/dev/tdx_guest")
TDX_CMD_GET_REPORT0 = 0xC4405401
QGS_VSOCK = (2, 4050)


class QgsSource:
    """Ask a quote generation service for quotes.

    Args:
        report: Makes a TDREPORT over 64 bytes.
        connect: Opens a connection to the service.
    """

    def __init__(
        self, report: Callable[[bytes], bytes], connect: Callable[[], socket.socket]
    ) -> None:
        self._report = report
        self._connect = connect

    def quote(self, report_data: bytes) -> bytes:
        """Return a quote over 64 bytes; see ``QuoteSource.quote``."""
        check_report_data(report_data)
        report = self._report(report_data)
        try:
            with self._connect() as connection:
                connection.sendall(encode_request(report))
                answer = _read_message(connection)
        except OSError as error:
            raise GuestError(
                f"the quote generation service does not answer: {error}",
                retryable=True,
                hint="is it running on the host?",
            ) from error
        return check_quoted(_quote_in(answer), report_data)


def device_report(
    path: Path = TDX_DEVICE, *, ioctl: Callable[[int, int, bytearray], object] | None = None
) -> Callable[[bytes], bytes]:
    """Return a maker of TDREPORTs from the TDX guest device.

    Args:
        path: The device.
        ioctl: How it is called; ``fcntl.ioctl`` by default.
    """

    def make(report_data: bytes) -> bytes:
        buffer = bytearray(report_data) + bytearray(TDREPORT_BYTES)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                (ioctl or _ioctl)(descriptor, TDX_CMD_GET_REPORT0, buffer)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise GuestError(
                f"{path} gives no report: {error.strerror}", hint="is this a TDX guest?"
            ) from error
        return _checked(bytes(buffer[len(report_data) :]), report_data)

    return make


def emulated_report(mrtd: bytes, rtmr: tuple[bytes, ...]) -> Callable[[bytes], bytes]:
    """Return a maker of TDREPORTs without a MAC, which only an emulator's service will quote.

    Args:
        mrtd: 48 bytes.
        rtmr: Four registers of 48 bytes.
    """

    def make(report_data: bytes) -> bytes:
        out = bytearray(TDREPORT_BYTES)
        out[0] = 0x81
        out[128:192] = report_data
        out[512:528] = (1 << 28).to_bytes(8, "little") + (0x602E7).to_bytes(8, "little")
        out[528:576] = mrtd
        out[720:912] = b"".join(rtmr)
        return _checked(bytes(out), report_data)

    return make


def connect_vsock(
    address: tuple[int, int] = QGS_VSOCK, *, timeout_s: float = 10.0
) -> Callable[[], socket.socket]:
    """Return an opener of vsock connections to the host's service."""

    def connect() -> socket.socket:
        return _connected(socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM), address, timeout_s)

    return connect


def connect_unix(path: Path, *, timeout_s: float = 10.0) -> Callable[[], socket.socket]:
    """Return an opener of connections to a service on a Unix socket."""

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        return _connected(made, str(path), timeout_s)

    return connect


def _quote_in(answer: bytes) -> bytes:
    try:
        message = decode_message(answer)
        if message.error:
            raise GuestError(
                f"the quote generation service refuses with {message.error:#x}", retryable=True
            )
        return decode_response(message)
    except QuoteError as error:
        raise GuestError(f"the quote generation service is not understood: {error}") from error


def _read_message(connection: socket.socket) -> bytes:
    size = int.from_bytes(_read_exactly(connection, 4), "big")
    if size > MAX_MESSAGE_BYTES:
        raise GuestError(f"a message has at most {MAX_MESSAGE_BYTES} bytes, not {size}")
    return _read_exactly(connection, size)


def _checked(report: bytes, report_data: bytes) -> bytes:
    try:
        found = parse_tdreport(report).report_data
    except QuoteError as error:
        raise GuestError(f"the device returned no TDREPORT: {error}") from error
    if found != report_data:
        raise GuestError("the TDREPORT holds other report data than asked")
    return report


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        piece = connection.recv(size - len(out))
        if not piece:
            raise GuestError("the connection ends inside a message", retryable=True)
        out += piece
    return bytes(out)


def _connected(
    made: socket.socket, address: str | tuple[int, int], timeout_s: float
) -> socket.socket:
    try:
        made.settimeout(timeout_s)
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def _ioctl(descriptor: int, request: int, buffer: bytearray) -> None:
    fcntl.ioctl(descriptor, request, buffer, True)  # noqa: FBT003 - mutate_flag has no name

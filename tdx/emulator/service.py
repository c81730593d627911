"""A quote generation service on a Unix socket, so that a process can attest where no TDX is.

It speaks the messages of the real service: a TDREPORT comes in, an emulated quote goes out. The
TDREPORT has no MAC to check, so whoever reaches the socket may claim any measurement; that is what
an emulator is for.
"""

from __future__ import annotations

import socketserver
from pathlib import Path
from typing import TYPE_CHECKING

from tdx.emulator.quotes import TdFields
from tdx.errors import QuoteError
from tdx.quote import parse_tdreport
from tdx.quote.qgs import MAX_MESSAGE_BYTES, decode_message, decode_request, encode_response

if TYPE_CHECKING:
    from tdx.emulator.emulator import Emulator

__all__ = ["QuoteService"]

_BAD_REQUEST = 0x12001
_TIMEOUT_S = 10.0


class QuoteService(socketserver.ThreadingUnixStreamServer):
    """Answer quote requests until ``shutdown()`` is called.

    Args:
        emulator: The platform that quotes.
        path: The socket; made here, removed on close. Only this user may connect.
        version: Quote version, 4 or 5.
    """

    daemon_threads = True

    def __init__(self, emulator: Emulator, path: Path, *, version: int = 4) -> None:
        self.emulator = emulator
        self.version = version
        self._path = path
        self._bound = False
        super().__init__(str(path), _Handler)
        path.chmod(0o600)

    def server_bind(self) -> None:
        """Make the socket."""
        super().server_bind()
        self._bound = True

    def server_close(self) -> None:
        """Close the socket and remove it, unless it is another process's."""
        super().server_close()
        if self._bound:
            self._path.unlink(missing_ok=True)

    def answer(self, request: bytes) -> bytes:
        """Return the response to one message without its length prefix."""
        try:
            report = parse_tdreport(decode_request(decode_message(request)))
        except QuoteError:
            return encode_response(b"", error=_BAD_REQUEST)
        fields = TdFields(
            td_attributes=report.td_attributes,
            xfam=report.xfam,
            mrtd=report.mrtd,
            mrconfigid=report.mrconfigid,
            mrowner=report.mrowner,
            mrownerconfig=report.mrownerconfig,
            rtmr=report.rtmr,
        )
        return encode_response(
            self.emulator.quote(report.report_data, version=self.version, td=fields)
        )


class _Handler(socketserver.StreamRequestHandler):
    server: QuoteService
    timeout = _TIMEOUT_S

    def handle(self) -> None:
        size = int.from_bytes(self.rfile.read(4), "big")
        if 0 < size <= MAX_MESSAGE_BYTES:
            request = self.rfile.read(size)
            if len(request) == size:
                self.wfile.write(self.server.answer(request))

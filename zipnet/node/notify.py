"""Tell systemd how the node is doing: ``READY=1``, ``STOPPING=1``, ``WATCHDOG=1`` (sd_notify(3)).

Outside systemd, where ``$NOTIFY_SOCKET`` is not set, every call does nothing. A message that
cannot be delivered is dropped: the supervisor's deafness must not stop a node.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ServiceNotifier"]

_MICROSECONDS = 1_000_000


class ServiceNotifier:
    """Sends state to the service manager.

    Args:
        environ: Environment of the process: ``NOTIFY_SOCKET``, ``WATCHDOG_USEC``, ``WATCHDOG_PID``.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of Linux's abstract socket names.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._watchdog_s = _watchdog_interval(environ)

    @property
    def watchdog_interval_s(self) -> float | None:
        """How often the watchdog wants to hear from this process, None when it does not."""
        return self._watchdog_s

    def ready(self, status: str = "") -> None:
        """Say that start-up is complete."""
        self._send("READY=1", f"STATUS={_line(status)}" if status else "")

    def status(self, text: str) -> None:
        """Set the line ``systemctl status`` shows."""
        self._send(f"STATUS={_line(text)}")

    def stopping(self) -> None:
        """Say that the node is shutting down."""
        self._send("STOPPING=1")

    async def run_watchdog(self) -> None:
        """Feed the watchdog from the event loop until cancelled; returns at once without one.

        Sent from the loop on purpose: a loop that hangs is what the watchdog is to notice.
        """
        if self._watchdog_s is None or not self._address:
            return
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        message = "\n".join(line for line in lines if line).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(0)
            try:
                sender.sendto(message, self._address)
            except OSError:
                return


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Half the time systemd allows, as sd_watchdog_enabled(3) advises."""
    allowed, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not allowed.isdigit() or int(allowed) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(allowed) / _MICROSECONDS / 2


def _line(text: str) -> str:
    return text.replace("\n", " ")

"""Dialling through a SOCKS5 proxy, such as Tor's: who is dialled sees the proxy and nobody else.

Rules:

1. Host names are resolved by the proxy, never here: a lookup would tell who is dialled.
2. Every link gets credentials of its own, drawn at random: Tor keeps links with different
   credentials on different circuits, and other proxies that ask for none ignore them.
3. There is no way around the proxy: when it cannot be reached, dialling fails.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from zipnet.errors import ConfigError, TransportError

if TYPE_CHECKING:
    import socket

__all__ = ["SocksDialer"]

_HINT = "write socks5://HOST:PORT, such as socks5://127.0.0.1:9050 for Tor"


class SocksDialer:
    """Opens TCP connections through one proxy.

    Args:
        url: ``socks5://host:port``, or ``socks5://user:password@host:port`` where the proxy asks
            for one account, which then all links share.

    Raises:
        ConfigError: When the address is no SOCKS5 proxy's, or python-socks is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError("the proxy's address is malformed", hint=_HINT) from error
        if parts.scheme not in {"socks5", "socks5h"} or not host or not port:
            raise ConfigError("the proxy's address is not a SOCKS5 proxy's", hint=_HINT)
        try:
            import python_socks.async_.asyncio  # noqa: F401, PLC0415 - an optional package
        except ModuleNotFoundError as error:
            raise ConfigError(
                "a SOCKS5 proxy needs the package python-socks", hint="pip install 'zipnet[tor]'"
            ) from error
        self._host, self._port = host, port
        self._account = (parts.username, parts.password or "") if parts.username else None

    def __repr__(self) -> str:
        return f"SocksDialer({self._host}:{self._port})"

    async def __call__(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """Return a connected, non-blocking socket whose far end is ``host:port``.

        Raises:
            TransportError: When the proxy cannot be reached or does not reach the far end in time.
        """
        from python_socks import ProxyError, ProxyTimeoutError, ProxyType  # noqa: PLC0415
        from python_socks.async_.asyncio import Proxy  # noqa: PLC0415

        user, password = self._account or (secrets.token_hex(16), secrets.token_hex(16))
        proxy = Proxy(
            proxy_type=ProxyType.SOCKS5,
            host=self._host,
            port=self._port,
            username=user,
            password=password,
            rdns=True,
        )
        try:
            connected: socket.socket = await proxy.connect(
                dest_host=host, dest_port=port, timeout=timeout_s
            )
        except (ProxyError, ProxyTimeoutError, OSError) as error:
            raise TransportError(
                f"no connection to {host}:{port} through the proxy {self._host}:{self._port}",
                hint="check that the proxy runs and may reach the nodes",
            ) from error
        return connected

"""Whom a program with these settings may connect to, for the process's list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from zipnet.settings.types import GatewaySettings

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import Descriptor
    from zipnet.settings.types import CommonSettings

__all__ = ["endpoints_of", "upstreams"]


def endpoints_of(descriptor: Descriptor) -> set[tuple[str, int]]:
    """Return host and port of every node a descriptor registers."""
    nodes = [*descriptor.servers, *(entry.node for entry in descriptor.aggregators)]
    return {(node.host, node.port) for node in nodes}


def upstreams(settings: CommonSettings) -> set[tuple[str, int]]:
    """Return what these settings name to connect to; loopback needs no naming."""
    found = endpoints_of(settings.descriptor.descriptor)
    found |= {(endpoint.host, endpoint.port) for endpoint in settings.server_endpoints}
    if isinstance(settings, GatewaySettings) and settings.proxy is not None:
        proxy = urlsplit(settings.proxy)
        if proxy.hostname and proxy.port:
            found.add((proxy.hostname, proxy.port))
    return found

"""The HTTP gateway: the broadcast for other languages and browsers, and a page to watch it."""

from zipnet.gateway.app import Gateway, GatewayOptions

__all__ = ["Gateway", "GatewayOptions"]

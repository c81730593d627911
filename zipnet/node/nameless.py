"""Asking a server which version of the descriptor is in force without saying who asks.

A node that was away for many versions knows no certificate and no secret that is still good, and so
gets no link. Anybody may read, though: a server shows a later version to whoever asks as a reader,
and the operator's signatures, not the server, say whether it follows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from zipnet.transport.session import Role
from zipnet.transport.tls import TlsTransport
from zipnet.transport.versions import ask_later

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.settings.values import Endpoint
    from zipnet.transport.session import SessionTerms

__all__ = ["ASK_TIMEOUT_S", "NamelessAsker", "as_reader"]

ASK_TIMEOUT_S: Final = 5.0


def as_reader(terms: SessionTerms) -> SessionTerms:
    """Return what a node says that says nothing about itself."""
    return replace(terms, role=Role.READER, identity=None, committee_secret=None, attestor=None)


class NamelessAsker:
    """Asks servers that are known by their key alone.

    Args:
        terms: What this node would say of itself; its name is taken out.
    """

    def __init__(self, terms: SessionTerms) -> None:
        self._terms = as_reader(terms)
        # It shows no certificate and asks for none in particular: the far key is what counts.
        self._transport = TlsTransport(None, registered={}, limits=terms.limits)

    async def hear(
        self, endpoint: Endpoint, key: bytes, current: TrustedDescriptor
    ) -> TrustedDescriptor:
        """Return the newest version a server knows; ``current`` where it knows no later one.

        Args:
            endpoint: Where the server is.
            key: Its Ed25519 key, 32 bytes.
            current: The newest version known here.

        Raises:
            ZipnetError: It could not be asked, or gave what does not follow.
        """
        connection = await self._transport.connect(
            endpoint.host, endpoint.port, expected_key=key, timeout_s=ASK_TIMEOUT_S
        )
        return await ask_later(connection, self._terms, current, timeout_s=ASK_TIMEOUT_S)

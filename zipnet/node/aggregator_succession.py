"""How an aggregator goes on when a later version of the descriptor is in force (decision 0007).

Rules:

1. What a version leaves as it was stays up: only who moved, or was replaced, is dialled again.
2. A version without this aggregator in it ends it.
3. With no link to any server for some seconds it asks them as a nameless reader: it may have been
   away for so many versions that nothing it goes by is good any more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError, ZipnetError
from zipnet.machines.aggregator_effects import DescriptorChanged
from zipnet.node.live_descriptor import certificates_before, certificates_of, nodes_of
from zipnet.node.nameless import NamelessAsker
from zipnet.observe.log import get_logger
from zipnet.transport.certificate import registered_certificate
from zipnet.transport.egress import allow_egress
from zipnet.wire.frames import CloseCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from zipnet.node.aggregator_driver import AggregatorDriver
    from zipnet.node.aggregator_parts import AggregatorParts
    from zipnet.node.listen import NodeListener
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.transport.session import SessionTerms
    from zipnet.transport.tls import TlsTransport

__all__ = ["AggregatorSuccession"]

_ASK_AGAIN_S: Final = 1.0
_ALONE_LOOKS: Final = 3
_log = get_logger(__name__)


class AggregatorSuccession:
    """Follows the descriptor's versions for one running aggregator.

    Args:
        parts: Its parts.
        driver: Told the machine's part of it.
        listener: Who is admitted.
        transport: Where certificates are registered.
        terms: What it says in handshakes; asking, it says nothing about itself.
    """

    def __init__(
        self,
        parts: AggregatorParts,
        driver: AggregatorDriver,
        listener: NodeListener,
        transport: TlsTransport,
        terms: SessionTerms,
    ) -> None:
        self._parts = parts
        self._driver = driver
        self._listener = listener
        self._transport = transport
        self._nameless = NamelessAsker(terms)
        parts.live.tell(self._on_version)

    async def listen(self, use: Callable[[TrustedDescriptor], Awaitable[None]]) -> None:
        """Ask for later versions while no server is linked, until cancelled (rule 3).

        Args:
            use: Goes by a version that was heard.
        """
        alone = 0
        while True:
            await asyncio.sleep(_ASK_AGAIN_S)
            up = any(link.session is not None for link in self._parts.upstream.links)
            alone = 0 if up else alone + 1
            if alone >= _ALONE_LOOKS:
                await self._ask_everybody(use)

    async def _ask_everybody(self, use: Callable[[TrustedDescriptor], Awaitable[None]]) -> None:
        live = self._parts.live
        for endpoint, key in zip(live.endpoints, live.current.committee_keys, strict=True):
            try:
                heard = await self._nameless.hear(endpoint, key, live.current)
            except ZipnetError as error:
                _log.debug("versions_not_fetched", error=str(error))
                continue
            if heard is not live.current:
                await use(heard)
                return

    def _on_version(self, new: TrustedDescriptor) -> None:
        _log.info("descriptor_adopted", version=new.version)
        parts, identity = self._parts, self._parts.settings.identity
        entry = new.aggregator(identity.peer_id)
        if entry is None:
            parts.start(_leave(new))
            return
        self._transport.register(certificates_of(new), certificates_before(new))
        private_key = identity.ed25519_private_key()
        self._transport.present(registered_certificate(private_key, entry.node.certificate))
        allow_egress((node.host, node.port) for node in nodes_of(new))
        parts.tail.use_descriptor(new)
        parts.revocations.use_descriptor(new)
        for session in self._listener.use_descriptor(new):
            parts.start(session.close(code=CloseCode.REFUSED, reason="not_registered"))
        self._driver.step(DescriptorChanged(new, entry))
        parts.upstream.use_descriptor(new, parts.live.endpoints)
        parts.links.follow_descriptor()


async def _leave(descriptor: TrustedDescriptor) -> None:
    """End the node: it runs in the group this is begun in."""
    raise ConfigError(
        f"version {descriptor.version} of the descriptor registers this aggregator no more",
        hint="stop it for good",
    )

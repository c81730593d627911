"""The links an aggregator dials: to every committee server, and to its parent where it has one.

Rules:

1. Aggregates go to the parent; those of the root, which has none, to every server.
2. The parent is who the descriptor in force says; another one is dialled as soon as it is named.
3. A far node that refuses is tried again, slowly. Only the parent, or more than half of the
   servers, can end this node by saying that its identity is alive elsewhere.
4. More than half of the servers can also end it by ending its links as no longer registered: a
   version left it out, and nobody is left who would give it that version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zipnet.errors import ConfigError, DuplicateIdentityError, PeerClosedError
from zipnet.observe.log import get_logger
from zipnet.protocol.ids import ServerIndex
from zipnet.transport.dial import PersistentLink, refusal_code

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from zipnet.errors import ZipnetError
    from zipnet.node.aggregator_parts import StartBeside
    from zipnet.node.live_descriptor import LiveDescriptor
    from zipnet.node.upstream import Upstream
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.ports import Transport
    from zipnet.protocol.descriptor import NodeEntry, TrustedDescriptor
    from zipnet.protocol.ids import PeerId
    from zipnet.transport.session import Session, SessionTerms

__all__ = ["AggregatorLinks"]

_log = get_logger(__name__)


class AggregatorLinks:
    """Dials the parent, and knows every link there is.

    Args:
        peer: This node.
        live: The descriptor in force.
        upstream: Holds the links to the servers.
        terms: What this node says in handshakes.
        transport: Engine to dial with.
        metrics: Where refusals are counted.
        start: Runs the link to the parent.
        on_up: Called with the parent's session before anything is asked over it.
    """

    def __init__(
        self,
        *,
        peer: PeerId,
        live: LiveDescriptor,
        upstream: Upstream,
        terms: SessionTerms,
        transport: Transport,
        metrics: NodeMetrics,
        start: StartBeside,
        on_up: Callable[[Session], Awaitable[None]],
    ) -> None:
        self._peer = peer
        self._live = live
        self._upstream = upstream
        self._terms = terms
        self._transport = transport
        self._metrics = metrics
        self._start = start
        self._on_up = on_up
        self._refusing: set[ServerIndex | None] = set()
        self._left_out: set[ServerIndex] = set()
        self._parent_node = self._parent_entry()
        self._parent = self._make_parent()
        self._dialling: asyncio.Task[None] | None = None

    # -- the parent ------------------------------------------------------------------------

    def _parent_entry(self) -> NodeEntry | None:
        descriptor = self._live.current
        entry = descriptor.aggregator(self._peer)
        parent = None if entry is None else entry.parent
        found = (e.node for e in descriptor.descriptor.aggregators if e.node.name == parent)
        return next(found, None)

    def _make_parent(self) -> PersistentLink | None:
        node = self._parent_node
        if node is None:
            return None
        return PersistentLink(
            self._transport,
            node.host,
            node.port,
            node.identity.ed25519,
            self._terms,
            expected_peer=node.peer_id,
            on_up=self._on_up,
            on_refused=lambda error: self.on_refused(None, error),
        )

    def dial(self) -> None:
        """Dial the parent, and nobody who was it before; the servers are the upstream's to dial."""
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        if self._parent is not None:
            self._dialling = self._start(self._parent.run())

    def follow_descriptor(self) -> None:
        """Go by the version in force: another parent is reached over another link (rule 2)."""
        entry = self._parent_entry()
        if entry != self._parent_node:
            self._parent_node = entry
            self._parent = self._make_parent()
            self.dial()

    # -- all of them -----------------------------------------------------------------------

    @property
    def up(self) -> Sequence[PersistentLink]:
        """The links aggregates go over (rule 1)."""
        return self._upstream.links if self._parent is None else (self._parent,)

    def by_peer(self) -> dict[PeerId, PersistentLink]:
        """Return every link, by who is at its far end."""
        committee = self._live.current.committee
        links = {
            one.peer_id: link for one, link in zip(committee, self._upstream.links, strict=True)
        }
        node = self._parent_entry()
        if node is not None and self._parent is not None:
            links[node.peer_id] = self._parent
        return links

    def sessions(self) -> list[Session]:
        """Return the live sessions this node dialled."""
        return [link.session for link in self.by_peer().values() if link.session is not None]

    # -- who refuses -----------------------------------------------------------------------

    def look(self) -> int:
        """Forget the refusals of who is linked by now; returns how many links stand."""
        links = {ServerIndex(i): link for i, link in enumerate(self._upstream.links)}
        up = {server for server, link in links.items() if link.session is not None}
        self._refusing -= up
        self._left_out -= up
        if self._parent is None or self._parent.session is None:
            return len(up)
        self._refusing.discard(None)
        return len(up) + 1

    def on_down(self, server: ServerIndex, error: ZipnetError) -> None:
        """End this node where that was the last of most servers to put it out (rule 4)."""
        if not isinstance(error, PeerClosedError) or error.said != "not_registered":
            return
        self._left_out.add(server)
        if len(self._left_out) * 2 > len(self._live.current.committee):
            self._start(_leave(self._live.current))

    def on_refused(self, server: ServerIndex | None, error: ZipnetError) -> bool:
        """Go on slowly, unless the parent or most servers say this identity is taken (rule 3).

        Args:
            server: Who refused; None is the parent.
            error: What it said.
        """
        self._metrics.rejected.inc(refusal_code(error))
        _log.warning("link_refused", server=server, reason=refusal_code(error), error=str(error))
        if not isinstance(error, DuplicateIdentityError):
            return True
        self._refusing.add(server)
        servers = len(self._refusing - {None})
        return None not in self._refusing and servers * 2 <= len(self._live.current.committee)


async def _leave(descriptor: TrustedDescriptor) -> None:
    """End the node: it runs in the group this is begun in."""
    raise ConfigError(
        "most servers register this aggregator no more: a version of the descriptor after "
        f"{descriptor.version} left it out",
        hint="stop it for good",
    )

"""Capabilities shown to a node: one for each session, checked when shown and at each use (row L2).

Rules:

1. A session shows a capability after the handshake, so it is judged for the peer the handshake
   proved; bound to one, it is worth nothing in anybody else's session.
2. A node that asks for none takes what is shown and looks no further.
3. At each use its end is compared with the clock, and revocations end its session.
4. Logs, metrics and the audit trail have key id and reason, never the token.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from zipnet.access.capability import Capability, CapabilityRole, verify_capability
from zipnet.access.terms import AccessTerms, require_capability
from zipnet.errors import AdmissionError
from zipnet.observe.log import get_logger
from zipnet.wire.messages import Accepted, Kind, Message, PresentCapability, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.access.revoked import RevokedBook
    from zipnet.protocol.ids import GroupId, PeerId
    from zipnet.transport.session import Session

__all__ = ["SessionCapabilities", "show_capability"]

_MAX_REMEMBERED = 100_000

_log = get_logger(__name__)


class SessionCapabilities:
    """What the sessions of one node showed.

    Args:
        terms: What the node asks for.
        group: The group capabilities must be for.
        revoked: What was revoked.
        wall: Seconds since 1970.
    """

    def __init__(
        self,
        terms: AccessTerms,
        group: GroupId,
        revoked: RevokedBook,
        wall: Callable[[], float],
    ) -> None:
        self._terms = terms
        self._group = group
        self._revoked = revoked
        self._wall = wall
        self._shown: WeakKeyDictionary[Session, Capability] = WeakKeyDictionary()
        self._registered: dict[PeerId, Capability] = {}

    async def present(self, session: Session, payload: bytes) -> Message:
        """Take what a session shows.

        Raises:
            RemoteProtocolError: When the payload is no such message.
            AdmissionError: When the capability does not hold.
        """
        token = decode(payload, PresentCapability).token
        if not self._terms.issuers:
            return Accepted()
        capability = await asyncio.to_thread(
            verify_capability,
            token,
            issuers=self._terms.issuers,
            group=self._group,
            now_s=self._wall(),
            presenter=session.peer.peer_id,
        )
        if self._revoked.has_capability(capability):
            raise AdmissionError("the capability was revoked", code="capability_revoked")
        self._shown[session] = capability
        return Accepted()

    def check(self, session: Session, kind: int) -> None:
        """Refuse a request this node asks a capability for, where the session has none that fits.

        Raises:
            AdmissionError: ``code`` starts with ``capability_``.
        """
        require_capability(self._terms, self._shown.get(session), kind, now_s=self._wall())

    def shown_by(self, session: Session) -> Capability | None:
        """Return what a session showed."""
        return self._shown.get(session)

    def registered(self, session: Session) -> None:
        """Remember by which capability a client was registered here."""
        peer, capability = session.peer.peer_id, self._shown.get(session)
        if peer is None or capability is None or CapabilityRole.PUBLISH not in capability.roles:
            return
        self._registered.pop(peer, None)
        self._registered[peer] = capability
        if len(self._registered) > _MAX_REMEMBERED:
            del self._registered[next(iter(self._registered))]

    def forget_revoked(self) -> tuple[PeerId, ...]:
        """Return, once, the clients that were registered by what is revoked now."""
        gone = [
            peer
            for peer, capability in self._registered.items()
            if self._revoked.has_capability(capability)
        ]
        for peer in gone:
            del self._registered[peer]
        return tuple(gone)


async def show_capability(session: Session, token: bytes | None) -> None:
    """Show this node's own capability to a node it dialled; nothing where it has none.

    Raises:
        AdmissionError: When the far node does not accept it.
        TransportError: When the link breaks.
    """
    if token is None:
        return
    try:
        await session.request(Kind.PRESENT_CAPABILITY, encode(PresentCapability(token=token)))
    except AdmissionError as error:
        _log.warning("capability_refused", reason=error.code)
        raise

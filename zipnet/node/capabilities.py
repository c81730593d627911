"""Capabilities shown to a node: one for each session, checked when shown and at each use (row L2).

Rules:

1. A session shows a capability after the handshake, so it is judged for the peer the handshake
   proved; bound to one, it is worth nothing in anybody else's session.
2. A node that asks for none takes what is shown and looks no further.
3. At each use its end is compared with the clock, and revocations end its session.
4. A node's own capability is read from its file again when that changes, and shown on its links.
5. Logs, metrics and the audit trail have key id and reason, never the token.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from zipnet.access.capability import (
    Capability,
    CapabilityRole,
    inspect_capability,
    verify_capability,
)
from zipnet.access.terms import AccessTerms, require_capability
from zipnet.errors import AdmissionError, ZipnetError
from zipnet.observe.log import get_logger
from zipnet.settings.tokenfile import read_token_file
from zipnet.wire.messages import Accepted, Kind, Message, PresentCapability, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from zipnet.access.revoked import RevokedBook
    from zipnet.observe.metrics import NodeMetrics
    from zipnet.protocol.ids import GroupId, PeerId
    from zipnet.transport.session import Session

__all__ = ["OwnCapability", "SessionCapabilities"]

_MAX_REMEMBERED = 100_000
_MAX_SHOWN = 64  # one a week for more than a year, or a guess too many
_RETRY_S = 60.0
_LOOK_S = 5.0

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
        self._tries: WeakKeyDictionary[Session, int] = WeakKeyDictionary()
        self._registered: dict[PeerId, Capability] = {}

    async def present(self, session: Session, payload: bytes) -> Message:
        """Take what a session shows.

        Raises:
            RemoteProtocolError: When the payload is no such message.
            AdmissionError: When the capability does not hold.
        """
        token = decode(payload, PresentCapability).token
        tries = self._tries.get(session, 0) + 1
        self._tries[session] = tries
        if tries > _MAX_SHOWN:
            raise AdmissionError(
                "this session has shown enough", code="overloaded", retry_after=_RETRY_S
            )
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


class OwnCapability:
    """The capability a node shows to nodes it dials; read again when its file changes (row M13).

    Args:
        file: Where it is; None shows nothing.
        token: What the file held at start.
        metrics: Where its end is kept.
    """

    def __init__(self, file: Path | None, token: bytes | None, metrics: NodeMetrics) -> None:
        self._file = file
        self._token: bytes | None = None
        self._expires_s: int | None = None
        self._metrics = metrics
        if token is not None:
            self._take(token)

    async def show(self, session: Session) -> None:
        """Show it to a node that was dialled; nothing where there is none.

        Raises:
            AdmissionError: When the far node does not accept it.
            TransportError: When the link breaks.
        """
        if self._token is None:
            return
        try:
            shown = encode(PresentCapability(token=self._token))
            await session.request(Kind.PRESENT_CAPABILITY, shown)
        except AdmissionError as error:
            _log.warning("capability_refused", reason=error.code)
            raise

    async def renew(self, sessions: Callable[[], Iterable[Session]]) -> None:
        """Look at the file now and then, and show a new token on every live link.

        Args:
            sessions: The sessions this node dialled.
        """
        while True:
            await asyncio.sleep(_LOOK_S)
            if not await self._changed():
                continue
            for session in tuple(sessions()):
                with contextlib.suppress(ZipnetError):  # a link that broke shows it when it is back
                    await self.show(session)

    async def _changed(self) -> bool:
        if self._file is None:
            return False
        try:
            token, _issuer = await asyncio.to_thread(read_token_file, self._file)
            if token == self._token:
                return False
            self._take(token)
        except ZipnetError as error:  # the old one is still in use
            _log.warning("capability_not_read", reason=error.reason)
            return False
        return True

    @property
    def expires_s(self) -> int | None:
        """When it ends, Unix seconds; None where there is none."""
        return self._expires_s

    def _take(self, token: bytes) -> None:
        self._expires_s = inspect_capability(token).expires_s
        self._metrics.capability_expiry.set(self._expires_s)
        self._token = token

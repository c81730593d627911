"""The QUIC engine with the key-agreement groups that are due: X25519 first, P-256 too (row A15).

aioquic offers P-256 first, and P-384 and X448 besides, and has no setting for it. Its list is a
private field of the TLS context, which every connection makes for itself; a test of what is really
offered and refused notices when that changes.
"""

from __future__ import annotations

from typing import Final

from aioquic.quic.connection import QuicConnection
from aioquic.tls import Group

__all__ = ["GROUPS", "Engine", "with_our_groups"]

GROUPS: Final = (Group.X25519, Group.SECP256R1)
"""What is offered and taken, the preferred one first."""


class Engine(QuicConnection):
    """A connection that agrees on keys in :data:`GROUPS` only."""

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._supported_groups = list(GROUPS)  # noqa: SLF001 - see above


def with_our_groups(engine: QuicConnection) -> None:
    """Make a connection of the library's own server one of these, before its first datagram."""
    # The server has no way to be told which class to make.
    engine.__class__ = Engine

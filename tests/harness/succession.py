"""Versions of a descriptor that follow one another, for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zipnet.protocol.descriptor import sign_descriptor
from zipnet.protocol.succession import succeed
from zipnet.settings.descriptorfile import NodeDraft, compose_successor
from zipnet.settings.publicfile import PublicFile
from zipnet.transport.certificate import node_certificate

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import Descriptor, TrustedDescriptor
    from zipnet.protocol.identity import Identity

__all__ = ["renewed", "replacing", "successor_of"]


def replacing(old: Descriptor, seat: int, newcomer: Identity, *, port: int | None = None) -> bytes:
    """Return the text of a version in which another identity has a seat; not signed."""
    drafts = [NodeDraft.of(node) for node in old.servers]
    certificate = node_certificate(newcomer.ed25519_private_key()).der
    public = PublicFile("node", newcomer.public, certificate)
    draft = replace(drafts[seat], public=public, since=old.version + 1)
    if port is not None:
        draft = replace(draft, endpoint=replace(draft.endpoint, port=port))
    drafts[seat] = draft
    return compose_successor(old, servers=drafts)


def successor_of(
    current: TrustedDescriptor, seat: int, newcomer: Identity, operator: Identity
) -> TrustedDescriptor:
    """Return a version in which another identity has a seat, signed and checked."""
    text = replacing(current.descriptor, seat, newcomer)
    return succeed(current, sign_descriptor(text, operator))


def renewed(current: TrustedDescriptor, operator: Identity) -> TrustedDescriptor:
    """Return a version that changes nothing but its number, signed and checked."""
    return succeed(current, sign_descriptor(compose_successor(current.descriptor), operator))

"""How long the keys that a descriptor names have been in use (row L4); pure.

A key's age counts from the day from which the first version that names it was valid, followed by
versions that all name it. It is read off signed versions, so an operator cannot make a key younger
by copying its file. Where earlier versions are not known it may be older than is said here, never
younger.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from zipnet.protocol.descriptor import Descriptor, TrustedDescriptor
    from zipnet.protocol.ids import PeerId

__all__ = ["KEY_LIFE", "KEY_WARNING", "KeyAge", "ages_for", "key_ages"]

KEY_LIFE: Final = timedelta(days=90)
"""How long a key should be in use (row L4)."""
KEY_WARNING: Final = timedelta(days=14)
"""How long before that it is time to rotate it."""


@dataclass(frozen=True, slots=True)
class KeyAge:
    """Since when one key is in use.

    Attributes:
        kind: What ``zipnet rotate`` calls it: ``identity``, ``committee-secret`` or
            ``descriptor-key``.
        owner: The node whose identity it is; None for what belongs to no one node.
        since: The day it came into use, or a later one where that is not known.
    """

    kind: str
    owner: PeerId | None
    since: datetime

    @property
    def due(self) -> datetime:
        """When it should be replaced."""
        return self.since + KEY_LIFE


def ages_for(trusted: TrustedDescriptor, peer: PeerId) -> tuple[KeyAge, ...]:
    """Return the ages of the keys one node works with; the committee secret is for servers."""
    serves = any(node.peer_id == peer for node in trusted.descriptor.servers)
    return tuple(
        age
        for age in key_ages(trusted)
        if age.owner == peer or (age.owner is None and (serves or age.kind != "committee-secret"))
    )


def key_ages(trusted: TrustedDescriptor) -> tuple[KeyAge, ...]:
    """Return the age of each key: the operator's, the committee secret's, then the nodes'.

    Args:
        trusted: The version in force, with those before it as far as they are known.
    """
    now = trusted.descriptor
    line = [now, *(item.descriptor for item in reversed(trusted.earlier))]
    return (
        KeyAge("descriptor-key", None, _since(line, lambda at: _same_operator(now, at))),
        KeyAge("committee-secret", None, _since(line, lambda at: _same_secret(now, at))),
        *(KeyAge("identity", peer, _since(line, partial(_names, peer))) for peer in _peers(now)),
    )


def _since(line: list[Descriptor], named: Callable[[Descriptor], bool]) -> datetime:
    """Return when the oldest of the versions without a gap that name a key became valid."""
    first = line[0]
    for version in line:
        if not named(version):
            break
        first = version
    return first.not_before


def _same_operator(now: Descriptor, then: Descriptor) -> bool:
    return then.operator.peer_id == now.operator.peer_id


def _same_secret(now: Descriptor, then: Descriptor) -> bool:
    return then.secret_fingerprint == now.secret_fingerprint


def _names(peer: PeerId, version: Descriptor) -> bool:
    return peer in _peers(version)


def _peers(version: Descriptor) -> list[PeerId]:
    nodes = [*version.servers, *(entry.node for entry in version.aggregators)]
    return [node.peer_id for node in nodes]

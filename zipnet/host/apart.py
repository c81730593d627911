"""What guests of one host must not share: checked before any of them starts (rows A1, Z5, Z13).

Nodes of different instances may live in one process. Two servers of one committee may not: whoever
holds the process would hold two of the shares that keep authors apart from their messages. Nor may
an aggregator share the process of a server of its own instance, for it must hold no secret that
unblinds. The micro profile (``zipnet.host.micro``), which one developer runs alone, is the
exception and says so.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from zipnet.errors import ConfigError
from zipnet.settings.types import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from zipnet.settings.types import NodeSettings

__all__ = ["require_apart"]


def require_apart(guests: Mapping[str, NodeSettings]) -> None:
    """Refuse guests that would share more than the process.

    Args:
        guests: Settings by the name the operator knows them by, such as the file.

    Raises:
        ConfigError: Names the two guests and what they share.
    """
    for (one, first), (other, second) in combinations(guests.items(), 2):
        shared, hint = _shared(first, second)
        if shared:
            raise ConfigError(f"{one} and {other} {shared}", hint=hint)


def _shared(first: NodeSettings, second: NodeSettings) -> tuple[str, str]:
    """Return what two guests share and what to do about it, both empty where nothing is."""
    if first.secret == second.secret:
        return "use one node secret", "make a secret for each node: zipnet keygen node"
    servers = [one for one in (first, second) if isinstance(one, ServerSettings)]
    same = first.descriptor.descriptor.instance == second.descriptor.descriptor.instance
    if same and len(servers) == 2:  # noqa: PLR2004 - a pair
        return (
            "are servers of one committee",
            "its servers belong on machines of different operators",
        )
    if same and servers:
        return (
            "are a server and an aggregator of one instance",
            "an aggregator must share no process with a secret that unblinds",
        )
    if len(servers) == 2:  # noqa: PLR2004 - a pair
        return _shared_by_servers(servers[0], servers[1])
    return "", ""


def _shared_by_servers(first: ServerSettings, second: ServerSettings) -> tuple[str, str]:
    if first.committee_secret == second.committee_secret:
        return "use one committee secret", "each instance needs a committee secret of its own"
    if _overlap(first.state, second.state):
        return "keep their state in one folder", "give each its own --state"
    return "", ""


def _overlap(one: Path | None, other: Path | None) -> bool:
    if one is None or other is None:
        return False
    first, second = one.resolve(), other.resolve()
    return first.is_relative_to(second) or second.is_relative_to(first)

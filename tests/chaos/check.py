"""What must hold after any run, judged from the descriptor, the logs and a reader alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import zipnet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.harness.network import LiveNetwork

__all__ = ["read_all", "require_exactly_once", "require_sound_logs"]


async def read_all(network: LiveNetwork) -> Counter[bytes]:
    """Read every message as anybody may; everything is verified on the way."""
    found: Counter[bytes] = Counter()
    async with zipnet.Reader(network.descriptor, transport="tls", follow=False) as reader:
        async for message in reader:
            found[message.payload] += 1
    return found


def require_exactly_once(
    read: Counter[bytes], acknowledged: Iterable[bytes], sent: Iterable[bytes]
) -> int:
    """Return how many acknowledged messages were recovered: all of them, and nothing twice."""
    told = set(acknowledged)
    doubled = [text for text, count in read.items() if count > 1]
    assert not doubled, f"recovered twice: {doubled[:5]}"
    assert not (lost := told - set(read)), f"acknowledged and lost: {sorted(lost)[:5]}"
    assert not (strange := set(read) - set(sent)), f"nobody sent: {sorted(strange)[:5]}"
    return len(told & set(read))


def require_sound_logs(network: LiveNetwork) -> int:
    """Return the number of records: verified, chained, gapless, one history; one digest a round.

    Every record is verified with the descriptor alone, which includes the smallest crowd, and must
    extend the one before it. To be called when the servers have stopped.
    """
    names = [node.name for node in network.server_nodes]
    logs = {name: network.records(name) for name in names}
    longest = max(logs.values(), key=len)
    for name, log in logs.items():
        places = [record.record.content.sequence for record in log]
        assert places == list(range(len(log))), f"{name} has a gap"
        hashes = [record.hash for record in log]
        assert hashes == [record.hash for record in longest[: len(log)]], f"{name} forks"
        rounds = Counter(int(released.round) for released in network.releases(name))
        twice = [number for number, count in rounds.items() if count > 1]
        assert not twice, f"{name} released twice in rounds {twice[:5]}"
    return len(longest)

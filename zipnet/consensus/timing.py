"""How fast a committee notices a lost leader, and what that means for the library."""

from __future__ import annotations

from dataclasses import dataclass

from pysyncobj.config import SyncObjConf

__all__ = ["Timing", "library_conf"]


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast the committee notices a lost leader.

    Attributes:
        heartbeat_s: A leader speaks at least this often; below a third of ``election_min_s``.
        election_min_s: A follower that hears nothing for this long, or up to ``election_max_s``,
            stands for election. The least must exceed the slowest fsync plus a round trip.
        election_max_s: The longest a follower waits; a leader without a majority for this long
            steps down.
    """

    heartbeat_s: float = 0.1
    election_min_s: float = 0.4
    election_max_s: float = 1.4


def library_conf(timing: Timing) -> SyncObjConf:
    """Return the library's own configuration, with everything off that is done here."""
    return SyncObjConf(
        autoTick=False,
        raftMinTimeout=timing.election_min_s,
        raftMaxTimeout=timing.election_max_s,
        appendEntriesPeriod=timing.heartbeat_s,
        leaderFallbackTimeout=timing.election_max_s,
        connectionTimeout=timing.election_max_s,
        commandsWaitLeader=False,
        dynamicMembershipChange=False,
        useFork=False,
        # Turned off by RaftMember right after construction.
        appendEntriesUseBatch=True,
    )

"""Which consensus engine a server runs, and who may take whose seat in it.

Rules:

1. Embedded where nothing is said: with a state folder as a lasting member, without one as a server
   that has to be let in anew after every start (``zipnet.node.seating``).
2. Where the settings name an etcd, that one carries the log. It has members of its own, so nobody
   asks for a seat here.
3. The log is the group's: whoever began with one engine goes on with it. The journal in the state
   folder says which, and the other is refused.
4. A server that came with a later version of the descriptor takes its seat under an id that follows
   from its peer id: nobody had it before, and it has the same after each restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zipnet.consensus import EmbeddedConsensus
from zipnet.consensus.etcd import EtcdConsensus
from zipnet.errors import ConfigError
from zipnet.node.seating import ForgetfulConsensus, Seating

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zipnet.node.mesh import CommitteeMesh
    from zipnet.node.server_state import ServerState
    from zipnet.ports import Consensus
    from zipnet.settings import ServerSettings

__all__ = ["open_engine"]

#: What stands in the embedded engine's journal where etcd carries the log.
_ELSEWHERE: Final = b"\x00etcd"


def open_engine(
    settings: ServerSettings, state: ServerState, mesh: CommitteeMesh
) -> tuple[Consensus, Seating]:
    """Return the engine the settings ask for, and what answers for seats in it.

    Raises:
        ConfigError: The state folder's log is carried by the other engine.
        StorageError: The embedded engine's journal cannot be trusted.
        SafeMode: The choice could not be made durable.
    """
    server, size = settings.index, len(settings.descriptor.committee)
    if settings.etcd is not None:
        _claim_for_etcd(state)
        etcd = EtcdConsensus(
            server=server,
            group=bytes(settings.descriptor.group),
            host=settings.etcd.host,
            port=settings.etcd.port,
        )
        return etcd, Seating(_FixedSeats(size))

    def build(member: int | None) -> EmbeddedConsensus:
        ids = [member if i == server and member is not None else i for i in range(size)]
        return EmbeddedConsensus(
            server=server,
            size=size,
            journal=state.raft,
            mesh=mesh,
            members=ids,
            joining=member is not None,
        )

    if not state.is_durable:
        forgetful = ForgetfulConsensus(server=server, size=size, mesh=mesh, build=build)
        return forgetful, Seating(forgetful)
    if settings.node.since:
        newcomer = ForgetfulConsensus(
            server=server, size=size, mesh=mesh, build=build, member=_member_of(settings)
        )
        return newcomer, Seating(newcomer)
    if tuple(state.raft.entries()) == (_ELSEWHERE,):
        raise ConfigError(
            "the state folder belongs to a server whose log etcd carries",
            hint="set ETCD again, or begin with an empty state folder on all servers",
        )
    embedded = build(None)
    return embedded, Seating(embedded)


def _member_of(settings: ServerSettings) -> int:
    """Rule 4: above every founding id, and below what a message can carry."""
    size = len(settings.descriptor.committee)
    return size + 1 + int.from_bytes(settings.identity.peer_id[:8], "big") % (1 << 62)


def _claim_for_etcd(state: ServerState) -> None:
    entries = tuple(state.raft.entries())
    if state.raft.snapshot() is not None or entries not in ((), (_ELSEWHERE,)):
        raise ConfigError(
            "the state folder belongs to a server that carries its log itself",
            hint="unset ETCD, or begin with an empty state folder on all servers",
        )
    if not entries:
        state.raft.append_group([_ELSEWHERE])


class _FixedSeats:
    """Seats nobody can ask for: etcd's members are etcd's matter."""

    def __init__(self, size: int) -> None:
        self._size = size

    def is_blank(self) -> bool:
        """False: what etcd holds is not for this server to say."""
        return False

    def is_seated(self) -> bool:
        """True."""
        return True

    def members(self) -> tuple[int, ...]:
        """The seats themselves."""
        return tuple(range(self._size))

    def want_members(self, ids: Sequence[int]) -> None:
        """Do nothing."""

    def want_no_change(self) -> None:
        """Do nothing."""

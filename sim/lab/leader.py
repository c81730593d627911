"""A malicious leader: subset rosters, header equivocation, differencing (protocol.md §6, §8)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sim.lab.relays import SplittingAggregator
from sim.lab.spy import Spy, xor
from zipnet.machines.guard import RefusedRelease, ReleaseRequest
from zipnet.protocol.aggregate import Aggregate, Partial
from zipnet.protocol.command import ChooseAggregate
from zipnet.protocol.header import sign_header
from zipnet.protocol.ids import RegistryIndex
from zipnet.protocol.participants import Participants

if TYPE_CHECKING:
    from sim.model.server_body import ServerBody
    from zipnet.machines.aggregator_effects import SendAggregate
    from zipnet.protocol.header import RoundHeader, SignedHeader
    from zipnet.protocol.ids import Digest, ServerIndex

__all__ = ["DifferencingLeader", "EquivocatingLeader", "SubsetLeader"]

_ATTEMPTS = 3


class SubsetLeader(Spy):
    """Opens rounds with itself alone as the roster, and has aggregators show them to clients."""

    def __init__(self, mutant: str | None = None) -> None:
        super().__init__(mutant)
        self.tried = 0
        self._evil: SignedHeader | None = None
        self._bad_hashes: set[Digest] = set()

    def open_with(self, server: ServerBody, header: RoundHeader) -> RoundHeader:
        """Leave all others out, a few times."""
        alone = replace(header, roster=(server.index,))
        self._evil = sign_header(alone, server.identity)
        self._bad_hashes.add(alone.hash)
        if self.tried == _ATTEMPTS:
            return header
        self.tried += 1
        return alone

    def relay(self, node: str, signed: SignedHeader, target: str) -> list[SignedHeader]:
        """Show the header with the small roster first."""
        del node, target
        return [signed] if self._evil is None else [self._evil, signed]

    @property
    def fooled(self) -> int:
        """Envelopes that clients made for a roster the descriptor does not allow."""
        return sum(len(b) for (_, h), b in self.envelopes.items() if h in self._bad_hashes)


def _ask_guard(spy: Spy, server: ServerIndex, header: RoundHeader, digest: Digest) -> bool:
    """Ask a server's guard for a partial, as a forked log would; True where it gives one."""
    assert spy.world is not None
    target, group = spy.world.servers[server], spy.world.group
    machine = target.machine
    if machine is None:
        return False
    participants, _ = spy.aggregates[digest]
    request = ReleaseRequest(header, header.round, header.hash, participants)
    decision = machine._guard.decide(request, admitted=machine.is_admitted)  # noqa: SLF001 - the shipped guard itself is asked
    if isinstance(decision, RefusedRelease):
        return False
    body = bytes(target.custody.unblind(header, participants, group.params, group.engine))
    spy.keep_partial(Partial(header.round, header.hash, server, digest, body).encode())
    return True


class EquivocatingLeader(Spy):
    """Signs two headers for each round and has aggregators show every other client the second.

    Once a server has released for the first, its guard is asked for the second as well.
    """

    def __init__(self, mutant: str | None = None) -> None:
        super().__init__(mutant)
        self.asked = self.given = 0
        self._second: dict[int, SignedHeader] = {}

    def relay(self, node: str, signed: SignedHeader, target: str) -> list[SignedHeader]:
        """Show clients with odd numbers another header."""
        del node
        assert self.world is not None
        _, _, number = target.partition("-")
        if not target.startswith("client-") or int(number) % 2 == 0:
            return [signed]
        header = signed.header
        if int(header.round) not in self._second:
            other = replace(header, opened_at_ms=header.opened_at_ms + 1)
            identity = self.world.group.servers[header.opener]
            self._second[int(header.round)] = sign_header(other, identity)
        return [self._second[int(header.round)]]

    def partial(self, server: ServerIndex, round_number: int, blob: bytes) -> None:
        """Ask for the second header's pads the moment the first header's leave."""
        super().partial(server, round_number, blob)
        assert self.world is not None
        second = self._second.get(round_number)
        if second is None:
            return
        header = second.header
        bodies = {s: b[0] for s, b in self.envelopes[round_number, header.hash].items()}
        if len(bodies) < self.world.group.params.min_participants:
            return
        members = Participants(RegistryIndex(sender) for sender in bodies)
        whole = Aggregate(header.round, header.hash, members, xor(*bodies.values()))
        self.asked += 1
        self.given += _ask_guard(self, server, header, self.keep_aggregate(whole.encode()))

    @property
    def split_off(self) -> int:
        """Envelopes that were made for a second header."""
        hashes = {one.header.hash for one in self._second.values()}
        return sum(len(b) for (_, h), b in self.envelopes.items() if h in hashes)


class DifferencingLeader(SplittingAggregator):
    """Asks every server for a second partial of each round, for everybody but one client.

    It proposes a second choice for the log, as a leader can, and asks each server's guard as if the
    log had said so, as a forked log would.
    """

    def __init__(self, mutant: str | None = None) -> None:
        super().__init__(mutant)
        self.asked = self.given = 0
        self._less: dict[int, bytes] = {}

    def aggregate(self, node: str, effect: SendAggregate) -> list[tuple[ServerIndex | None, bytes]]:
        """Pass the whole on, and keep a smaller one ready."""
        del node
        self.keep_aggregate(effect.blob)
        less = self.without(effect.blob, int(effect.round) % max(effect.count, 1))
        digest = self.keep_aggregate(less)
        self._less[int(effect.round)] = less
        self._choose(effect, digest)
        return [(None, effect.blob)]

    def _choose(self, effect: SendAggregate, digest: Digest) -> None:
        assert self.world is not None
        participants, _ = self.aggregates[digest]
        count = len(participants)
        command = ChooseAggregate(effect.round, digest, participants.digest, count)
        for server in self.world.servers:
            if server.consensus is not None and server.consensus.leader() == server.index:
                # After the honest choice, which the leader makes when the aggregate arrives.
                server.propose_later(command, delay_s=0.03)

    def partial(self, server: ServerIndex, round_number: int, blob: bytes) -> None:
        """Ask for a second partial the moment the first one leaves."""
        super().partial(server, round_number, blob)
        assert self.world is not None
        target = self.world.servers[server]
        less = self._less.get(round_number)
        machine = target.machine
        if less is None or machine is None or machine.state.header is None:
            return
        self.asked += 1
        self.given += _ask_guard(self, server, machine.state.header, self.keep_aggregate(less))

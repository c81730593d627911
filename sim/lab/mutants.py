"""Parties that break the protocol on purpose, so that tests can see the laboratory notice.

None of this is reachable from anything shipped, and ``--mutant`` exists for tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sim.model.publishing import ModelPublisher
from zipnet.machines.guard import RefusedRelease, Released, ReleaseGuard, ReleaseRequest
from zipnet.machines.publisher_events import HeaderReceived, PublisherEffect, SendEnvelope
from zipnet.protocol.envelope import seal_envelope
from zipnet.protocol.ids import derive
from zipnet.protocol.pads import PadEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.model.group import Group
    from zipnet.machines.publisher import PublisherPolicy
    from zipnet.protocol.encoding import Buffer
    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.identity import Identity
    from zipnet.protocol.ids import RegistryIndex

__all__ = ["MUTANTS", "ForgetfulGuard", "NoCoverPublisher", "PadReusePublisher"]

MUTANTS = ("no-cover", "pad-reuse", "release-twice")


class NoCoverPublisher(ModelPublisher):
    """Takes part only when it has something to say."""

    def _take_part(self, header: RoundHeader, now: float) -> list[PublisherEffect]:
        if not self._outgoing.waiting_count():
            return []
        return super()._take_part(header, now)


class _RememberingEngine(PadEngine):
    """Keeps the keys it was last given."""

    __slots__ = ("keys",)

    def apply_many(self, buffer: bytearray, keys: Iterable[Buffer]) -> int:
        """Apply pads, and keep their keys."""
        self.keys = [bytes(key) for key in keys]
        return super().apply_many(buffer, self.keys)


class PadReusePublisher(ModelPublisher):
    """Answers a header that it is shown again, under the pads of the first answer."""

    def __init__(
        self, group: Group, name: str, identity: Identity, *, policy: PublisherPolicy
    ) -> None:
        super().__init__(group, name, identity, policy=policy)
        self._remembering = _RememberingEngine()
        self._pads = self._remembering

    def _on_header(self, event: HeaderReceived, now: float) -> list[PublisherEffect]:
        header = event.signed.header
        if header.round == self._guard.last and self.index is not None:
            body = bytearray(self._origin.params.body_bytes)
            self._remembering.apply_many(body, self._remembering.keys)
            envelope = seal_envelope(header, self.index, bytes(body), self._identity)
            return [SendEnvelope(envelope, now)]
        return super()._on_header(event, now)


class ForgetfulGuard(ReleaseGuard):
    """Releases whatever it is asked for that is large enough, as often as it is asked."""

    def __init__(self, honest: ReleaseGuard) -> None:
        super().__init__(
            server=honest._server,  # noqa: SLF001 - the same guard, broken
            min_participants=honest._min_participants,  # noqa: SLF001
        )

    def decide(
        self, request: ReleaseRequest, *, admitted: Callable[[RegistryIndex], bool]
    ) -> Released | RefusedRelease:
        """Say yes."""
        del admitted
        if len(request.participants) < self._min_participants:
            return RefusedRelease("below_minimum")
        digest = derive("release", request.header.hash, request.participants.digest)
        return Released(request.header.round, digest)

    def remember(self, released: Released) -> None:
        """Remember nothing."""

"""What a client asks for beyond a valid record: named operators, enough of them, recently.

protocol.md §6.1, §8.4. The descriptor says which rosters are allowed; a trust policy is one
client's own, stricter idea. It can only refuse: nothing that fails the descriptor passes here.

Rules:

1. A server is named by its name in the descriptor; an unknown name is a mistake, never ignored.
2. A publisher takes no part in a round that does not satisfy it; a reader stops at such a record.
3. Measurements are those the descriptor lets the committee run: its servers judge each other, and a
   publisher judges them all, by that policy, so what it excludes no server can run.
4. Age is counted from the opener's clock in the signed header to this client's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zipnet.errors import ConfigError, TrustPolicyError
from zipnet.protocol.attestation import Gate

if TYPE_CHECKING:
    from zipnet.protocol.descriptor import TrustedDescriptor
    from zipnet.protocol.header import RoundHeader
    from zipnet.protocol.ids import ServerIndex

__all__ = ["MRTD_BYTES", "BoundTrust", "TrustPolicy"]

MRTD_BYTES: Final = 48


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """What this client asks of every round it relies on.

    Attributes:
        operators: Names of committee servers that must be in every roster.
        min_roster: Fewest servers in a roster; 0 leaves it to the descriptor.
        max_record_age_s: Oldest the newest record or header may be, in seconds; None: any age.
        committee_mrtds: Measurements (48 bytes each) the servers may run; the descriptor must admit
            no server with another. Empty leaves it to the descriptor.
    """

    operators: frozenset[str] = frozenset()
    min_roster: int = 0
    max_record_age_s: float | None = None
    committee_mrtds: frozenset[bytes] = frozenset()

    def bind(self, descriptor: TrustedDescriptor) -> BoundTrust:
        """Look the names up in a descriptor.

        Raises:
            ConfigError: When a name is no committee server's, the committee is too small, or the
                descriptor lets it run other measurements.
        """
        self._require_mrtds(descriptor)
        servers = descriptor.descriptor.servers
        names = {node.name: descriptor.server_index(node.peer_id) for node in servers}
        unknown = sorted(set(self.operators) - set(names))
        if unknown:
            raise ConfigError(
                f"the trust policy names {', '.join(unknown)}, which the committee does not have",
                hint=f"its servers are {', '.join(names)}",
            )
        if self.min_roster > len(servers):
            raise ConfigError(
                f"the trust policy asks for {self.min_roster} servers, the committee has "
                f"{len(servers)}",
                hint="ask for fewer",
            )
        if self.max_record_age_s is not None and self.max_record_age_s <= 0:
            raise ConfigError("max_record_age_s must be more than 0")
        required = {name: index for name, index in names.items() if name in self.operators}
        return BoundTrust(self, {i: name for name, i in required.items() if i is not None})

    def _require_mrtds(self, descriptor: TrustedDescriptor) -> None:
        if not self.committee_mrtds:
            return
        if any(len(mrtd) != MRTD_BYTES for mrtd in self.committee_mrtds):
            raise ConfigError(f"committee_mrtds are of {MRTD_BYTES} bytes each")
        policy = descriptor.descriptor.attestation.policy_for(Gate.COMMITTEE)
        admitted = None if policy is None else policy.accepted_mrtds()
        if admitted is None:
            raise ConfigError(
                "the trust policy names the committee's MRTDs, the descriptor asks for none",
                hint="use a group that attests its committee, or leave committee_mrtds out",
            )
        others = sorted(mrtd.hex()[:16] for mrtd in admitted - self.committee_mrtds)
        if others:
            raise ConfigError(
                f"the descriptor also admits servers with MRTD {', '.join(others)}…, which the "
                "trust policy does not name",
                hint="ask the operator what that image is before you add it",
            )


@dataclass(frozen=True, slots=True)
class BoundTrust:
    """A trust policy with its names looked up in one descriptor.

    Attributes:
        policy: The policy.
        required: Server indexes that must be in every roster, with their names.
    """

    policy: TrustPolicy
    required: dict[ServerIndex, str]

    def require_roster(self, header: RoundHeader) -> None:
        """Check a round's roster.

        Raises:
            TrustPolicyError: When a named operator is missing or the roster is too small.
        """
        missing = [name for i, name in self.required.items() if i not in header.roster]
        if missing:
            raise TrustPolicyError(
                f"round {header.round} runs without {', '.join(missing)}, "
                "which the trust policy names",
                hint="wait until that operator is back, or change the trust policy",
            )
        if len(header.roster) < self.policy.min_roster:
            raise TrustPolicyError(
                f"round {header.round} has {len(header.roster)} servers, the trust policy asks "
                f"for {self.policy.min_roster}",
                hint="wait until more servers are back, or change the trust policy",
            )

    def require_recent(self, header: RoundHeader, now_ms: int | None) -> None:
        """Check that a round was opened recently; ``now_ms`` None asks for nothing.

        Raises:
            TrustPolicyError: When it is older than the policy allows.
        """
        limit_s = self.policy.max_record_age_s
        if limit_s is None or now_ms is None:
            return
        age_s = (now_ms - header.opened_at_ms) / 1000
        if age_s > limit_s:
            raise TrustPolicyError(
                f"round {header.round} was opened {age_s:.0f} s ago, the trust policy allows "
                f"{limit_s:g} s",
                hint="the network stands still or hides newer rounds; check this machine's clock",
            )
